package troth

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// An outage is complained of once, which takes a text that does not depend on which
// database was the first to fail.
func TestErrorsOfAPassReadTheSameInAnyOrder(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, errsMax, 3 * errsMax} {
		var forth, back pass
		for i := range n {
			forth.fail(fmt.Errorf("database %d is silent", i))
			back.fail(fmt.Errorf("database %d is silent", n-1-i))
		}
		forth.fail(errors.New("database 0 is silent")) // twice is once
		if got, want := back.err().Error(), forth.err().Error(); got != want {
			t.Errorf("%d errors read\n%s\nin one order, and in the other\n%s", n, got, want)
		}
		text := forth.err().Error()
		told, rest, more := strings.Count(text, "is silent"), 0, n > errsMax
		if _, last, ok := strings.Cut(text, "and "); ok {
			_, _ = fmt.Sscanf(last, "%d more errors", &rest)
		}
		if told != min(n, errsMax) || told+rest != n || strings.Contains(text, "more errors") != more {
			t.Errorf("%d errors are told as\n%s", n, text)
		}
	}
}

// A register of its own answers abort without an error: the caller must hear why
// all the same. Found by the torture, whose clients were told "rolled back" and no
// more.
func TestAnAbortOfRecoveryIsACause(t *testing.T) {
	t.Parallel()
	reg := newMemRegister()
	s := setup(t, func(cfg *Config, _ *bundle) { cfg.Register = reg })
	tx, err := s.m.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.a.work(t.Context(), tx), s.b.work(t.Context(), tx)); err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Decide(t.Context(), Decision{GID: tx.ID(), Outcome: Aborted}); err != nil { // as recovery does
		t.Fatal(err)
	}
	wantErr(t, tx.Commit(t.Context()), ErrRolledBack, errBeaten)
}

// And it is a cause of nothing else: what is committed, and not acknowledged yet,
// was beaten by nobody.
func TestAPendingCommitWasNotBeaten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, func(cfg *Config, _ *bundle) { cfg.Register = newMemRegister() })
		down := errors.New("connection refused")
		s.b.failOn("commit", failure{err: down})
		s.b.failOn("finish commit", failure{err: down})
		_, err := s.transfer(t.Context())
		wantErr(t, err, ErrPending, down)
		if errors.Is(err, errBeaten) {
			t.Errorf("error %v", err)
		}
		_ = s.m.Close(t.Context())
	})
}
