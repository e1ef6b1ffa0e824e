package troth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bench is a Manager over two resources in memory.
type bundle struct {
	m    *Manager
	a, b *memRM
	log  *callLog
}

func setup(t *testing.T, change func(*Config, *bundle)) *bundle {
	t.Helper()
	s := &bundle{log: &callLog{}}
	s.a, s.b = newMemRM("athos", s.log), newMemRM("porthos", s.log)
	cfg := Config{Domain: "bank", Resources: []Resource{s.a, s.b}, RecoverEvery: -1, Grace: -1}
	if change != nil {
		change(&cfg, s)
	}
	m, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.m = m
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = m.Close(ctx)
	})
	return s
}

// transfer is a transaction that works on both resources, first a.
func (s *bundle) transfer(ctx context.Context, opts ...TxOption) (GID, error) {
	var id GID
	err := s.m.Run(ctx, func(ctx context.Context, tx *Tx) error {
		id = tx.ID()
		return errors.Join(s.a.work(ctx, tx), s.b.work(ctx, tx))
	}, opts...)
	return id, err
}

func wantCalls(t *testing.T, s *bundle, want string) {
	t.Helper()
	if got := s.log.String(); got != want {
		t.Errorf("calls\n  got  %s\n  want %s", got, want)
	}
}

func wantErr(t *testing.T, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("error %v, want one that is %v", err, w)
		}
	}
}

// R1: the others vote, the home decides with its own commit, then the others
// commit.
func TestCommitHome(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	id, err := s.transfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantCalls(t, s, "porthos prepare, athos decide, porthos commit")
	rec := s.a.tab.recs[id]
	if got := EncodeBranches(rec.Branches); got != "porthos.2=731" {
		t.Errorf("the record binds %q", got)
	}
	if o, err := s.m.Outcome(t.Context(), id); o != Committed || err != nil {
		t.Errorf("outcome %v, %v", o, err)
	}
}

func TestCommitRegister(t *testing.T) {
	t.Parallel()
	reg := newMemRegister()
	s := setup(t, func(c *Config, _ *bundle) { c.Register = reg })
	id, err := s.transfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.log.String(); strings.Contains(got, "decide") || strings.Count(got, "prepare") != 2 || strings.Count(got, "commit") != 2 {
		t.Errorf("calls %s", got)
	}
	if got := EncodeBranches(reg.recs[id].Branches); got != "athos.1=731 porthos.2=731" {
		t.Errorf("the record binds %q", got)
	}
}

func TestOneWriterCommitsInOnePhase(t *testing.T) {
	t.Parallel()
	s := setup(t, func(_ *Config, s *bundle) { s.a.wrote = false })
	if _, err := s.transfer(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, s, "porthos decide, athos release")
}

func TestReadersDecideNothing(t *testing.T) {
	t.Parallel()
	s := setup(t, func(_ *Config, s *bundle) { s.a.wrote, s.b.wrote = false, false })
	if _, err := s.transfer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.log.String(); strings.Count(got, "release") != 2 || strings.Contains(got, "decide") {
		t.Errorf("calls %s", got)
	}
	if err := s.m.Run(t.Context(), func(context.Context, *Tx) error { return nil }); err != nil {
		t.Errorf("a transaction that used nothing: %v", err)
	}
}

func TestErrorRollsBack(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	boom := errors.New("boom")
	err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		return errors.Join(s.a.work(ctx, tx), s.b.work(ctx, tx), boom)
	})
	wantErr(t, err, ErrRolledBack, boom)
	if got := s.log.String(); strings.Count(got, "rollback") != 2 || strings.Contains(got, "prepare") {
		t.Errorf("calls %s", got)
	}
}

func TestPanicRollsBackAndGoesUp(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	defer func() {
		if v := recover(); v != "boom" {
			t.Errorf("recovered %v", v)
		}
		if got := s.log.String(); !strings.Contains(got, "athos rollback") {
			t.Errorf("calls %s", got)
		}
	}()
	_ = s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		_ = s.a.work(ctx, tx)
		panic("boom")
	})
}

func TestVoteNoRollsBackAll(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	s.b.failOn("prepare", failure{err: errVoteNo})
	id, err := s.transfer(t.Context())
	wantErr(t, err, ErrRolledBack, errVoteNo)
	var b *BranchError
	if !errors.As(err, &b) || b.Resource != "porthos" || b.Op != "prepare" || b.XID == "" {
		t.Errorf("branch error %+v", b)
	}
	if o, err := s.m.Outcome(t.Context(), id); o != Aborted || err != nil {
		t.Errorf("outcome %v, %v", o, err)
	}
	if s.a.tab.size() != 0 {
		t.Error("an early abort left a record: presumed abort needs none")
	}
}

// A vote whose answer is lost is no vote, and its branch may be prepared: it is
// ended from a recovery session.
func TestLostVoteRollsBack(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	s.b.failOn("prepare", failure{err: errors.New("eof"), after: true})
	s.b.failOn("rollback", failure{err: errors.New("session gone")})
	_, err := s.transfer(t.Context())
	wantErr(t, err, ErrRolledBack)
	if len(s.b.prepared) != 0 {
		t.Error("the branch is still prepared")
	}
	if s.a.tab.size() != 0 {
		t.Error("somebody decided")
	}
}

// R3: a lost answer of the decision is asked for again, and what the table holds
// is what the caller hears.
func TestLostDecision(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{true, false} {
		s := setup(t, nil)
		s.a.failOn("decide", failure{err: errors.New("eof"), after: after})
		id, err := s.transfer(t.Context())
		o, _ := s.m.Outcome(t.Context(), id)
		if after {
			if err != nil || o != Committed || len(s.b.prepared) != 0 {
				t.Errorf("the decision was made: error %v, outcome %v", err, o)
			}
			continue
		}
		wantErr(t, err, ErrRolledBack)
		if o != Aborted || len(s.b.prepared) != 0 {
			t.Errorf("the decision was not made: outcome %v", o)
		}
	}
}

func TestLostDecisionInRegister(t *testing.T) {
	t.Parallel()
	reg := newMemRegister()
	reg.lose = 3
	s := setup(t, func(c *Config, _ *bundle) { c.Register = reg })
	if _, err := s.transfer(t.Context()); err != nil {
		t.Errorf("error %v, want committed: the register holds commit", err)
	}
}

// While the decision cannot be learned the caller hears that, and nothing is
// rolled back or committed. Once it can be, the transaction goes on by itself.
func TestUndecidedUntilTheHomeAnswers(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	s.a.failOn("decide", failure{err: errors.New("eof"), after: true})
	down := errors.New("connection refused")
	var fail func()
	s.m.cfg.Observer.BranchOp = func(_ GID, _, op string, _ time.Duration, _ error) {
		if op == "decide" && fail != nil {
			fail()
		}
	}
	fail = func() { s.a.tab.setErr(down) }
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	id, err := s.transfer(ctx)
	wantErr(t, err, ErrUndecided)
	if errors.Is(err, ErrRolledBack) || errors.Is(err, ErrPending) {
		t.Errorf("error %v claims to know", err)
	}
	if len(s.b.prepared) != 1 {
		t.Error("the branch in doubt was touched")
	}
	s.a.tab.setErr(nil)
	wctx, wcancel := context.WithTimeout(t.Context(), time.Minute)
	defer wcancel()
	if o, err := s.m.Wait(wctx, id); o != Committed || err != nil {
		t.Errorf("wait: %v, %v", o, err)
	}
	if len(s.b.prepared) != 0 {
		t.Error("the branch is still in doubt")
	}
}

func TestLostCommitIsFinishedFromElsewhere(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	s.b.failOn("commit", failure{err: errors.New("eof"), after: true})
	if _, err := s.transfer(t.Context()); err != nil {
		t.Errorf("error %v", err)
	}
	wantCalls(t, s, "porthos prepare, athos decide, porthos commit, porthos finish commit")
}

func TestPendingThenRecovered(t *testing.T) {
	t.Parallel()
	s := setup(t, func(c *Config, _ *bundle) { c.AckTimeout = 100 * time.Millisecond })
	down := failure{err: errors.New("connection refused")}
	s.b.failOn("commit", down)
	s.b.failOn("finish commit", down)
	_, err := s.transfer(t.Context())
	wantErr(t, err, ErrPending)
	if errors.Is(err, ErrRolledBack) || len(s.b.prepared) != 1 {
		t.Errorf("error %v, %d prepared", err, len(s.b.prepared))
	}
	if _, err := s.m.Recover(t.Context()); err == nil {
		t.Error("recovery of an unreachable branch reported nothing")
	}
	delete(s.b.fail, "finish commit")
	if n, err := s.m.Recover(t.Context()); n != 1 || err != nil {
		t.Errorf("recovered %d, %v", n, err)
	}
	if s.b.done[XID{}.String()] == Aborted || len(s.b.prepared) != 0 {
		t.Error("the branch did not commit")
	}
}

func TestHeuristicIsLoud(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	told := 0
	s.m.cfg.Observer.Heuristic = func(*HeuristicError) { told++ }
	s.b.failOn("commit", failure{err: errors.New("no such transaction")})
	s.m.cfg.Observer.BranchOp = func(_ GID, _, op string, _ time.Duration, _ error) {
		if op != "decide" {
			return
		}
		s.b.mu.Lock() // an administrator rolls the branch back by hand
		defer s.b.mu.Unlock()
		for name := range s.b.prepared {
			delete(s.b.prepared, name)
			s.b.done[name] = Aborted
		}
	}
	id, err := s.transfer(t.Context())
	var h *HeuristicError
	if !errors.As(err, &h) || h.Decision != Committed || len(h.Branches) != 1 || h.Branches[0].Ended != Aborted {
		t.Fatalf("error %v", err)
	}
	if told != 1 {
		t.Errorf("the observer was told %d times", told)
	}
	if SafeToRetry(err) {
		t.Error("safe to retry")
	}
	if s.a.tab.recs[id].Outcome != Committed {
		t.Error("the record was dropped")
	}
}

func TestTimeoutRollsBackIdleTransaction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, nil)
		tx, err := s.m.Begin(t.Context(), Timeout(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.a.work(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1001 * time.Millisecond)
		synctest.Wait()
		wantCalls(t, s, "athos rollback")
		wantErr(t, s.b.work(t.Context(), tx), ErrRolledBack, ErrTimeout)
		wantErr(t, tx.Commit(t.Context()), ErrRolledBack, ErrTimeout)
		if err := tx.Rollback(t.Context()); err != nil {
			t.Errorf("rollback after: %v", err)
		}
		if err := s.m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// ctx stops the vote.
func TestCancelledBeforeVote(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.m.Run(ctx, func(ctx context.Context, tx *Tx) error {
		defer cancel()
		return errors.Join(s.a.work(ctx, tx), s.b.work(ctx, tx))
	})
	wantErr(t, err, ErrRolledBack, context.Canceled)
	if s.a.tab.size() != 0 || len(s.b.prepared) != 0 {
		t.Error("something is left")
	}
}

// ctx does not stop what follows the decision.
func TestCancelledAfterDecision(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	s.m.cfg.Observer.BranchOp = func(_ GID, _, op string, _ time.Duration, _ error) {
		if op == "decide" {
			cancel()
		}
	}
	id, err := s.transfer(ctx)
	if err != nil && !errors.Is(err, ErrPending) && !errors.Is(err, ErrUndecided) {
		t.Errorf("error %v", err)
	}
	if o, err := s.m.Wait(t.Context(), id); o != Committed || err != nil {
		t.Errorf("outcome %v, %v", o, err)
	}
	if err := s.m.Close(t.Context()); err != nil { // the branch may be ended after the decision is told
		t.Error(err)
	}
	if s.b.inDoubt() != 0 {
		t.Error("the branch is still in doubt")
	}
}

// The caller is let go once the decision is durable, and no sooner: a rollback is
// waited for.
func TestReturnAtDecision(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, nil)
		down := failure{err: errors.New("connection refused")}
		s.b.failOn("commit", down)
		s.b.failOn("finish commit", down)
		start := time.Now()
		if _, err := s.transfer(t.Context(), ReturnAtDecision()); err != nil || time.Since(start) != 0 {
			t.Errorf("after %v: error %v: the decision is durable", time.Since(start), err)
		}
		_ = s.m.Close(context.Background())

		s = setup(t, nil)
		answer := make(chan struct{})
		s.a.failOn("rollback", failure{err: down.err, until: answer})
		time.AfterFunc(2*time.Second, func() { close(answer) })
		start = time.Now()
		err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
			return errors.Join(s.a.work(ctx, tx), errVoteNo)
		}, ReturnAtDecision())
		if wantErr(t, err, ErrRolledBack); time.Since(start) != 2*time.Second {
			t.Errorf("rolled back after %v", time.Since(start))
		}
		_ = s.m.Close(context.Background())
	})
}

func TestHooks(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	var order []string
	err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		tx.BeforeCommit(func(ctx context.Context) error {
			order = append(order, "before")
			return s.b.work(ctx, tx) // work is still possible
		})
		tx.AfterDone(func(o Outcome) { order = append(order, o.String()) })
		return s.a.work(ctx, tx)
	})
	if err != nil || strings.Join(order, " ") != "before committed" {
		t.Errorf("error %v, order %v", err, order)
	}
	stale := errors.New("stale")
	order = nil
	err = s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		tx.BeforeCommit(func(context.Context) error { return stale })
		tx.AfterDone(func(o Outcome) { order = append(order, o.String()) })
		return s.a.work(ctx, tx)
	})
	wantErr(t, err, ErrRolledBack, stale)
	if strings.Join(order, " ") != "aborted" {
		t.Errorf("order %v", order)
	}
}

func TestEndedTransaction(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	tx, err := s.m.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Errorf("rollback after commit: %v", err)
	}
	wantErr(t, tx.Commit(t.Context()), ErrClosed)
	wantErr(t, s.a.work(t.Context(), tx), ErrClosed)
}

// What f did itself is what Run tells.
func TestRunWhenTheFunctionEndsTheTransaction(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		return errors.Join(s.a.work(ctx, tx), tx.Commit(ctx))
	})
	if err != nil {
		t.Errorf("f committed: %v", err)
	}
	err = s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		return errors.Join(s.a.work(ctx, tx), tx.Rollback(ctx))
	})
	wantErr(t, err, ErrRolledBack)
	boom := errors.New("boom")
	err = s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		return errors.Join(s.a.work(ctx, tx), tx.Commit(ctx), boom)
	})
	wantErr(t, err, boom)
	if errors.Is(err, ErrRolledBack) {
		t.Errorf("f committed and then failed: %v", err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	tx, err := s.m.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.a.work(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	if err := s.m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wantCalls(t, s, "athos rollback")
	wantErr(t, tx.Commit(t.Context()), ErrRolledBack, ErrClosed)
	if _, err := s.m.Begin(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("begin after close: %v", err)
	}
	if err := s.m.Close(t.Context()); err != nil {
		t.Errorf("second close: %v", err)
	}
}

// A resource that cannot prepare is the home, whatever the order.
func TestHomeOnlyResource(t *testing.T) {
	t.Parallel()
	s := setup(t, func(_ *Config, s *bundle) { s.b.can = CanDecide })
	if _, err := s.transfer(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, s, "athos prepare, porthos decide, athos commit")
}

func TestTwoHomeOnlyResources(t *testing.T) {
	t.Parallel()
	s := setup(t, func(_ *Config, s *bundle) { s.a.can, s.b.can = CanDecide, CanDecide })
	_, err := s.transfer(t.Context())
	wantErr(t, err, ErrRolledBack)
	if !strings.Contains(err.Error(), "athos and porthos cannot prepare") {
		t.Errorf("error %v does not say why", err)
	}
}

// A branch that must be named before its work (XA START) fixes the home: a
// resource that cannot prepare and comes later is refused with what to do.
func TestLateHomeOnlyResource(t *testing.T) {
	t.Parallel()
	s := setup(t, func(_ *Config, s *bundle) { s.b.can = CanDecide })
	run := func(opts ...TxOption) error {
		return s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
			br, err := tx.Enlist(ctx, s.a)
			if err != nil {
				return err
			}
			if _, err := br.(*memBranch).cfg.XID(); err != nil {
				return err
			}
			return s.b.work(ctx, tx)
		}, opts...)
	}
	err := run()
	wantErr(t, err, ErrRolledBack)
	if !strings.Contains(err.Error(), `troth.Home("porthos")`) {
		t.Errorf("error %v does not name the fix", err)
	}
	if err := run(Home("porthos")); err != nil {
		t.Errorf("with Home: %v", err)
	}
}

// The home that Home names records the decision although the program never used
// it.
func TestHomeThatDidNotWork(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	c := newMemRM("aramis", s.log)
	c.wrote = false
	s2 := setup(t, func(cfg *Config, s2 *bundle) {
		cfg.Resources = []Resource{s.a, s.b, c}
		s2.a, s2.b, s2.log = s.a, s.b, s.log
	})
	if _, err := s2.transfer(t.Context(), Home("aramis")); err != nil {
		t.Fatal(err)
	}
	if got := s.log.String(); !strings.Contains(got, "aramis decide") || strings.Count(got, "prepare") != 2 {
		t.Errorf("calls %s", got)
	}
	if c.tab.size() != 1 {
		t.Error("no record in the named home")
	}
}

func TestRecoverPresumesAbort(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	place := Place{Resource: "athos", Identity: s.a.tab.id}
	gone := XID{GID: NewGID("bank", time.Now()), Place: place, Branch: 2}
	decided := XID{GID: NewGID("bank", time.Now()), Place: place, Branch: 2}
	other := XID{GID: NewGID("shop", time.Now()), Place: place, Branch: 2}
	stranger := XID{GID: NewGID("bank", time.Now()), Place: Place{Resource: "athos", Identity: "zzzzzzzz"}, Branch: 2}
	for _, x := range []XID{gone, decided, other, stranger} {
		s.b.prepared[x.String()] = x
	}
	s.a.tab.recs[decided.GID] = Decision{GID: decided.GID, Outcome: Committed}

	n, err := s.m.Recover(t.Context())
	if n != 2 {
		t.Errorf("ended %d branches", n)
	}
	if err == nil || !strings.Contains(err.Error(), "zzzzzzzz") {
		t.Errorf("error %v does not name the unknown place", err)
	}
	if s.b.done[gone.String()] != Aborted || s.a.tab.recs[gone.GID].Outcome != Aborted {
		t.Error("R2: an undecided branch is rolled back after its abort record")
	}
	if s.b.done[decided.String()] != Committed {
		t.Error("a decided branch is committed")
	}
	if _, ok := s.b.prepared[other.String()]; !ok {
		t.Error("R7: another domain's branch was touched")
	}
	if _, ok := s.b.prepared[stranger.String()]; !ok {
		t.Error("a branch whose decision is in an unknown database was touched")
	}
}

// R6: one unreachable database stops neither the others nor counts as empty.
func TestRecoverWithOneDown(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	x := XID{GID: NewGID("bank", time.Now()), Place: Place{Resource: "porthos", Identity: s.b.tab.id}, Branch: 1}
	s.b.prepared[x.String()] = x
	s.a.failOn("recover", failure{err: errors.New("connection refused")})
	n, err := s.m.Recover(t.Context())
	if n != 1 || err == nil {
		t.Errorf("ended %d, error %v", n, err)
	}
}

// R4: what a crash left is forgotten only with proof for every branch.
func TestForgetNeedsProof(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	old := time.Now().Add(-2 * time.Hour)
	record := func(branch string) GID {
		g := NewGID("bank", old)
		s.a.tab.recs[g] = Decision{GID: g, Outcome: Committed, At: old, Branches: []BranchRecord{{Resource: branch, Branch: 2}}}
		return g
	}
	proved, unproved, unknown := record("porthos"), record("porthos"), record("aramis")
	s.b.done[XID{GID: proved, Place: Place{Resource: "athos", Identity: s.a.tab.id}, Branch: 2}.String()] = Committed
	_, _ = s.m.Recover(t.Context())
	for g, want := range map[GID]Outcome{proved: Undecided, unproved: Committed, unknown: Committed} {
		if o, _ := s.a.tab.Lookup(t.Context(), g); o != want {
			t.Errorf("record is %v, want %v", o, want)
		}
	}
}

func TestForgetsWhatEveryBranchAcknowledged(t *testing.T) {
	t.Parallel()
	s := setup(t, func(c *Config, _ *bundle) { c.KeepDecisions = -1 })
	if _, err := s.transfer(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for s.a.tab.size() > 0 {
		if time.Now().After(deadline) {
			t.Fatal("the record is still there")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	place := Place{Resource: "athos", Identity: s.a.tab.id}
	x := XID{GID: NewGID("bank", time.Now()), Place: place, Branch: 2}
	s.b.prepared[x.String()] = x
	if _, err := s.m.Resolve(t.Context(), x.GID, Committed, false); err == nil || !strings.Contains(err.Error(), "not decided") {
		t.Errorf("commit without a decision: %v", err)
	}
	s.a.tab.recs[x.GID] = Decision{GID: x.GID, Outcome: Committed}
	if _, err := s.m.Resolve(t.Context(), x.GID, Aborted, true); err == nil || !strings.Contains(err.Error(), "decided: committed") {
		t.Errorf("abort against the decision: %v", err)
	}
	if n, err := s.m.Resolve(t.Context(), x.GID, Committed, false); n != 1 || err != nil {
		t.Errorf("resolved %d, %v", n, err)
	}
	wantErr(t, second(s.m.Resolve(t.Context(), x.GID, Committed, false)), ErrNoRecord)
}

// returningRM is a resource whose server brought one-phase commits back as prepared,
// with their records in them.
type returningRM struct {
	*hookRM
	back []GID
	err  error // what Returned answers first
}

func (r *returningRM) Returned(_ context.Context, gid GID) (bool, error) {
	err := r.err
	r.err = nil
	return slices.Contains(r.back, gid), err
}

func (r *returningRM) Finish(ctx context.Context, x XID, o Outcome, evidence string) error {
	err := r.hookRM.Finish(ctx, x, o, evidence)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done[x.String()] == Committed {
		r.tab.decided(x.GID, Committed)
	}
	return err
}

// What people are told of a home that came back is what recovery does with it: its
// record is in it, so it will commit, and nobody can have it rolled back.
func TestResolveAHomeThatCameBack(t *testing.T) {
	t.Parallel()
	gid := NewGID("bank", time.Now())
	s := setup(t, func(cfg *Config, s *bundle) {
		s.a.can |= OnePhaseReturns
		cfg.Resources[0] = &returningRM{hookRM: &hookRM{memRM: s.a}, back: []GID{gid}}
		cfg.NoRecovery = true
	})
	x := XID{GID: gid, Place: Place{Resource: "athos", Identity: s.a.tab.id}, Branch: 1}
	s.a.prepared[x.String()] = x
	list, err := s.m.InDoubt(t.Context())
	if err != nil || len(list) != 1 || list[0].Evidence.Decision != Committed {
		t.Errorf("in doubt: %+v, %v", list, err)
	}
	if _, err := s.m.Resolve(t.Context(), x.GID, Aborted, true); err == nil || !strings.Contains(err.Error(), "decided: committed") {
		t.Errorf("abort of a home that holds its commit record: %v", err)
	}
	if n, err := s.m.Resolve(t.Context(), x.GID, Committed, false); n != 1 || err != nil {
		t.Errorf("resolved %d, %v", n, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	log := &callLog{}
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "Config.Resources is empty"},
		{Config{Domain: "Bank", Resources: []Resource{newMemRM("a", log)}}, "Config.Domain \"Bank\""},
		{Config{Resources: []Resource{newMemRM("a", log), nil}}, "Config.Resources[1] is nil"},
		{Config{Resources: []Resource{newMemRM("A", log)}}, "Config.Resources[0] has the name \"A\""},
		{Config{Resources: []Resource{newMemRM("a", log), newMemRM("a", log)}}, "used twice"},
		{Config{Resources: []Resource{newMemRM("a", log)}, Timeout: -1}, "Config.Timeout"},
		{Config{Resources: []Resource{newMemRM("a", log)}, LifeMax: time.Second}, "Config.LifeMax"},
		{Config{Resources: []Resource{newMemRM("a", log)}, AckTimeout: -1}, "Config.AckTimeout"},
	} {
		if _, err := Open(t.Context(), c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one about %s", err, c.want)
		}
	}
	twin := newMemRM("b", log)
	first := newMemRM("a", log)
	twin.tab = first.tab
	if _, err := Open(t.Context(), Config{Resources: []Resource{first, twin}}); err == nil || !strings.Contains(err.Error(), "same database") {
		t.Errorf("two names for one database: %v", err)
	}
}

func TestUnreachableAtOpen(t *testing.T) {
	t.Parallel()
	log := &callLog{}
	a, b := newMemRM("athos", log), newMemRM("porthos", log)
	refused := errors.New("connection refused")
	b.failOn("open", failure{err: refused, times: 3}) // the two below, and the first pass of the second
	cfg := Config{Resources: []Resource{a, b}, RecoverEvery: -1}
	_, err := Open(t.Context(), cfg)
	wantErr(t, err, refused)
	if !strings.Contains(err.Error(), "porthos") {
		t.Errorf("error %v does not name the resource", err)
	}
	cfg.AllowUnreachable = true
	m, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(t.Context()) }()
	err = m.Run(t.Context(), func(ctx context.Context, tx *Tx) error { return b.work(ctx, tx) })
	wantErr(t, err, ErrUnreachable, refused)
	if _, err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context(), func(ctx context.Context, tx *Tx) error { return b.work(ctx, tx) }); err != nil {
		t.Errorf("after it came back: %v", err)
	}
}

// Two names for one database are found out also where one of them joins late.
func TestUnreachableTwin(t *testing.T) {
	t.Parallel()
	s := setup(t, func(cfg *Config, s *bundle) {
		cfg.AllowUnreachable = true
		s.b.tab = s.a.tab
		s.b.failOn("open", failure{err: errors.New("connection refused"), times: 2}) // and in the first pass
	})
	if _, err := s.m.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "same database") {
		t.Errorf("error %v", err)
	}
}

func TestForeignResource(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		return newMemRM("aramis", s.log).work(ctx, tx)
	})
	if err == nil || !strings.Contains(err.Error(), "add it to Config.Resources") {
		t.Errorf("error %v", err)
	}
	if err := s.m.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "nil") {
		t.Errorf("nil function: %v", err)
	}
}

func TestSafeToRetry(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	s.b.failOn("wrote", failure{err: &BranchError{Resource: "porthos", Op: "work", Err: errors.New("deadlock"), Transient: true}})
	_, err := s.transfer(t.Context())
	wantErr(t, err, ErrRolledBack)
	if !SafeToRetry(err) {
		t.Errorf("error %v is not safe to retry", err)
	}
	if SafeToRetry(&TxError{Kind: ErrPending, Err: &BranchError{Err: errors.New("x"), Transient: true}}) {
		t.Error("a committed transaction is safe to retry")
	}
}

func BenchmarkTransfer(b *testing.B) {
	log := &quiet{}
	rms := []*memRM{newMemRM("athos", &log.callLog), newMemRM("porthos", &log.callLog)}
	m, err := Open(b.Context(), Config{Resources: []Resource{rms[0], rms[1]}, RecoverEvery: -1, KeepDecisions: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	b.ReportAllocs()
	for b.Loop() {
		err := m.Run(b.Context(), func(ctx context.Context, tx *Tx) error {
			if err := rms[0].work(ctx, tx); err != nil {
				return err
			}
			return rms[1].work(ctx, tx)
		})
		if err != nil {
			b.Fatal(err)
		}
		if len(log.calls) > 1000 {
			log.calls = log.calls[:0]
		}
	}
}

type quiet struct{ callLog }
