package troth

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The driver tells an observer each step of each branch, and the end.
func TestObserverHearsEachStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var heard []string
		s := setup(t, func(c *Config, _ *bundle) {
			c.Observer = &Observer{
				BranchOp: func(_ GID, resource, op string, took time.Duration, err error) {
					heard = append(heard, resource+" "+op)
					if took != 0 || err != nil {
						t.Errorf("%s %s took %v: %v", resource, op, took, err)
					}
				},
				TxEnd: func(_ GID, o Outcome, branches int, took time.Duration, err error) {
					heard = append(heard, "end")
					if o != Committed || branches != 2 || took != 3*time.Second || err != nil {
						t.Errorf("end: %v, %d branches, %v, %v", o, branches, took, err)
					}
				},
			}
		})
		err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
			time.Sleep(3 * time.Second)
			return errors.Join(s.a.work(ctx, tx), s.b.work(ctx, tx))
		})
		synctest.Wait()
		if got := strings.Join(heard, ", "); err != nil || got != "porthos prepare, athos decide, porthos commit, end" {
			t.Errorf("heard %s; error %v", got, err)
		}
	})
}

// With a register the decision is no resource's.
func TestObserverHearsTheRegister(t *testing.T) {
	t.Parallel()
	var decided []string
	s := setup(t, func(c *Config, _ *bundle) { c.Register = newMemRegister() })
	s.m.cfg.Observer.BranchOp = func(_ GID, resource, op string, _ time.Duration, _ error) {
		if op == "decide" {
			decided = append(decided, resource)
		}
	}
	if _, err := s.transfer(t.Context()); err != nil || len(decided) != 1 || decided[0] != "" {
		t.Errorf("decided at %q; error %v", decided, err)
	}
}

// R2: a context that ends after the votes, and before anybody was asked for the
// decision, rolls back without a record.
func TestCancelledBetweenVoteAndDecision(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	s.m.cfg.Observer.BranchOp = func(_ GID, _, op string, _ time.Duration, _ error) {
		if op == "prepare" {
			cancel()
		}
	}
	_, err := s.transfer(ctx)
	wantErr(t, err, ErrRolledBack, context.Canceled)
	if err := s.m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if s.a.tab.size() != 0 || s.b.inDoubt() != 0 || strings.Contains(s.log.String(), "decide") {
		t.Errorf("calls %s, %d records", s.log, s.a.tab.size())
	}
}

// watchedBranch notes whether statements may still run when it is asked to end.
type watchedBranch struct {
	*memBranch
	may map[string]bool
}

func (b watchedBranch) CommitDeciding(ctx context.Context, d Decision) (Outcome, error) {
	b.may["decide"] = b.cfg.Context.Err() == nil
	return b.memBranch.CommitDeciding(ctx, d)
}

func (b watchedBranch) Rollback(ctx context.Context) error {
	b.may["rollback"] = b.cfg.Context.Err() == nil
	return b.memBranch.Rollback(ctx)
}

// A rollback stops the statements that still run, or it would wait for them. A
// commit does not: the program said that the work is done.
func TestRollbackStopsStatements(t *testing.T) {
	t.Parallel()
	may := make(map[string]bool)
	a := &hookRM{memRM: newMemRM("athos", &callLog{})}
	a.begin = func(_ context.Context, c BranchConfig) (Branch, error) {
		return watchedBranch{&memBranch{rm: a.memRM, cfg: c}, may}, nil
	}
	m := openManager(t, Config{Resources: []Resource{a}, RecoverEvery: -1})
	failed := errors.New("no money")
	for _, err := range []error{nil, failed} {
		got := m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
			_, begun := tx.Enlist(ctx, a)
			return errors.Join(begun, err)
		})
		if !errors.Is(got, err) {
			t.Errorf("error %v, want %v", got, err)
		}
	}
	if !may["decide"] || may["rollback"] || len(may) != 2 {
		t.Errorf("statements may run at: %v", may)
	}
	_ = m.Close(t.Context())
}

// slowVoter votes a while after it was told to stop.
type slowVoter struct{ *memBranch }

func (b slowVoter) Prepare(ctx context.Context, x XID) (Vote, error) {
	<-ctx.Done()
	time.Sleep(3 * time.Second)
	return b.memBranch.Prepare(ctx, x)
}

// A caller who gives up during the vote hears how it ended, which is soon; not that
// nobody knows.
func TestCancelledDuringVote(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		a, b := newMemRM("athos", log), &hookRM{memRM: newMemRM("porthos", log)}
		b.begin = func(_ context.Context, c BranchConfig) (Branch, error) {
			return slowVoter{&memBranch{rm: b.memRM, cfg: c}}, nil
		}
		m := openManager(t, Config{Resources: []Resource{a, b}, RecoverEvery: -1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := m.Run(ctx, func(ctx context.Context, tx *Tx) error {
			first := a.work(ctx, tx)
			_, second := tx.Enlist(ctx, b)
			return errors.Join(first, second)
		})
		wantErr(t, err, ErrRolledBack, context.DeadlineExceeded)
		if errors.Is(err, ErrUndecided) || time.Since(start) != 4*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		_ = m.Close(context.Background())
	})
}

// A vote that takes longer than the transaction may is a rollback, and says so: not
// what the database made of the end of its context.
func TestTimeoutDuringVote(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		a, b := newMemRM("athos", log), &hookRM{memRM: newMemRM("porthos", log)}
		b.begin = func(_ context.Context, c BranchConfig) (Branch, error) {
			return slowVoter{&memBranch{rm: b.memRM, cfg: c}}, nil
		}
		m := openManager(t, Config{Resources: []Resource{a, b}, RecoverEvery: -1})
		err := m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
			first := a.work(ctx, tx)
			_, second := tx.Enlist(ctx, b)
			return errors.Join(first, second)
		}, Timeout(time.Second))
		wantErr(t, err, ErrRolledBack, ErrTimeout)
		if !strings.Contains(err.Error(), "after 1s") || strings.Contains(log.String(), "decide") {
			t.Errorf("error %v, calls %s", err, log)
		}
		_ = m.Close(context.Background())
	})
}

// A home that is named and cannot begin its branch leaves nothing to decide in.
func TestNamedHomeMustJoin(t *testing.T) {
	t.Parallel()
	refused := errors.New("too many connections")
	for _, c := range []struct {
		name string
		spy  func(*memRM, *Manager)
		want []error
	}{
		{"begin fails", func(r *memRM, _ *Manager) { r.failOn("begin", failure{err: refused}) }, []error{ErrRolledBack, refused}},
		{"not open any more", func(r *memRM, m *Manager) {
			m.mu.Lock()
			m.opened[r], m.failed[r] = false, refused
			m.mu.Unlock()
		}, []error{ErrRolledBack, ErrUnreachable, refused}},
	} {
		aramis := newMemRM("aramis", &callLog{})
		s := setup(t, func(c *Config, _ *bundle) { c.Resources = append(c.Resources, aramis) })
		err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
			c.spy(aramis, s.m)
			return errors.Join(s.a.work(ctx, tx), s.b.work(ctx, tx))
		}, Home("aramis"))
		wantErr(t, err, c.want...)
		if got := s.log.String(); strings.Contains(got, "prepare") || strings.Contains(got, "decide") {
			t.Errorf("%s: calls %s", c.name, got)
		}
	}
}

// It does not join a transaction of one branch, which needs no home, nor one that
// it takes part in already.
func TestNamedHomeJoinsOnlyWhereNeeded(t *testing.T) {
	t.Parallel()
	aramis := newMemRM("aramis", &callLog{})
	s := setup(t, func(c *Config, _ *bundle) { c.Resources = append(c.Resources, aramis) })
	err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error { return s.a.work(ctx, tx) }, Home("aramis"))
	if got := aramis.log.String() + s.log.String(); err != nil || got != "athos decide" {
		t.Errorf("calls %s; error %v", got, err)
	}
	// Where it must join it has a number of its own.
	numbers := map[int]bool{}
	third := &hookRM{memRM: newMemRM("planchet", &callLog{})}
	third.begin = func(ctx context.Context, c BranchConfig) (Branch, error) {
		numbers[c.Branch] = true
		return third.memRM.Begin(ctx, c)
	}
	s3 := setup(t, func(c *Config, _ *bundle) { c.Resources = append(c.Resources, third) })
	if _, err := s3.transfer(t.Context(), Home("planchet")); err != nil || !numbers[3] || len(numbers) != 1 {
		t.Errorf("numbers %v; error %v", numbers, err)
	}
	// Where it takes part already it does not join again.
	begun := make(chan int, 1)
	s = setup(t, func(c *Config, _ *bundle) {
		c.Observer = &Observer{TxEnd: func(_ GID, _ Outcome, branches int, _ time.Duration, _ error) { begun <- branches }}
	})
	if _, err := s.transfer(t.Context(), Home("porthos")); err != nil {
		t.Error(err)
	}
	if n := <-begun; n != 2 {
		t.Errorf("%d branches", n)
	}
	if got := s.log.String(); !strings.HasSuffix(got, "athos prepare, porthos decide, athos commit") {
		t.Errorf("calls %s", got)
	}
}

// Who cannot record a decision is told, with what to do.
func TestNobodyCanRecord(t *testing.T) {
	t.Parallel()
	s := setup(t, func(_ *Config, s *bundle) { s.a.can, s.b.can = CanPrepare, CanPrepare })
	_, err := s.transfer(t.Context())
	wantErr(t, err, ErrRolledBack)
	if !strings.Contains(err.Error(), "set Config.Register") {
		t.Errorf("error %v does not say why", err)
	}
	// One branch needs no record.
	if err := s.m.Run(t.Context(), s.a.work); err != nil {
		t.Errorf("one branch: %v", err)
	}
}

// A sole branch whose answer is lost, of a resource that can neither record nor
// find out: the truth is that nobody knows, for as long as the transaction can live.
func TestLostDecisionOfABranchThatLeavesNoRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, func(c *Config, s *bundle) { s.a.can, c.AckTimeout = CanPrepare, 5*time.Second })
		s.a.failOn("decide", failure{err: errors.New("eof")})
		start := time.Now()
		err := s.m.Run(t.Context(), s.a.work)
		wantErr(t, err, ErrUndecided)
		var b *BranchError
		if !errors.As(err, &b) || b.Op != "decide" || b.XID != "" { // it never had a name
			t.Errorf("error %+v", b)
		}
		if took := time.Since(start); took < 5*time.Second || took > 8*time.Second {
			t.Errorf("the caller waited %v, and AckTimeout is 5 s", took)
		}
		s.m.mu.Lock()
		active := len(s.m.active)
		s.m.mu.Unlock()
		if active != 1 {
			t.Error("asking is given up before the transaction can have died")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		s.m.mu.Lock()
		active = len(s.m.active)
		s.m.mu.Unlock()
		if active != 0 {
			t.Error("after LifeMax it is asked for still")
		}
	})
}

// A process that slept while it asked for abort does not believe the answer: its
// question may have come after the record of a commit was forgotten.
func TestAbortHeardTooLateIsNotBelieved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		reg := &hookReg{memRegister: newMemRegister()}
		a := &hookRM{memRM: newMemRM("athos", log), reg: reg}
		b := newMemRM("porthos", log)
		m := openManager(t, Config{Resources: []Resource{a, b}, RecoverEvery: -1, LifeMax: time.Hour})
		a.failOn("decide", failure{err: errors.New("eof")})
		reg.decide = func(_ context.Context, d Decision) (Outcome, error) {
			time.Sleep(2 * time.Hour) // SIGSTOP
			return reg.memRegister.Decide(context.Background(), d)
		}
		var told []Outcome
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := m.Run(ctx, func(ctx context.Context, tx *Tx) error {
			tx.AfterDone(func(o Outcome) { told = append(told, o) })
			_, err := tx.Enlist(ctx, a)
			return errors.Join(err, b.work(ctx, tx))
		})
		wantErr(t, err, ErrUndecided)
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if len(told) != 0 || b.inDoubt() != 1 {
			t.Errorf("the program was told %v, %d branches in doubt", told, b.inDoubt())
		}
		_ = m.Close(context.Background())
	})
}

// crashingHome is a branch whose server crashes as it commits: the answer is lost, and
// the branch is prepared when the server is back.
type crashingHome struct{ *memBranch }

func (b crashingHome) CommitDeciding(context.Context, Decision) (Outcome, error) {
	x, err := b.cfg.XID()
	b.rm.mu.Lock()
	defer b.rm.mu.Unlock()
	b.rm.prepared[x.String()] = x
	return Undecided, errors.Join(err, errors.New("eof"))
}

// A home that a crash brought back as prepared holds the record: whoever asks for the
// decision while it is there waits for it for ever, so it is committed first. What
// others left beside it is not touched (R7).
func TestHomeThatCameBackIsCommittedByItsCoordinator(t *testing.T) {
	t.Parallel()
	down := errors.New("connection refused")
	for _, c := range []struct {
		name     string
		upset    func(home *returningRM)
		finishes int // of the home
		want     error
		atOnce   bool
	}{
		{"at once", func(*returningRM) {}, 1, nil, true},
		{"the list fails", func(h *returningRM) { h.failOn("recover", failure{err: down, times: 1}) }, 1, nil, false},
		{"the question fails", func(h *returningRM) { h.err = down }, 1, nil, false},
		{"the end fails", func(h *returningRM) { h.failOn("finish commit", failure{err: down, times: 1}) }, 2, nil, false},
		{"recovery was first", func(h *returningRM) { h.failOn("finish commit", failure{err: ErrNoEvidence, after: true, times: 1}) }, 1, nil, true},
		{"it is not back", func(h *returningRM) { h.back = nil }, 0, ErrRolledBack, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			var home *returningRM
			s := setup(t, func(cfg *Config, s *bundle) {
				s.a.can |= OnePhaseReturns
				home = &returningRM{hookRM: &hookRM{memRM: s.a, reg: &hookReg{
					memRegister: s.a.tab,
					decide: func(ctx context.Context, d Decision) (Outcome, error) {
						if home.back != nil && s.a.inDoubt() > 0 {
							t.Errorf("%s: asked while the home holds the record", c.name)
						}
						return s.a.tab.Decide(ctx, d)
					},
				}}}
				cfg.Resources[0], cfg.NoRecovery = home, true
			})
			shop := XID{GID: NewGID("shop", time.Now()), Place: s.a.place(), Branch: 1}
			home.begin = func(_ context.Context, cfg BranchConfig) (Branch, error) {
				home.back = []GID{shop.GID, cfg.GID}
				c.upset(home)
				_, err := cfg.XID() // its name says that it is the home
				return crashingHome{&memBranch{rm: s.a, cfg: cfg}}, err
			}
			home.recover = func(ctx context.Context) ([]Prepared, error) {
				own, err := s.a.Recover(ctx)
				return append([]Prepared{{Native: "foreign"}, {XID: shop, Ours: true, Native: shop.String()}}, own...), err
			}
			start := time.Now()
			err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
				_, err := tx.Enlist(ctx, home)
				return errors.Join(err, s.b.work(ctx, tx))
			})
			if !errors.Is(err, c.want) {
				t.Errorf("%s: error %v, want %v", c.name, err, c.want)
			}
			if took := time.Since(start); (took == 0) != c.atOnce {
				t.Errorf("%s: after %v", c.name, took)
			}
			_ = s.m.Close(context.Background())
			if n := strings.Count(s.log.String(), "athos finish"); n != c.finishes {
				t.Errorf("%s: calls %s", c.name, s.log)
			}
		})
	}
}

// A reader whose end is not acknowledged may have read what does not hold together.
func TestFailedReleaseOfReaders(t *testing.T) {
	t.Parallel()
	cut := errors.New("serialization failure")
	s := setup(t, func(_ *Config, s *bundle) { s.a.wrote, s.b.wrote = false, false })
	s.b.failOn("release", failure{err: cut})
	_, err := s.transfer(t.Context())
	wantErr(t, err, ErrRolledBack, cut)
	var b *BranchError
	if !errors.As(err, &b) || b.Resource != "porthos" || b.Op != "commit" || strings.Contains(err.Error(), "athos:") {
		t.Errorf("error %v", err)
	}
	// Beside a branch that wrote, and committed, it makes no difference.
	s = setup(t, func(_ *Config, s *bundle) { s.a.wrote = false })
	s.a.failOn("release", failure{err: cut})
	if _, err := s.transfer(t.Context()); err != nil {
		t.Errorf("error %v", err)
	}
}

// Nobody is told how a transaction of readers ended before its branches have: the
// last one may fail (I13).
func TestReadersAreUndecidedUntilReleased(t *testing.T) {
	t.Parallel()
	for _, cut := range []error{nil, errors.New("serialization failure")} {
		synctest.Test(t, func(t *testing.T) {
			s := setup(t, func(_ *Config, s *bundle) { s.a.wrote, s.b.wrote = false, false })
			answer := make(chan struct{})
			s.b.failOn("release", failure{err: cut, until: answer})
			tx, err := s.m.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.a.work(t.Context(), tx), s.b.work(t.Context(), tx)); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- tx.Commit(t.Context()) }()
			synctest.Wait()
			if got := s.log.String(); !strings.Contains(got, "porthos release") {
				t.Fatalf("calls %s", got)
			}
			if o, err := s.m.Outcome(t.Context(), tx.ID()); o != Undecided || err != nil {
				t.Errorf("before the last reader has ended: %v, %v", o, err)
			}
			close(answer)
			want := Committed
			if cut != nil {
				want = Aborted
			}
			if err := <-ended; (err != nil) != (want == Aborted) || !errors.Is(err, cut) {
				t.Errorf("told %v", err)
			}
			if o, _ := s.m.Outcome(t.Context(), tx.ID()); o != want {
				t.Errorf("afterwards: %v, want %v", o, want)
			}
		})
	}
}

// A caller who gives up while readers are released need not wait for them.
func TestImpatientReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, func(_ *Config, s *bundle) { s.a.wrote, s.b.wrote = false, false })
		answer := make(chan struct{})
		s.b.failOn("release", failure{until: answer})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := s.transfer(ctx)
			ended <- err
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		select {
		case err := <-ended:
			wantErr(t, err, ErrUndecided)
		default:
			t.Error("the caller still waits")
		}
		close(answer)
	})
}

// A rollback that fails on the branch's own session is done from elsewhere, if the
// branch may be prepared; what cannot be reached is recovery's.
func TestFailedRollback(t *testing.T) {
	t.Parallel()
	down := failure{err: errors.New("connection refused")}
	work := errors.New("no money")
	run := func(s *bundle) error {
		return s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
			return errors.Join(s.a.work(ctx, tx), s.b.work(ctx, tx), work)
		})
	}
	// No branch has a name yet: there is nothing to finish.
	s := setup(t, nil)
	s.b.failOn("rollback", down)
	wantErr(t, run(s), ErrRolledBack, work)
	if got := s.log.String(); strings.Contains(got, "finish") {
		t.Errorf("calls %s", got)
	}

	// One votes no, the other was prepared and is finished from elsewhere.
	s = setup(t, func(c *Config, _ *bundle) { c.Register = newMemRegister() })
	s.a.failOn("prepare", failure{err: errVoteNo})
	s.b.failOn("rollback", down)
	_, err := s.transfer(t.Context())
	wantErr(t, err, ErrRolledBack)
	if got := s.log.String(); !strings.Contains(got, "porthos finish rollback") || strings.Contains(got, "athos finish") || s.b.inDoubt() != 0 {
		t.Errorf("calls %s", got)
	}
}

// A home that cannot prepare has nothing that could be finished from elsewhere: the
// end of its session is the end of its branch.
func TestFailedRollbackOfAHomeThatCannotPrepare(t *testing.T) {
	t.Parallel()
	s := setup(t, func(_ *Config, s *bundle) { s.a.can = CanDecide })
	s.b.failOn("prepare", failure{err: errVoteNo})
	s.a.failOn("rollback", failure{err: errors.New("connection reset")})
	_, err := s.transfer(t.Context())
	wantErr(t, err, ErrRolledBack, errVoteNo)
	if got := s.log.String(); strings.Contains(got, "athos finish") {
		t.Errorf("calls %s", got)
	}
}

// A branch that could not begin keeps no other from its end, whichever came first.
func TestFailedBeginLeavesTheOthersToEnd(t *testing.T) {
	t.Parallel()
	refused := errors.New("too many connections")
	var aramis *memRM
	s := setup(t, func(c *Config, s *bundle) {
		aramis = newMemRM("aramis", s.log)
		c.Resources = append(c.Resources, aramis)
	})
	s.b.failOn("begin", failure{err: refused})
	err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		return errors.Join(s.a.work(ctx, tx), s.b.work(ctx, tx), aramis.work(ctx, tx))
	})
	wantErr(t, err, ErrRolledBack, refused)
	if err := s.m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := s.log.String(); got != "athos rollback, aramis rollback" && got != "aramis rollback, athos rollback" {
		t.Errorf("calls %s", got)
	}
}

// A branch that cannot say whether it wrote is no branch to commit.
func TestFailedPollRollsBack(t *testing.T) {
	t.Parallel()
	lost := errors.New("connection reset")
	s := setup(t, nil)
	s.b.failOn("wrote", failure{err: lost})
	_, err := s.transfer(t.Context())
	wantErr(t, err, ErrRolledBack, lost)
	var b *BranchError
	if got := s.log.String(); !errors.As(err, &b) || b.Op != "work" || b.XID != "" || strings.Contains(got, "prepare") || strings.Contains(got, "decide") {
		t.Errorf("error %v, calls %s", err, got)
	}
}

// What an abort left behind is looked for at once, and nothing otherwise.
func TestRecoveryIsNudged(t *testing.T) {
	t.Parallel()
	down := failure{err: errors.New("connection refused")}
	for _, c := range []struct {
		name   string
		change func(*bundle)
		want   bool
	}{
		{"committed", func(*bundle) {}, false},
		{"voted no", func(s *bundle) { s.a.failOn("prepare", failure{err: errVoteNo}) }, false},
		{"rollback not acknowledged", func(s *bundle) {
			s.a.failOn("prepare", failure{err: errVoteNo})
			s.b.failOn("rollback", down)
			s.b.failOn("finish rollback", down)
		}, true},
		{"commit not acknowledged", func(s *bundle) {
			s.b.failOn("commit", down)
			s.b.failOn("finish commit", down)
		}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := setup(t, func(cfg *Config, s *bundle) {
				cfg.Register = newMemRegister()
				c.change(s)
			})
			_, _ = s.transfer(t.Context()) // any outcome
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := len(s.m.wake) > 0; got != c.want {
				t.Errorf("%s: nudged %v", c.name, got)
			}
		})
	}
}

// A branch that is gone and left no evidence is not asked for again; one that
// cannot be reached is, until AckTimeout, and the caller hears the first reason.
func TestFinishFromElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		eof := errors.New("eof")
		for _, c := range []struct {
			name    string
			finish  error
			tries   func(n int) bool
			want    []error
			wantNot error
		}{
			{"no evidence", ErrNoEvidence, func(n int) bool { return n == 1 }, []error{ErrPending, ErrNoEvidence}, eof},
			{"unreachable", errors.New("connection refused"), func(n int) bool { return n > 3 && n < 30 }, []error{ErrPending}, eof},
		} {
			s := setup(t, func(cfg *Config, _ *bundle) { cfg.AckTimeout = 3 * time.Second })
			s.b.failOn("commit", failure{err: eof})
			s.b.failOn("finish commit", failure{err: c.finish})
			start := time.Now()
			_, err := s.transfer(t.Context())
			wantErr(t, err, c.want...)
			var b *BranchError
			if !errors.As(err, &b) || b.Op != "commit" || b.Resource != "porthos" || b.XID == "" || errors.Is(err, c.wantNot) {
				t.Errorf("%s: error %v", c.name, err)
			}
			if n := strings.Count(s.log.String(), "finish commit"); !c.tries(n) || time.Since(start) > 4*time.Second {
				t.Errorf("%s: %d tries in %v", c.name, n, time.Since(start))
			}
		}
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{
		0: 0, 1: 20 * time.Millisecond, 2: 40 * time.Millisecond, 3: 80 * time.Millisecond,
		7: 1280 * time.Millisecond, 8: 2 * time.Second, 11: 2 * time.Second, 12: 2 * time.Second, 1000: 2 * time.Second,
	} {
		if got := backoff(n); got != want {
			t.Errorf("before attempt %d: %v, want %v", n, got, want)
		}
	}
}

// Contexts that a caller cannot stop end with words that say what took so long.
func TestDetachedContextsSayWhatTookSoLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &driver{}
		ctx, cancel := d.detached(time.Second, "decide")
		defer cancel()
		time.Sleep(time.Second - 1)
		if ctx.Err() != nil {
			t.Error("it ended early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if got := context.Cause(ctx); got == nil || got.Error() != "troth: no answer in time: decide" {
			t.Errorf("cause %v", got)
		}
		now := time.Now()
		if earlier(now, now.Add(1)) != now || earlier(now.Add(1), now) != now {
			t.Error("the earlier of two times is the later")
		}
	})
}
