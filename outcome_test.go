package troth

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What is no id is said to be none at once, whatever the databases do.
func TestOutcomeOfNoID(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	s.a.tab.setErr(errors.New("must not be asked"))
	if o, err := s.m.Outcome(t.Context(), "bank"); o != Undecided || err == nil || strings.Contains(err.Error(), "must not") {
		t.Errorf("outcome %v, error %v", o, err)
	}
	if o, err := s.m.Wait(t.Context(), "bank"); o != Undecided || err == nil || strings.Contains(err.Error(), "must not") {
		t.Errorf("wait %v, error %v", o, err)
	}
}

// "No record" is said only when every place answered.
func TestNoRecordNeedsEveryAnswer(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	id := NewGID("bank", time.Now())
	if o, err := s.m.Outcome(t.Context(), id); o != Undecided || !errors.Is(err, ErrNoRecord) {
		t.Errorf("outcome %v, error %v", o, err)
	}
	down := errors.New("connection refused")
	s.b.tab.setErr(down)
	if o, err := s.m.Outcome(t.Context(), id); o != Undecided || errors.Is(err, ErrNoRecord) || !errors.Is(err, down) || !strings.Contains(err.Error(), "at porthos~") {
		t.Errorf("one place is silent: outcome %v, error %v", o, err)
	}
	s.a.tab.decided(id, Committed)
	if o, err := s.m.Outcome(t.Context(), id); o != Committed || err != nil {
		t.Errorf("the other has the record: outcome %v, error %v", o, err)
	}
	if o, p, err := s.m.locate(t.Context(), id); o != Committed || p != s.a.place() || err != nil {
		t.Errorf("located %v at %v, error %v", o, p, err)
	}
	s.b.tab.setErr(nil)
	s.m.mu.Lock()
	s.m.opened[s.b], s.m.failed[s.b] = false, down
	s.m.mu.Unlock()
	other := NewGID("bank", time.Now())
	if o, err := s.m.Outcome(t.Context(), other); o != Undecided || errors.Is(err, ErrNoRecord) || !errors.Is(err, ErrUnreachable) {
		t.Errorf("one place was never reached: outcome %v, error %v", o, err)
	}
}

// Wait gives up on a transaction without a record once nobody can be about to
// decide it.
func TestWaitGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, grace := range []time.Duration{20 * time.Second, -1} {
			s := setup(t, func(c *Config, _ *bundle) { c.Timeout, c.Grace = time.Minute, grace })
			limit := time.Minute + max(grace, 0)
			id := NewGID("bank", time.Now())
			time.Sleep(limit)
			ctx, cancel := context.WithTimeout(t.Context(), 0)
			if _, err := s.m.Wait(ctx, id); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "wait for "+string(id)) {
				t.Errorf("grace %v: at the limit: error %v", grace, err)
			}
			cancel()
			start := time.Now()
			o, err := s.m.Wait(t.Context(), id)
			if took := time.Since(start); o != Undecided || !errors.Is(err, ErrNoRecord) || took == 0 || took > time.Second {
				t.Errorf("grace %v: after %v: %v, error %v", grace, took, o, err)
			}
			start = time.Now()
			if _, err := s.m.Wait(t.Context(), id); !errors.Is(err, ErrNoRecord) || time.Since(start) != 0 {
				t.Errorf("grace %v: long after: error %v", grace, err)
			}
		}
	})
}

// Wait asks until somebody decides, at least twice a second, and sees the Manager
// close.
func TestWaitAsksOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, nil)
		id := NewGID("bank", time.Now())
		s.a.tab.setErr(errors.New("connection refused"))
		time.AfterFunc(3*time.Second, func() { s.a.tab.setErr(nil) })
		time.AfterFunc(7*time.Second, func() { s.a.tab.decided(id, Aborted) })
		start := time.Now()
		o, err := s.m.Wait(t.Context(), id)
		if took := time.Since(start); o != Aborted || err != nil || took < 7*time.Second || took > 7500*time.Millisecond {
			t.Errorf("%v after %v, error %v", o, took, err)
		}
		time.AfterFunc(time.Second, func() { _ = s.m.Close(context.Background()) })
		if o, err := s.m.Wait(t.Context(), NewGID("bank", time.Now())); o != Undecided || !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v, error %v", o, err)
		}
	})
}

// A transaction that this process drives is waited for without a question.
func TestWaitForOneOfOurOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, nil)
		tx, err := s.m.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.a.work(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		if o, err := s.m.Outcome(t.Context(), tx.ID()); o != Undecided || err != nil {
			t.Errorf("active: %v, error %v", o, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if o, err := s.m.Wait(ctx, tx.ID()); o != Undecided || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the wait is over: %v, error %v", o, err)
		}
		cancel()
		time.AfterFunc(5*time.Second, func() { _ = tx.Commit(context.Background()) })
		start := time.Now()
		if o, err := s.m.Wait(t.Context(), tx.ID()); o != Committed || err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %v, error %v", o, time.Since(start), err)
		}
	})
}
