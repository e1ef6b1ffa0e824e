package embedded

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

const brokenEnv = "TROTH_STORE_BROKEN"

// After an error of the medium nobody knows what it has: the store writes and reads
// nothing any more, and says so in a way that a program can tell. What it confirmed is
// there when it is opened again.
func TestMediumFails(t *testing.T) {
	if dir := os.Getenv(brokenEnv); dir != "" {
		writeUntilBroken(t, dir)
		return
	}
	t.Parallel()
	dir := t.TempDir() + "/s"
	// A limit of the size of files makes a write fail in the middle.
	child := exec.Command("sh", "-c", `trap '' XFSZ; ulimit -f 3000; exec "$0" -test.run='^TestMediumFails$' -test.v`, os.Args[0])
	child.Env = append(os.Environ(), brokenEnv+"="+dir)
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(dir + ".confirmed")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscan(string(text), &n); err != nil || n == 0 {
		t.Fatalf("%d confirmed (%v)\n%s", n, err, out)
	}
	s := mustOpen(t, dir)
	for i := range n {
		if _, err := s.Get(t.Context(), fmt.Sprint("t", i)); err != nil {
			t.Errorf("t%d was confirmed: %v", i, err)
		}
	}
}

func writeUntilBroken(t *testing.T, dir string) {
	s, err := Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		now := time.Now()
		err = s.Create(t.Context(), &store.Transaction{
			GID: fmt.Sprint("t", n), Pattern: store.Message, State: store.Prepared, Created: now, Updated: now,
			Branches: []store.Branch{{ID: "01", Op: store.Action, State: store.BranchPrepared, Payload: make([]byte, 100_000)}},
		})
		if err != nil || n == 1000 {
			break
		}
	}
	if err := os.WriteFile(dir+".confirmed", []byte(fmt.Sprint(n)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errGet := s.Get(t.Context(), "t0")
	_, errDue := s.NextDue(t.Context())
	_, errClaim := s.Claim(t.Context(), time.Now(), time.Second, 1)
	for what, err := range map[string]error{"create": err, "get": errGet, "next due": errDue, "claim": errClaim} {
		if !errors.Is(err, store.ErrBroken) {
			t.Errorf("%s: %v, want ErrBroken", what, err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Logf("close: %v", err)
	}
}
