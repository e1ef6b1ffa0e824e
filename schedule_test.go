package troth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Schedules of failures that are hard to meet with real databases. Each test says what
// must hold in one.

// hookRM is a memRM some of whose methods a test replaces.
type hookRM struct {
	*memRM
	open    func(context.Context) error
	begin   func(context.Context, BranchConfig) (Branch, error)
	recover func(context.Context) ([]Prepared, error)
	reg     Register
}

func (r *hookRM) Open(ctx context.Context, c ResourceConfig) error {
	if r.open != nil {
		return r.open(ctx)
	}
	return r.memRM.Open(ctx, c)
}

func (r *hookRM) Begin(ctx context.Context, c BranchConfig) (Branch, error) {
	if r.begin != nil {
		return r.begin(ctx, c)
	}
	return r.memRM.Begin(ctx, c)
}

func (r *hookRM) Recover(ctx context.Context) ([]Prepared, error) {
	if r.recover != nil {
		return r.recover(ctx)
	}
	return r.memRM.Recover(ctx)
}

func (r *hookRM) Decisions() Register {
	if r.reg != nil {
		return r.reg
	}
	return r.memRM.Decisions()
}

// hookReg is a memRegister some of whose methods a test replaces.
type hookReg struct {
	*memRegister
	decide    func(context.Context, Decision) (Outcome, error)
	lookup    func(context.Context, GID) (Outcome, error)
	committed func(context.Context) error
	open      func() error
	identity  func() string
}

func (r *hookReg) Open(ctx context.Context, c RegisterConfig) error {
	if r.open != nil {
		return r.open()
	}
	return r.memRegister.Open(ctx, c)
}

func (r *hookReg) Identity() string {
	if r.identity != nil {
		return r.identity()
	}
	return r.memRegister.Identity()
}

func (r *hookReg) Decide(ctx context.Context, d Decision) (Outcome, error) {
	if r.decide != nil {
		return r.decide(ctx, d)
	}
	return r.memRegister.Decide(ctx, d)
}

func (r *hookReg) Lookup(ctx context.Context, g GID) (Outcome, error) {
	if r.lookup != nil {
		return r.lookup(ctx, g)
	}
	return r.memRegister.Lookup(ctx, g)
}

func (r *hookReg) Committed(ctx context.Context, age time.Duration, after GID, n int) ([]Decision, error) {
	if r.committed != nil {
		if err := r.committed(ctx); err != nil {
			return nil, err
		}
	}
	return r.memRegister.Committed(ctx, age, after, n)
}

func openManager(t *testing.T, cfg Config) *Manager {
	t.Helper()
	if cfg.Domain == "" {
		cfg.Domain = "bank"
	}
	m, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (r *memRM) inDoubt() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.prepared)
}

func (r *memRM) ended() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for name, o := range r.done {
		out = append(out, r.name+" "+o.String()+" "+name)
	}
	for name := range r.prepared {
		out = append(out, r.name+" in doubt "+name)
	}
	slices.Sort(out)
	return out
}

// A resource whose Begin failed, and that the program did without, is made the
// home of the names. The decision goes elsewhere, recovery asks at the wrong place.
func TestFailedBeginIsNotTheHome(t *testing.T) {
	t.Parallel()
	t.Run("by troth.Home", func(t *testing.T) { failedBegin(t, false, Home("lite")) })
	t.Run("by its order", func(t *testing.T) { failedBegin(t, true) })
}

func failedBegin(t *testing.T, named bool, opts ...TxOption) {
	t.Helper()
	log := &callLog{}
	lite, a, b := newMemRM("lite", log), newMemRM("athos", log), newMemRM("porthos", log)
	lite.can, a.can, b.can = CanDecide, CanPrepare, CanPrepare
	lite.failOn("begin", failure{err: errors.New("database is locked")})
	reg := newMemRegister()
	first := &hookRM{memRM: a}
	if named { // as MySQL does, it needs its name before its first statement
		first.begin = func(ctx context.Context, c BranchConfig) (Branch, error) {
			return second2(c.XID, func() (Branch, error) { return a.Begin(ctx, c) })
		}
	}
	cfg := Config{Resources: []Resource{lite, first, b}, Register: reg, RecoverEvery: -1, Grace: -1, AckTimeout: 50 * time.Millisecond}
	m := openManager(t, cfg)
	down := failure{err: errors.New("connection refused")}
	b.failOn("commit", down)
	b.failOn("finish commit", down)
	err := m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		if err := lite.work(ctx, tx); err == nil { // an audit log: nice to have
			t.Error("lite did begin")
		}
		_, err := tx.Enlist(ctx, first)
		return errors.Join(err, b.work(ctx, tx))
	}, opts...)
	t.Logf("the caller hears: %v", err)
	delete(b.fail, "commit")
	delete(b.fail, "finish commit")

	other := openManager(t, cfg) // recovers at open
	defer func() { _ = other.Close(context.Background()) }()
	ends := append(a.ended(), b.ended()...)
	if len(ends) == 1 || len(ends) == 2 && strings.Contains(ends[0], "committed") != strings.Contains(ends[1], "committed") {
		t.Errorf("the branches ended differently:\n%s", strings.Join(ends, "\n"))
	}
	if errors.Is(err, ErrPending) && strings.Contains(strings.Join(ends, " "), "aborted") {
		t.Error("and the caller was told: committed")
	}
}

func second2(name func() (XID, error), begin func() (Branch, error)) (Branch, error) {
	if _, err := name(); err != nil {
		return nil, err
	}
	return begin()
}

// The same without a register of its own: nil dereference in the driving goroutine.
func TestFailedBeginDoesNotPanic(t *testing.T) {
	t.Parallel()
	log := &callLog{}
	x, a, b := newMemRM("aramis", log), newMemRM("athos", log), newMemRM("porthos", log)
	x.failOn("begin", failure{err: errors.New("pool exhausted")})
	m := openManager(t, Config{Resources: []Resource{x, a, b}, RecoverEvery: -1})
	defer func() { _ = m.Close(context.Background()) }()
	tx, err := m.Begin(t.Context(), Home("aramis"))
	if err != nil {
		t.Fatal(err)
	}
	_ = x.work(t.Context(), tx)
	if err := errors.Join(a.work(t.Context(), tx), b.work(t.Context(), tx)); err != nil {
		t.Fatal(err)
	}
	tx.claim()
	func() {
		defer func() {
			if p := recover(); p != nil { // in Commit it would end the process
				t.Errorf("Commit panics: %v", p)
			}
		}()
		tx.drive(t.Context(), event{kind: evCommit})
	}()
}

// A Begin that waits for a session for ever (pool exhausted, context without an
// end) keeps the deadline, Rollback and Close from doing anything.
func TestDeadlineEndsABlockedBegin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		a := newMemRM("athos", log)
		free := make(chan struct{})
		b := &hookRM{memRM: newMemRM("porthos", log), begin: func(ctx context.Context, _ BranchConfig) (Branch, error) {
			select { // sql.DB.Conn of an exhausted pool
			case <-free:
			case <-ctx.Done():
			}
			return nil, errors.New("no session")
		}}
		m := openManager(t, Config{Resources: []Resource{a, b}, RecoverEvery: -1})
		tx, err := m.Begin(context.Background(), Timeout(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.work(context.Background(), tx); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = tx.Enlist(context.Background(), b) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := log.String(); got != "athos rollback" {
			t.Errorf("an hour after the deadline of a second: calls %q, want athos rolled back", got)
		}
		close(free)
		_ = m.Close(context.Background())
	})
}

// With AllowUnreachable a transaction prepares its branches under a name
// without the register's identity, which is not known yet: nobody will ever take
// such a branch for troth's.
func TestNoVoteBeforeTheRegisterIsKnown(t *testing.T) {
	t.Parallel()
	log := &callLog{}
	a, b := newMemRM("athos", log), newMemRM("porthos", log)
	opened := false
	reg := &hookReg{memRegister: newMemRegister()}
	reg.open = func() error { return errors.New("connection refused") }
	reg.identity = func() string { // as Register says: known after Open
		if !opened {
			return ""
		}
		return reg.id
	}
	reg.decide = func(context.Context, Decision) (Outcome, error) { return Undecided, errors.New("not open") }
	m := openManager(t, Config{Resources: []Resource{a, b}, Register: reg, AllowUnreachable: true, RecoverEvery: -1, Grace: -1, AckTimeout: 50 * time.Millisecond})
	err := m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		return errors.Join(a.work(ctx, tx), b.work(ctx, tx))
	})
	t.Logf("the caller hears: %v", err)
	for name := range a.prepared {
		if _, err := ParseXID(name); err != nil {
			t.Errorf("prepared as %s, which is %v: no recovery will touch it", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = m.Close(ctx)
}

// leaveOrphan leaves a branch of a committed transaction prepared at r.
func leaveOrphan(r *memRM, home *memRM) {
	gid := NewGID("bank", time.Now())
	x := XID{GID: gid, Place: resourcePlace(home), Branch: 2}
	r.mu.Lock()
	r.prepared[x.String()] = x
	r.mu.Unlock()
	home.tab.mu.Lock()
	defer home.tab.mu.Unlock()
	home.tab.recs[gid] = Decision{GID: gid, Outcome: Committed, At: time.Now(), Branches: []BranchRecord{{Resource: r.name, Branch: 2}}}
}

// A database that accepts connections and does not answer (SIGSTOP, a dead
// disk) while it is not open yet stops all recovery passes.
func TestFrozenOpenDoesNotStopRecovery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		a, b := newMemRM("athos", log), newMemRM("porthos", log)
		first := true
		c := &hookRM{memRM: newMemRM("aramis", log), open: func(ctx context.Context) error {
			if first {
				first = false
				return errors.New("connection refused")
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		m, err := Open(ctx, Config{Domain: "bank", Resources: []Resource{a, b, c}, AllowUnreachable: true})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		leaveOrphan(b, a)
		time.Sleep(6 * time.Hour)
		if n := b.inDoubt(); n != 0 {
			t.Errorf("%d branch of a committed transaction still in doubt after hours, though its home and its database answer", n)
		}
		_ = m.Close(context.Background())
	})
}

// The same with a database that freezes during upkeep.
func TestFrozenUpkeepDoesNotStopRecovery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		a, b := newMemRM("athos", log), newMemRM("porthos", log)
		c := &hookRM{memRM: newMemRM("aramis", log)}
		c.reg = &hookReg{memRegister: c.tab, committed: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		c.recover = func(context.Context) ([]Prepared, error) { return nil, errors.New("no answer in time") }
		m := openManager(t, Config{Resources: []Resource{a, b, c}})
		time.Sleep(time.Minute) // the loop's first upkeep has begun
		leaveOrphan(b, a)
		time.Sleep(6 * time.Hour)
		if n := b.inDoubt(); n != 0 {
			t.Errorf("%d branch of a committed transaction still in doubt after hours, though its home and its database answer", n)
		}
		_ = m.Close(context.Background())
	})
}

// Branches whose home is frozen are asked about one after the other, 15 s
// each, in front of branches whose home answers.
func TestOneFrozenHomeDoesNotDelayTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		a, b, x := newMemRM("athos", log), newMemRM("porthos", log), newMemRM("aramis", log)
		frozen := &hookRM{memRM: x}
		frozen.reg = &hookReg{memRegister: x.tab, lookup: func(ctx context.Context, _ GID) (Outcome, error) {
			<-ctx.Done()
			return Undecided, ctx.Err()
		}}
		list := &hookRM{memRM: b, recover: func(ctx context.Context) ([]Prepared, error) {
			all, err := b.Recover(ctx)
			slices.SortFunc(all, func(p, q Prepared) int { return -strings.Compare(p.XID.Place.String(), q.XID.Place.String()) })
			slices.Reverse(all) // the frozen home's first
			return all, err
		}}
		m := openManager(t, Config{Resources: []Resource{a, list, frozen}})
		for range 100 {
			g := NewGID("bank", time.Now())
			xid := XID{GID: g, Place: Place{Resource: "aramis", Identity: x.tab.id}, Branch: 2}
			b.mu.Lock()
			b.prepared[xid.String()] = xid
			b.mu.Unlock()
		}
		leaveOrphan(b, a)
		start := time.Now()
		for b.inDoubt() > 100 && time.Since(start) < time.Hour {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("the branch whose home answers was ended after %v", d)
		}
		_ = m.Close(context.Background())
	})
}

// The home's answer is lost and the home stays down for longer than LifeMax.
// Then it comes back, without a record. Nobody ever decides any more.
func TestHomeDownForLongerThanLifeMax(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		a, b := newMemRM("athos", log), newMemRM("porthos", log)
		m := openManager(t, Config{Resources: []Resource{a, b}, LifeMax: time.Hour})
		down := errors.New("connection refused")
		a.failOn("decide", failure{err: errors.New("eof")}) // the work of the home is lost
		m.cfg.Observer.BranchOp = func(_ GID, _, op string, _ time.Duration, _ error) {
			if op == "decide" {
				a.tab.setErr(down)
			}
		}
		var id GID
		err := m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
			id = tx.ID()
			return errors.Join(a.work(ctx, tx), b.work(ctx, tx))
		})
		wantErr(t, err, ErrUndecided)
		time.Sleep(time.Hour)
		a.tab.setErr(nil) // after an outage of an hour all is well again
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		o, oerr := m.Outcome(t.Context(), id)
		t.Logf("outcome %v, %v", o, oerr)
		if n := b.inDoubt(); n != 0 {
			t.Errorf("hours after the home came back %d branch is still in doubt, with its locks", n)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = m.Close(ctx)
	})
}

// settlerRM is a resource without a decision table whose sole branch leaves a witness,
// as MySQL does beside a register of its own.
type settlerRM struct {
	*memRM
	mu      sync.Mutex
	witness map[GID]time.Time
	cut     bool // between the first process and the database
}

type settlerBranch struct {
	*memBranch
	r *settlerRM
}

func (r *settlerRM) Begin(_ context.Context, cfg BranchConfig) (Branch, error) {
	return &settlerBranch{memBranch: &memBranch{rm: r.memRM, cfg: cfg}, r: r}, nil
}

func (b *settlerBranch) CommitDeciding(_ context.Context, d Decision) (Outcome, error) {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	b.r.witness[d.GID] = time.Now()
	b.r.cut = true
	return Undecided, errors.New("eof")
}

func (b *settlerBranch) Settle(context.Context) (Outcome, error) {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	if b.r.cut {
		return Undecided, errors.New("connection refused")
	}
	if _, ok := b.r.witness[b.cfg.GID]; ok {
		return Committed, nil
	}
	return Aborted, nil
}

func (r *settlerRM) Sweep(ctx context.Context, minAge time.Duration, forgotten func(context.Context, Place, GID) (bool, error)) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for g, at := range r.witness {
		if time.Since(at) < minAge {
			continue
		}
		if ok, _ := forgotten(ctx, Place{Identity: "00000000"}, g); ok {
			delete(r.witness, g)
			n++
		}
	}
	return n, nil
}

// A transaction of one branch commits, the answer is lost, and the process is
// cut off from that database for longer than LifeMax. Another process sweeps the
// witness. Then the first one hears: aborted.
func TestSettleAfterTheWitnessIsSwept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newMemRegister()
		reg.id = "00000000"
		r := &settlerRM{memRM: newMemRM("porthos", &callLog{}), witness: make(map[GID]time.Time)}
		r.can = CanPrepare
		cfg := Config{Resources: []Resource{r}, Register: reg, LifeMax: time.Minute}
		m := openManager(t, cfg)
		other := openManager(t, cfg)
		var told Outcome
		var id GID
		err := m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
			id = tx.ID()
			tx.AfterDone(func(o Outcome) { told = o })
			_, err := tx.Enlist(ctx, r)
			return err
		})
		wantErr(t, err, ErrUndecided)
		// m's own passes cannot reach the database; other's can.
		time.Sleep(5 * time.Minute)
		r.mu.Lock()
		left := len(r.witness)
		r.cut = false
		r.mu.Unlock()
		time.Sleep(10 * time.Second)
		o, oerr := m.Outcome(t.Context(), id)
		if o == Aborted || told == Aborted {
			t.Errorf("it committed (witnesses left: %d), but Outcome says %v (%v) and AfterDone heard %v", left, o, oerr, told)
		}
		_ = m.Close(context.Background())
		_ = other.Close(context.Background())
	})
}

// The process freezes just before it asks the home for abort. Meanwhile others
// finish the transaction, which did commit, and forget it. It wakes, its abort
// goes in, and its caller hears: rolled back.
func TestZombieAsksForAbortBehindAForgottenCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		ar, b := newMemRM("athos", log), newMemRM("porthos", log)
		reg := &hookReg{memRegister: ar.tab}
		a := &hookRM{memRM: ar, reg: reg}
		other := openManager(t, Config{Resources: []Resource{ar, b}, LifeMax: time.Minute})
		frozen := false
		reg.decide = func(ctx context.Context, d Decision) (Outcome, error) {
			if d.Outcome == Aborted && !frozen {
				frozen = true
				time.Sleep(10 * time.Minute) // SIGSTOP ... SIGCONT, then the request goes out
			}
			return ar.tab.Decide(ctx, d)
		}
		m := openManager(t, Config{Resources: []Resource{a, b}, LifeMax: time.Minute, RecoverEvery: -1})
		ar.failOn("decide", failure{err: errors.New("eof"), after: true}) // it did commit
		var told Outcome
		var id GID
		go func() {
			err := m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
				id = tx.ID()
				tx.AfterDone(func(o Outcome) { told = o })
				_, err := tx.Enlist(ctx, a)
				return errors.Join(err, b.work(ctx, tx))
			})
			t.Logf("the caller hears: %v", err)
		}()
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		o, oerr := m.Outcome(t.Context(), id)
		if told == Aborted || o == Aborted {
			t.Errorf("branches: %v; but AfterDone heard %v, Outcome says %v (%v)", b.ended(), told, o, oerr)
		}
		_ = m.Close(context.Background())
		_ = other.Close(context.Background())
	})
}

// Close drops records at once. A recoverer that looked just before leaves an
// abort behind the commit, which Outcome and Wait then tell.
func TestCloseKeepsYoungRecords(t *testing.T) {
	t.Parallel()
	log := &callLog{}
	a, b := newMemRM("athos", log), newMemRM("porthos", log)
	m := openManager(t, Config{Resources: []Resource{a, b}, RecoverEvery: -1, Grace: -1})
	passes := 0 // 1: at Open; 2: P; 3: Q
	var id GID
	slow := &hookRM{memRM: b}
	other := openManager(t, Config{Resources: []Resource{a, slow}, RecoverEvery: -1, Grace: -1})
	defer func() { _ = other.Close(context.Background()) }()
	// The vote takes its time: other looks between prepare and decide, and asks for
	// abort after m committed and was closed in good order.
	resume, looked := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow.recover = func(ctx context.Context) ([]Prepared, error) {
		list, err := b.Recover(ctx)
		passes++
		if passes == 3 {
			once.Do(func() { close(looked) })
			<-resume
		}
		return list, err
	}
	passes = 1
	m.cfg.Observer.BranchOp = func(_ GID, _, op string, _ time.Duration, _ error) {
		if op == "prepare" {
			go func() {
				_, _ = other.Recover(context.Background())
				once.Do(func() {
					t.Error("the pass ended before it looked a second time")
					close(looked)
				})
			}()
			<-looked
		}
	}
	err := m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
		id = tx.ID()
		return errors.Join(a.work(ctx, tx), b.work(ctx, tx))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if a.tab.size() == 0 {
		t.Errorf("KeepDecisions is a minute, but the record is gone with Close")
	}
	close(resume)
	_, _ = other.Recover(t.Context()) // waits for the pass at hand
	if o, err := other.Outcome(t.Context(), id); o == Aborted {
		t.Errorf("Commit returned nil, every branch committed (%v), and another process hears %v, %v", b.ended(), o, err)
	}
}

// Run with -race: the count of unreachable resources is written without the lock.
func TestPassRace(t *testing.T) {
	t.Parallel()
	log := &callLog{}
	rs := []Resource{newMemRM("athos", log)}
	for i := range 20 {
		r := newMemRM(fmt.Sprintf("p%d", i), log)
		if i%2 == 0 {
			r.failOn("recover", failure{err: errors.New("refused")})
		} else {
			r.failOn("open", failure{err: errors.New("refused")})
		}
		rs = append(rs, r)
	}
	m := openManager(t, Config{Resources: rs, AllowUnreachable: true, RecoverEvery: -1})
	for range 50 {
		_, _ = m.Recover(t.Context())
	}
	_ = m.Close(t.Context())
}

// Recover's error joins the databases that did not answer, its comment says.
func TestRecoverTellsOfTheUnopened(t *testing.T) {
	t.Parallel()
	log := &callLog{}
	a, b := newMemRM("athos", log), newMemRM("porthos", log)
	b.failOn("open", failure{err: errors.New("connection refused")})
	m := openManager(t, Config{Resources: []Resource{a, b}, AllowUnreachable: true, RecoverEvery: -1})
	defer func() { _ = m.Close(context.Background()) }()
	if n, err := m.Recover(t.Context()); err == nil {
		t.Errorf("recovered %d, no error: but porthos was never asked", n)
	}
}

// R7: Resolve acts on another domain's branch.
func TestResolveLeavesOtherDomainsAlone(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	gid := NewGID("shop", time.Now())
	x := XID{GID: gid, Place: resourcePlace(s.a), Branch: 2}
	s.b.prepared[x.String()] = x
	n, err := s.m.Resolve(t.Context(), gid, Aborted, false)
	if n != 0 || err == nil {
		t.Errorf("resolved %d, %v: this process looks after another domain, and its own verdict says that it leaves the branch alone", n, err)
	}
}
