//go:build !dtmtest

package dtmapi_test

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const steered = false

// A release has no trace of the hooks for test suites.
func TestReleaseHasNoHooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	for _, hook := range []string{"reset", "forward", "cronOnce", "topics", "processed"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if a := w.ask(method, "/api/dtmtest/"+hook, nil); a.status != 404 {
				t.Errorf("%s %s: %+v", method, hook, a)
			}
		}
	}
	if testing.Short() {
		t.Skip("does not build the program")
	}
	program := filepath.Join(t.TempDir(), "troth")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, "../../cmd/troth")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("dtmtest")) {
		t.Error("the program knows of dtmtest")
	}
}
