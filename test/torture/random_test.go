// Package torture runs short pieces of cmd/torture as tests.
package torture

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestRandom tortures for a minute or so: one epoch with each register, on all
// databases. The faults are new ones each time, unless TROTH_TORTURE_SEED names
// a seed: what fails says which, and how to run its faults again.
func TestRandom(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("skipped: it takes over a minute")
	}
	seed := os.Getenv("TROTH_TORTURE_SEED")
	if seed == "" {
		seed = strconv.FormatInt(time.Now().UnixNano()%1e9, 10)
	}
	cmd := exec.Command(binary(t), "random", "-seed", seed, "-register", "all",
		"-epochs", "3", "-epoch", "15s", "-calm", "2s", "-min-load", "20", "-min-under", "0.05", "-min-cycles", "0.5",
		"-dir", filepath.Join(os.TempDir(), "troth-torture-"+seed)) // kept if it fails
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	t.Logf("%s", out.Bytes())
	if err != nil {
		t.Fatalf("torture with seed %s: %v; TROTH_TORTURE_SEED=%[1]s go test ./test/torture -run TestRandom", seed, err)
	}
	for _, did := range []string{`committed +[1-9]\d\d`, `rolled back +[1-9]`, `3 epochs`, `kill-and-recover cycles +[1-9]`} {
		if !regexp.MustCompile(did).Match(out.Bytes()) {
			t.Errorf("the run did too little to prove anything: nothing matches %q", did)
		}
	}
}

// binary is the program, with fault points and without the race detector, which would
// slow down what is to be killed.
func binary(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var built = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../bin/torture-faultpoint") // kept: the next build is quick
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-tags", "faultpoint", "-o", path, "../../cmd/torture").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})
