package troth

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// The process is stopped while its decision is on the way, which went in; the answer
// is lost meanwhile. Others finish the transaction, prove it and forget it. When the
// process wakes it has not asked for the decision yet: the time in which it may ask
// for abort counts from when the decision was sent, not from when the answer was
// missed. Found with docs/models, where it is M_R4_CLOCK_STARTS_LATE.
func TestFrozenBeforeItMissesTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		a, b := newMemRM("athos", log), newMemRM("porthos", log)
		other := openManager(t, Config{Resources: []Resource{a, b}, LifeMax: time.Minute})
		m := openManager(t, Config{Resources: []Resource{a, b}, LifeMax: time.Minute, RecoverEvery: -1})
		a.failOn("decide", failure{err: errors.New("eof"), after: true}) // it did commit
		m.cfg.Observer.BranchOp = func(_ GID, _, op string, _ time.Duration, _ error) {
			if op == "decide" {
				time.Sleep(10 * time.Minute) // SIGSTOP ... SIGCONT
			}
		}
		var id GID
		err := m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
			id = tx.ID()
			return errors.Join(a.work(ctx, tx), b.work(ctx, tx))
		})
		o, oerr := m.Outcome(t.Context(), id)
		if errors.Is(err, ErrRolledBack) || o == Aborted {
			t.Errorf("branches: %v; but the caller heard %v, and Outcome says %v, %v", b.ended(), err, o, oerr)
		}
		wantErr(t, err, ErrUndecided)
		_ = m.Close(context.Background())
		_ = other.Close(context.Background())
	})
}
