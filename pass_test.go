package troth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// left is a branch that a dead process left prepared in r, bound to a place.
func (r *memRM) left(gid GID, place Place) XID {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := XID{GID: gid, Place: place, Branch: 2}
	r.prepared[x.String()] = x
	return x
}

func (r *memRM) place() Place { return Place{Resource: r.name, Identity: r.tab.id} }

// decided records an outcome as the dead process did.
func (r *memRegister) decided(gid GID, o Outcome, branches ...BranchRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recs[gid] = Decision{GID: gid, Outcome: o, Branches: branches, At: time.Now()}
}

// aged is memRM whose list tells ages.
func aged(r *memRM, age time.Duration) *hookRM {
	h := &hookRM{memRM: r}
	h.recover = func(ctx context.Context) ([]Prepared, error) {
		list, err := r.Recover(ctx)
		for i := range list {
			list[i].Age = age
		}
		return list, err
	}
	return h
}

// A pass does to each branch what its register holds, and tells the observer.
func TestPassCarriesOutDecisions(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	var ended []string
	var passes [][2]int
	s.m.cfg.Observer.Recovered = func(x XID, resource string, o Outcome) {
		ended = append(ended, fmt.Sprint(x.GID, " ", resource, " ", o))
	}
	s.m.cfg.Observer.RecoverPass = func(inDoubt, unreachable int, _ time.Duration) {
		passes = append(passes, [2]int{inDoubt, unreachable})
	}
	yes, no, none := NewGID("bank", time.Now()), NewGID("bank", time.Now()), NewGID("bank", time.Now())
	stranger := NewGID("bank2", time.Now())
	s.a.tab.decided(yes, Committed)
	s.a.tab.decided(no, Aborted)
	for _, gid := range []GID{yes, no, none, stranger} {
		s.b.left(gid, s.a.place())
	}
	n, err := s.m.Recover(t.Context())
	if n != 3 || err != nil {
		t.Errorf("ended %d, error %v", n, err)
	}
	want := []string{string(yes) + " porthos committed", string(no) + " porthos aborted", string(none) + " porthos aborted"}
	slices.Sort(want)
	slices.Sort(ended)
	if !slices.Equal(ended, want) {
		t.Errorf("ended %q, want %q", ended, want)
	}
	if o, err := s.a.tab.Lookup(t.Context(), none); o != Aborted || err != nil { // R2
		t.Errorf("rolled back without a record: %v, %v", o, err)
	}
	if s.b.inDoubt() != 1 {
		t.Error("a branch of another domain was touched (R7)")
	}
	if len(passes) != 1 || passes[0] != [2]int{0, 0} {
		t.Errorf("passes %v", passes)
	}
}

// R3, R6: a register that answers the question but not the request for abort, or
// nothing, or is not known here, leaves the branch in doubt and says so.
func TestPassLeavesWhatNobodyDecides(t *testing.T) {
	t.Parallel()
	refused := errors.New("disk full")
	for _, c := range []struct {
		name string
		set  func(*hookReg)
		id   string
		want string
	}{
		{"abort fails", func(r *hookReg) {
			r.decide = func(context.Context, Decision) (Outcome, error) { return Aborted, refused }
		}, "", "ask for abort: disk full"},
		{"lookup fails", func(r *hookReg) {
			r.lookup = func(context.Context, GID) (Outcome, error) { return Aborted, refused }
		}, "", "look up decisions"},
		{"another database", func(*hookReg) {}, "zzzzzzzz", "does not know"},
	} {
		log := &callLog{}
		reg := &hookReg{memRegister: newMemRegister()}
		a := &hookRM{memRM: newMemRM("athos", log), reg: reg}
		b := newMemRM("porthos", log)
		m := openManager(t, Config{Resources: []Resource{a, b}, RecoverEvery: -1, Grace: -1})
		place := Place{Resource: "athos", Identity: reg.id}
		if c.id != "" {
			place.Identity = c.id
		}
		c.set(reg)
		b.left(NewGID("bank", time.Now()), place)
		b.left(NewGID("bank", time.Now()), place)
		var passes [][2]int
		m.cfg.Observer.RecoverPass = func(inDoubt, unreachable int, _ time.Duration) {
			passes = append(passes, [2]int{inDoubt, unreachable})
		}
		n, err := m.Recover(t.Context())
		if n != 0 || err == nil || !strings.Contains(err.Error(), c.want) || b.inDoubt() != 2 || log.String() != "" {
			t.Errorf("%s: ended %d, error %v, calls %s", c.name, n, err, log)
		}
		if len(passes) != 1 || passes[0] != [2]int{2, 0} {
			t.Errorf("%s: passes %v", c.name, passes)
		}
		_ = m.Close(t.Context())
	}
}

// A resource whose list fails is unreachable, one that cannot prepare has no list.
func TestPassCountsTheUnreachable(t *testing.T) {
	t.Parallel()
	down := errors.New("connection refused")
	s := setup(t, func(_ *Config, s *bundle) { s.a.can = CanDecide })
	s.a.failOn("recover", failure{err: errors.New("must not be asked")})
	s.b.failOn("recover", failure{err: down})
	var passes [][2]int
	s.m.cfg.Observer.RecoverPass = func(inDoubt, unreachable int, _ time.Duration) {
		passes = append(passes, [2]int{inDoubt, unreachable})
	}
	_, err := s.m.Recover(t.Context())
	var b *BranchError
	if !errors.Is(err, down) || !errors.As(err, &b) || b.Resource != "porthos" || b.Op != "recover" || strings.Contains(err.Error(), "must not") {
		t.Errorf("error %v", err)
	}
	// One that was never opened is, too, and is tried again.
	s.m.mu.Lock()
	s.m.opened[s.b], s.m.failed[s.b] = false, down
	s.m.mu.Unlock()
	s.b.failOn("open", failure{err: down, times: 1})
	if _, err = s.m.Recover(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v", err)
	}
	s.b.mu.Lock()
	delete(s.b.fail, "recover")
	s.b.mu.Unlock()
	_, _ = s.m.Recover(t.Context()) // opens it, for the next pass
	if _, err := s.m.Recover(t.Context()); err != nil {
		t.Errorf("error %v once it is there", err)
	}
	want := [][2]int{{0, 1}, {0, 1}, {0, 1}, {0, 0}}
	if !slices.Equal(passes, want) {
		t.Errorf("passes %v, want %v", passes, want)
	}
}

// A branch whose second list failed is not decided: it may be gone (Q of the scan).
func TestPassListsTwice(t *testing.T) {
	t.Parallel()
	log := &callLog{}
	a, b := newMemRM("athos", log), &hookRM{memRM: newMemRM("porthos", log)}
	m := openManager(t, Config{Resources: []Resource{a, b}, RecoverEvery: -1, Grace: -1})
	b.left(NewGID("bank", time.Now()), a.place())
	for _, second := range []func() ([]Prepared, error){
		func() ([]Prepared, error) { return nil, errors.New("connection reset") },
		func() ([]Prepared, error) { return nil, nil },
		func() ([]Prepared, error) { // one that was not there before is the next pass's
			x := XID{GID: NewGID("bank", time.Now()), Place: a.place(), Branch: 1}
			return []Prepared{{XID: x, Ours: true, Native: x.String()}}, nil
		},
	} {
		asked := 0
		b.recover = func(ctx context.Context) ([]Prepared, error) {
			if asked++; asked == 2 {
				return second()
			}
			return b.memRM.Recover(ctx)
		}
		n, _ := m.recoverPass(t.Context())
		if n != 0 || asked != 2 || b.inDoubt() != 1 || a.tab.size() != 0 {
			t.Errorf("ended %d after %d lists, %d records", n, asked, a.tab.size())
		}
	}
	_ = m.Close(t.Context())
}

// Undecided branches are left for the grace time, by the database's clock, and not
// a moment longer; the next pass comes when it is over.
func TestGraceByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			age   time.Duration
			grace time.Duration
			over  bool
		}{
			{5*time.Second - 1, 5 * time.Second, false},
			{5 * time.Second, 5 * time.Second, true},
			{1, -1, true},
		} {
			log := &callLog{}
			a, b := newMemRM("athos", log), newMemRM("porthos", log)
			m := openManager(t, Config{Resources: []Resource{a, aged(b, c.age)}, RecoverEvery: -1, Grace: c.grace})
			b.left(NewGID("bank", time.Now()), a.place())
			n, err := m.Recover(t.Context())
			if (n == 1) != c.over || err != nil {
				t.Errorf("age %v, grace %v: ended %d, error %v", c.age, c.grace, n, err)
			}
			_ = m.Close(t.Context())
		}
	})
}

// A transaction that this process itself rolled back is decided by nobody: no grace.
func TestNoGraceForWhatWasGivenUp(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[Outcome]int{Aborted: 1, Committed: 0, Undecided: 0} {
		log := &callLog{}
		a, b := newMemRM("athos", log), newMemRM("porthos", log)
		m := openManager(t, Config{Resources: []Resource{a, aged(b, time.Second)}, RecoverEvery: -1, Grace: time.Hour})
		x := b.left(NewGID("bank", time.Now()), a.place())
		if outcome != Undecided {
			m.remember(x.GID, outcome)
		}
		if n, err := m.recoverPass(t.Context()); n != want || err != nil {
			t.Errorf("remembered as %v: ended %d, error %v", outcome, n, err)
		}
		_ = m.Close(t.Context())
	}
}

// Where the database tells no age, the grace counts from when a pass first saw the
// branch; and the background comes back as soon as it is over.
func TestGraceBySight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		a, b := newMemRM("athos", log), newMemRM("porthos", log)
		m := openManager(t, Config{Resources: []Resource{a, b}, RecoverEvery: time.Hour, Grace: 5 * time.Second})
		b.left(NewGID("bank", time.Now()), a.place())
		m.nudge()
		time.Sleep(5 * time.Second)
		if synctest.Wait(); b.inDoubt() != 1 {
			t.Error("ended before its grace was over")
		}
		time.Sleep(time.Second)
		if synctest.Wait(); b.inDoubt() != 0 {
			t.Error("left although its grace is over, until the next pass in an hour")
		}
		_ = m.Close(t.Context())
	})
}

// A branch that was prepared before this process looked has spent some of its grace:
// the background comes back for the rest of it.
func TestRestOfTheGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(t, func(cfg *Config, s *bundle) {
			cfg.RecoverEvery, cfg.Grace = time.Hour, 10*time.Second
			b, start := &hookRM{memRM: s.b}, time.Now()
			b.recover = func(ctx context.Context) ([]Prepared, error) {
				list, err := s.b.Recover(ctx)
				for i := range list {
					list[i].Age = 8*time.Second + time.Since(start)
				}
				return list, err
			}
			cfg.Resources[1] = b
		})
		s.b.left(NewGID("bank", time.Now()), s.a.place())
		s.m.nudge()
		time.Sleep(2*time.Second - 1)
		if synctest.Wait(); s.b.inDoubt() != 1 {
			t.Error("ended before its grace was over")
		}
		time.Sleep(time.Second)
		if synctest.Wait(); s.b.inDoubt() != 0 {
			t.Error("left although its grace is over")
		}
		_ = s.m.Close(t.Context())
	})
}

// What a pass saw is remembered for as long as passes see it, and a minute more.
func TestSightsAreForgotten(t *testing.T) {
	t.Parallel()
	m := openManager(t, Config{Resources: []Resource{newMemRM("athos", &callLog{})}, RecoverEvery: -1})
	now := time.Now()
	if first := m.firstSeen("x", now); !first.Equal(now) {
		t.Errorf("first seen %v", first)
	}
	if again := m.firstSeen("x", now.Add(time.Second)); !again.Equal(now) {
		t.Errorf("seen again, it is first seen %v", again)
	}
	m.forgetUnseen(now.Add(time.Second + time.Minute))
	if again := m.firstSeen("x", now.Add(2*time.Second)); !again.Equal(now) {
		t.Error("forgotten within the minute")
	}
	m.forgetUnseen(now.Add(2*time.Second + time.Minute + 1))
	if again := m.firstSeen("x", now.Add(time.Hour)); again.Equal(now) {
		t.Error("remembered after the minute")
	}
	_ = m.Close(t.Context())
}

// A pass that slept between its lists acts on nothing that it saw before.
func TestPassIsFresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, keep := range []time.Duration{-1, time.Minute} {
			m := &Manager{cfg: Config{KeepDecisions: keep}}
			p := &pass{mgr: m}
			asked := time.Now()
			time.Sleep(30*time.Second - 1)
			if !p.fresh(asked) {
				t.Errorf("keeping %v: not fresh after %v", keep, time.Since(asked))
			}
			time.Sleep(time.Nanosecond)
			if p.fresh(asked) != (keep < 0) {
				t.Errorf("keeping %v: fresh %v after %v", keep, p.fresh(asked), time.Since(asked))
			}
		}
	})
}

// A home that came back prepared is committed, for its record is in it; but only if
// it is one: else what nobody decided is rolled back as ever.
func TestPassCommitsAHomeThatCameBack(t *testing.T) {
	t.Parallel()
	const all = CanPrepare | CanDecide | OnePhaseReturns
	silent := errors.New("connection reset")
	for _, c := range []struct {
		name  string
		can   Capability
		back  bool  // its server says that it is the home, come back
		err   error // or does not answer
		away  bool  // its decision is recorded elsewhere
		ended Outcome
	}{
		{"came back", all, true, nil, false, Committed},
		{"nobody knows", all, true, silent, false, Undecided},
		{"voted, and is no home", all, false, nil, false, Aborted},
		{"its home is another", all, true, nil, true, Aborted},
		{"a server that brings nothing back", CanPrepare | CanDecide, true, nil, false, Aborted},
		{"no table of its own", CanPrepare | OnePhaseReturns, true, nil, true, Aborted},
	} {
		var home *returningRM
		s := setup(t, func(cfg *Config, s *bundle) {
			s.a.can = c.can
			home = &returningRM{hookRM: &hookRM{memRM: s.a}, err: c.err}
			cfg.Resources[0], cfg.NoRecovery = home, true
		})
		gid := NewGID("bank", time.Now())
		if c.back {
			home.back = []GID{gid}
		}
		place := s.a.place()
		if c.away {
			place = s.b.place()
		}
		x := s.a.left(gid, place)
		n, err := s.m.recoverPass(t.Context())
		if got := s.a.done[x.String()]; got != c.ended || (n == 1) != (got != Undecided) || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v; ended %d, error %v", c.name, got, c.ended, n, err)
		}
	}
}

// A resource that runs out of time while one branch is ended is left alone for this
// pass; the others' branches are ended.
func TestPassGivesUpOnOneSilentResource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		a, b := newMemRM("athos", log), newMemRM("porthos", log)
		slow := &silentRM{memRM: newMemRM("aramis", log)}
		m := openManager(t, Config{Resources: []Resource{a, b, slow}, RecoverEvery: -1, Grace: -1})
		for i := range 3 {
			decided, undecided := NewGID("bank", time.Now()), NewGID("bank", time.Now())
			a.tab.decided(decided, Committed)
			b.left(decided, a.place())
			slow.left(decided, a.place())
			b.left(undecided, a.place())
			if i == 0 {
				slow.left(undecided, a.place())
			}
		}
		start := time.Now()
		n, err := m.Recover(t.Context())
		if took := time.Since(start); n != 6 || err == nil || took != listTimeout || b.inDoubt() != 0 || slow.calls != 1 {
			t.Errorf("ended %d in %v, %d calls, error %v", n, took, slow.calls, err)
		}
		_ = m.Close(t.Context())
	})
}

// A register that runs out of time when it is asked for abort is not asked about each
// branch in turn: a pass would take hours.
func TestPassGivesUpOnASilentRegister(t *testing.T) {
	t.Parallel()
	for keep, want := range map[time.Duration]time.Duration{
		time.Minute:     decideTimeout,
		4 * time.Second: 2 * time.Second, // a later abort could find that the commit's record is gone
		-1:              decideTimeout,
	} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			s := setup(t, func(cfg *Config, s *bundle) {
				cfg.NoRecovery, cfg.KeepDecisions = true, keep
				cfg.Resources[0] = &hookRM{memRM: s.a, reg: &hookReg{
					memRegister: s.a.tab,
					decide: func(ctx context.Context, _ Decision) (Outcome, error) {
						asked++
						<-ctx.Done()
						return Aborted, ctx.Err()
					},
				}}
			})
			for range 3 {
				s.b.left(NewGID("bank", time.Now()), s.a.place())
			}
			start := time.Now()
			n, err := s.m.recoverPass(t.Context())
			if took := time.Since(start); n != 0 || !errors.Is(err, context.DeadlineExceeded) || asked != 1 || took != want || s.b.inDoubt() != 3 {
				t.Errorf("ended %d in %v, asked %d times, error %v", n, took, asked, err)
			}
			_ = s.m.Close(context.Background())
		})
	}
}

// silentRM lists and never ends a branch.
type silentRM struct {
	*memRM
	calls int
}

func (r *silentRM) Finish(ctx context.Context, _ XID, _ Outcome, _ string) error {
	r.calls++
	<-ctx.Done()
	return ctx.Err()
}

// A caller who gives up stops the pass between two branches.
func TestPassStops(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		gid := NewGID("bank", time.Now())
		s.a.tab.decided(gid, Committed)
		s.b.left(gid, s.a.place())
	}
	s.m.cfg.Observer.Recovered = func(XID, string, Outcome) { cancel() }
	if n, _ := s.m.recoverPass(ctx); n != 1 || s.b.inDoubt() != 2 {
		t.Errorf("ended %d, %d in doubt", n, s.b.inDoubt())
	}
}

// A branch that ended the other way is loud, unless the commit record was forgotten
// meanwhile: then somebody proved that it is not so.
func TestPassFindsAHeuristic(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		outcome Outcome
		lookup  func(n int) (Outcome, error)
		loud    bool
	}{
		{"commit stands", Committed, func(int) (Outcome, error) { return Committed, nil }, true},
		{"abort stands", Aborted, func(int) (Outcome, error) { return Aborted, nil }, true},
		{"commit is forgotten", Committed, func(n int) (Outcome, error) {
			if n == 1 {
				return Committed, nil
			}
			return Undecided, nil
		}, false},
		{"commit cannot be asked for again", Committed, func(n int) (Outcome, error) {
			if n == 1 {
				return Committed, nil
			}
			return Undecided, errors.New("connection reset")
		}, false},
	} {
		log := &callLog{}
		reg := &hookReg{memRegister: newMemRegister()}
		asked := 0
		reg.lookup = func(context.Context, GID) (Outcome, error) { asked++; return c.lookup(asked) }
		a := &hookRM{memRM: newMemRM("athos", log), reg: reg}
		b := newMemRM("porthos", log)
		told := 0
		m := openManager(t, Config{Resources: []Resource{a, b}, RecoverEvery: -1, Grace: -1, Observer: &Observer{Heuristic: func(*HeuristicError) { told++ }}})
		x := b.left(NewGID("bank", time.Now()), Place{Resource: "athos", Identity: reg.id})
		b.failOn("finish "+c.outcome.verb(), failure{err: &HeuristicError{GID: x.GID, Decision: c.outcome, Branches: []HeuristicBranch{{Resource: "porthos", XID: x.String()}}}})
		n, err := m.recoverPass(t.Context())
		var h *HeuristicError
		if n != 0 || (told == 1) != c.loud || errors.As(err, &h) != c.loud {
			t.Errorf("%s: ended %d, told %d times, error %v", c.name, n, told, err)
		}
		_ = m.Close(t.Context())
	}
}

// A branch that somebody else ended meanwhile is no error; one that cannot be ended is.
func TestPassTellsWhatItCouldNotEnd(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]int{ErrNoEvidence: 0, errors.New("permission denied"): 1} {
		s := setup(t, nil)
		s.b.left(NewGID("bank", time.Now()), s.a.place())
		s.b.failOn("finish rollback", failure{err: err})
		inDoubt := -1
		s.m.cfg.Observer.RecoverPass = func(n, _ int, _ time.Duration) { inDoubt = n }
		n, got := s.m.recoverPass(t.Context())
		if n != 0 || inDoubt != want || (got != nil) != (want == 1) {
			t.Errorf("%v: ended %d, %d in doubt, error %v", err, n, inDoubt, got)
		}
	}
}

// The periods of the processes of a cluster drift apart: 80 to 120 %.
func TestSpread(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(1, 2))
	low, high := time.Hour, time.Duration(0)
	for range 10_000 {
		d := spread(dice, 10*time.Second)
		low, high = min(low, d), max(high, d)
	}
	if low < 8*time.Second || low > 8010*time.Millisecond || high > 12*time.Second || high < 11990*time.Millisecond {
		t.Errorf("from %v to %v, want 8 s to 12 s", low, high)
	}
}

// The background waits a period, less if woken, and ends with the Manager.
func TestPauseOr(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := openManager(t, Config{Resources: []Resource{newMemRM("athos", &callLog{})}, RecoverEvery: -1})
		wake := make(chan struct{}, 1)
		start := time.Now()
		if !m.pauseOr(wake, time.Minute) || time.Since(start) != time.Minute {
			t.Errorf("it paused %v", time.Since(start))
		}
		wake <- struct{}{}
		start = time.Now()
		if !m.pauseOr(wake, time.Minute) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("woken, it paused %v", time.Since(start))
		}
		time.AfterFunc(time.Second, func() { _ = m.Close(context.Background()) })
		start = time.Now()
		if m.pauseOr(wake, time.Minute) || time.Since(start) != time.Second {
			t.Errorf("closed, it paused %v", time.Since(start))
		}
		if m.pause(0) || m.pause(time.Second) {
			t.Error("it goes on after Close")
		}
	})
}

// A logLines counts what operators are told.
type logLines struct {
	slog.Handler
	mu    sync.Mutex
	lines map[string]int
}

func (l *logLines) Enabled(context.Context, slog.Level) bool { return true }
func (l *logLines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines[r.Message]++
	return nil
}

// An outage is complained of once, by recovery and by upkeep, and the next one
// again.
func TestOutageIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lines := &logLines{lines: make(map[string]int)}
		a := newMemRM("athos", &callLog{})
		m := openManager(t, Config{Resources: []Resource{a}, RecoverEvery: time.Second, Logger: slog.New(lines)})
		for range 2 {
			a.failOn("recover", failure{err: errors.New("connection refused")})
			a.tab.setErr(errors.New("connection refused"))
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			a.mu.Lock()
			delete(a.fail, "recover")
			a.mu.Unlock()
			a.tab.setErr(nil)
			time.Sleep(10 * time.Minute)
			synctest.Wait()
		}
		_ = m.Close(t.Context())
		for _, line := range []string{"recovery pass incomplete", "upkeep of decision records incomplete"} {
			if n := lines.lines[line]; n != 2 {
				t.Errorf("%q was logged %d times in two outages", line, n)
			}
		}
	})
}
