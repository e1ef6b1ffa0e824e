// Package torture runs a short part of the torture in CI.
package torture

import (
	"fmt"
	"os"
	"os/exec"
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
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("NOT RUN: fault points are compiled in on Linux only")
	}
	const seed = 1 // always the same, so that a failure is due to a change; long runs draw others
	cmd := exec.Command(binary(t), "points", "-seed", fmt.Sprint(seed), "-dir", t.TempDir())
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
