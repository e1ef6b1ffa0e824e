// Package torture runs a short part of the torture in CI.
package torture

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	"github.com/troth-tx/troth/internal/faultpoint"
)

// TestEveryPoint comes to every fault point four times, kills the program there,
// freezes it, cuts it off before and after its next statements, and looks from
// outside what came of it; see cmd/torture. It fails if a promise was broken or a
// point not reached, and prints the commands that do the same again.
func TestEveryPoint(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("NOT RUN: fault points are compiled in on Linux only")
	}
	const seed = 1 // always the same, so that a failure is due to a change; long runs draw others
	cmd := exec.Command(command(t), "points", "-seed", fmt.Sprint(seed), "-dir", t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint(4 * len(faultpoint.Points()))
	summary := regexp.MustCompile(`(?m)^(\d+) cycles in .*; (\d+) statements .*; (\d+) failed$`).FindSubmatch(out)
	if summary == nil || string(summary[1]) != want || string(summary[3]) != "0" {
		t.Fatalf("%q: want %s cycles, and none that failed", summary, want)
	}
	if string(summary[2]) == "0" {
		t.Error("no statement's answer was lost: the cuts did nothing")
	}
}

// command builds the program with its fault points.
func command(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/torture-points") // kept: the next build is quick
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "build", "-tags", "faultpoint", "-o", path, "../../cmd/torture").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}
