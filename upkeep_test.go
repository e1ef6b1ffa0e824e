package troth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// rowsRM is a memRM whose branches leave rows, as MySQL's leave witnesses.
type rowsRM struct {
	*memRM
	forgot  [][]GID
	err     error
	swept   []time.Duration
	ask     Place
	gone    map[GID]bool
	sweeps  []GID
	sweeped error
}

func (r *rowsRM) Forget(_ context.Context, gids []GID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.forgot = append(r.forgot, slices.Clone(gids))
	return nil
}

func (r *rowsRM) setForgetErr(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// forgotten lists the requests to forget so far.
func (r *rowsRM) forgotten() [][]GID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.forgot)
}

func (r *rowsRM) Sweep(ctx context.Context, minAge time.Duration, forgotten func(context.Context, Place, GID) (bool, error)) (int, error) {
	r.swept = append(r.swept, minAge)
	for _, gid := range r.sweeps {
		ok, err := forgotten(ctx, r.ask, gid)
		if err != nil {
			return 0, err
		}
		r.gone[gid] = ok
	}
	return 0, r.sweeped
}

// countingReg counts what upkeep asks of a register.
type countingReg struct {
	*memRegister
	ages    []time.Duration // Committed's
	limits  []int
	expired []time.Duration
	expire  func(n int) (int, error)
	forgot  int
	full    error // what Forget fails with
}

func (r *countingReg) Committed(ctx context.Context, age time.Duration, after GID, n int) ([]Decision, error) {
	r.ages, r.limits = append(r.ages, age), append(r.limits, n)
	return r.memRegister.Committed(ctx, age, after, n)
}

func (r *countingReg) Forget(ctx context.Context, gids []GID) error {
	r.mu.Lock()
	r.forgot++
	r.mu.Unlock()
	if r.full != nil {
		return r.full
	}
	return r.memRegister.Forget(ctx, gids)
}

func (r *countingReg) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.forgot
}

func (r *countingReg) Expire(_ context.Context, age time.Duration) (int, error) {
	r.expired = append(r.expired, age)
	if r.expire != nil {
		return r.expire(len(r.expired))
	}
	return 0, nil
}

// R4, R5: records of commits are looked at once nobody asks for them any more,
// records of aborts go after ten lives, in batches.
func TestUpkeepAges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ keep, life, want time.Duration }{
		{time.Minute, time.Hour, time.Hour + 30*time.Second},
		{2 * time.Hour, time.Hour, 2*time.Hour + 30*time.Second},
		{-1, time.Minute, time.Minute + 30*time.Second},
	} {
		reg := &countingReg{memRegister: newMemRegister()}
		reg.expire = func(n int) (int, error) { return 3 - n, nil } // 2, 1, 0
		s := setup(t, func(cfg *Config, _ *bundle) {
			cfg.Register, cfg.KeepDecisions, cfg.LifeMax, cfg.Timeout = reg, c.keep, c.life, time.Second
			cfg.NoRecovery = true
		})
		if err := s.m.keepUp(t.Context()); err != nil {
			t.Error(err)
		}
		if len(reg.ages) != 1 || reg.ages[0] != c.want || reg.limits[0] != upkeepBatch {
			t.Errorf("keeping %v of a life of %v: asked for ages %v, limits %v", c.keep, c.life, reg.ages, reg.limits)
		}
		if want := []time.Duration{10 * c.life, 10 * c.life, 10 * c.life}; !slices.Equal(reg.expired, want) {
			t.Errorf("expired %v, want %v", reg.expired, want)
		}
	}
}

// A register that fails is not asked on, and does not keep the others waiting.
func TestUpkeepStopsAtErrors(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	reg := &countingReg{memRegister: newMemRegister()}
	reg.expire = func(int) (int, error) { return 1, full }
	rows := &rowsRM{memRM: newMemRM("aramis", &callLog{}), sweeped: errors.New("no space for a temporary table")}
	s := setup(t, func(cfg *Config, _ *bundle) {
		cfg.Register, cfg.NoRecovery = reg, true
		cfg.Resources = append(cfg.Resources, rows)
	})
	err := s.m.keepUp(t.Context())
	var b *BranchError
	if !errors.Is(err, full) || !errors.Is(err, rows.sweeped) || len(reg.expired) != 1 || !errors.As(err, &b) || b.Resource != "aramis" || b.Op != "recover" {
		t.Errorf("asked %d times, error %v", len(reg.expired), err)
	}
	reg.full = full // what is proved cannot be forgotten: nothing is expired either
	old := NewGID("bank", time.Now())
	reg.recs[old] = Decision{GID: old, Outcome: Committed, At: time.Now().Add(-2 * time.Hour)}
	if err := s.m.keepUp(t.Context()); !errors.Is(err, full) || reg.forgot != 1 || len(reg.expired) != 1 {
		t.Errorf("forgot %d times, expired %d, error %v", reg.forgot, len(reg.expired), err)
	}
	reg.setErr(full) // nor if the list fails
	if err := s.m.keepUp(t.Context()); !errors.Is(err, full) || len(reg.expired) != 1 {
		t.Errorf("asked %d times, error %v", len(reg.expired), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _ = s.m.keepUp(ctx); len(reg.expired) != 1 {
		t.Error("it goes on although its context has ended")
	}
}

// All pages are walked, and what is not ours, or driven here, is left.
func TestUpkeepWalksAllRecords(t *testing.T) {
	t.Parallel()
	for _, n := range []int{upkeepBatch - 1, upkeepBatch, upkeepBatch + 1, 2*upkeepBatch + 7} {
		reg := &countingReg{memRegister: newMemRegister()}
		s := setup(t, func(cfg *Config, _ *bundle) { cfg.Register, cfg.NoRecovery = reg, true })
		old := time.Now().Add(-2 * time.Hour)
		for range n {
			gid := NewGID("bank", old)
			reg.recs[gid] = Decision{GID: gid, Outcome: Committed, At: old}
		}
		stranger := NewGID("bank2", old)
		reg.recs[stranger] = Decision{GID: stranger, Outcome: Committed, At: old}
		tx, err := s.m.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		reg.recs[tx.ID()] = Decision{GID: tx.ID(), Outcome: Committed, At: old}
		young := NewGID("bank", time.Now())
		reg.recs[young] = Decision{GID: young, Outcome: Committed, At: time.Now()}
		if err := s.m.keepUp(t.Context()); err != nil {
			t.Error(err)
		}
		for _, gid := range []GID{stranger, tx.ID(), young} {
			if _, ok := reg.recs[gid]; !ok {
				t.Errorf("%d records: %s is forgotten", n, gid)
			}
		}
		if pages := (n + 2) / upkeepBatch; len(reg.recs) != 3 || len(reg.limits) != pages+1 {
			t.Errorf("%d records: %d are left after %d pages", n, len(reg.recs), len(reg.limits))
		}
		reg.limits, reg.forgot = nil, 0
		if err := s.m.keepUp(t.Context()); err != nil || reg.forgot != 0 {
			t.Errorf("nothing to forget, and asked %d times; error %v", reg.forgot, err)
		}
	}
}

// R4: a record goes only when each of its branches is proved committed.
func TestUpkeepProvesEachBranch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		finish error
		record string
		kept   bool
		loud   bool
	}{
		{"proved", nil, "athos.1=7 porthos.2=8", false, false},
		{"no evidence", ErrNoEvidence, "athos.1=7 porthos.2=8", true, false},
		{"unknown here", nil, "aramis.1= porthos.2=8", true, false},
		{"heuristic", &HeuristicError{GID: "g", Branches: []HeuristicBranch{{Resource: "porthos"}}}, "athos.1=7 porthos.2=8", true, true},
	} {
		reg := newMemRegister()
		told := 0
		s := setup(t, func(cfg *Config, _ *bundle) {
			cfg.Register, cfg.NoRecovery = reg, true
			cfg.Observer = &Observer{Heuristic: func(*HeuristicError) { told++ }}
		})
		old := time.Now().Add(-2 * time.Hour)
		gid := NewGID("bank", old)
		branches, err := ParseBranches(c.record)
		if err != nil {
			t.Fatal(err)
		}
		reg.recs[gid] = Decision{GID: gid, Outcome: Committed, Branches: branches, At: old}
		for _, b := range branches { // both are prepared still, and committed on the way
			x := XID{GID: gid, Place: Place{Identity: reg.id}, Branch: b.Branch}
			for _, r := range []*memRM{s.a, s.b} {
				if r.name == b.Resource {
					r.prepared[x.String()] = x
				}
			}
		}
		if c.finish != nil {
			s.b.failOn("finish commit", failure{err: c.finish})
		}
		err = s.m.keepUp(t.Context())
		if _, kept := reg.recs[gid]; kept != c.kept || (told == 1) != c.loud {
			t.Errorf("%s: kept %v, told %d times", c.name, kept, told)
		}
		if c.finish == nil && err != nil || c.finish != nil && (!errors.Is(err, c.finish) || !strings.Contains(err.Error(), "the commit record of "+string(gid)+" is kept")) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

// A record that somebody forgot while it was being proved is no news.
func TestUpkeepRacesWithAnother(t *testing.T) {
	t.Parallel()
	for _, lost := range []error{nil, errors.New("connection reset")} {
		reg := &hookReg{memRegister: newMemRegister()}
		told := 0
		s := setup(t, func(cfg *Config, _ *bundle) {
			cfg.Register, cfg.NoRecovery = reg, true
			cfg.Observer = &Observer{Heuristic: func(*HeuristicError) { told++ }}
		})
		old := time.Now().Add(-2 * time.Hour)
		gid := NewGID("bank", old)
		reg.recs[gid] = Decision{GID: gid, Outcome: Committed, Branches: []BranchRecord{{Resource: "porthos", Branch: 1}}, At: old}
		s.b.failOn("finish commit", failure{err: &HeuristicError{GID: gid}})
		reg.lookup = func(context.Context, GID) (Outcome, error) { return Undecided, lost }
		if err := s.m.keepUp(t.Context()); told != 0 || err != nil {
			t.Errorf("lookup %v: told %d times, error %v", lost, told, err)
		}
		if len(reg.recs) != 1 {
			t.Error("it forgot what it did not prove")
		}
	}
}

// The identity of a register is known once it is open: before that nobody asks for it,
// neither to look up a decision nor to keep one.
func TestNobodyAsksWhoARegisterIsBeforeItIsOpen(t *testing.T) {
	t.Parallel()
	down := errors.New("connection refused")
	closed := func() *hookReg {
		reg := &hookReg{memRegister: newMemRegister(), open: func() error { return down }}
		reg.identity = func() string {
			t.Error("asked")
			return reg.id
		}
		return reg
	}
	s := setup(t, func(cfg *Config, s *bundle) {
		cfg.Register, cfg.AllowUnreachable = closed(), true
		s.a.failOn("open", failure{err: down})
		cfg.Resources[0] = &hookRM{memRM: s.a, reg: closed()}
	})
	if _, err := s.m.Outcome(t.Context(), NewGID("bank", time.Now())); !errors.Is(err, ErrUnreachable) {
		t.Errorf("outcome: %v", err)
	}
	if _, err := s.m.Recover(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("recover: %v", err)
	}
}

// What proves a commit goes once its record is gone, and not while this process
// drives the transaction, or its register is not known or does not answer.
func TestSweepAsksTheRegister(t *testing.T) {
	t.Parallel()
	reg := newMemRegister()
	rows := &rowsRM{memRM: newMemRM("aramis", &callLog{}), gone: make(map[GID]bool)}
	s := setup(t, func(cfg *Config, _ *bundle) {
		cfg.Register, cfg.NoRecovery = reg, true
		cfg.Resources = append(cfg.Resources, rows)
	})
	tx, err := s.m.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept, gone := NewGID("bank", time.Now()), NewGID("bank", time.Now())
	reg.decided(kept, Committed)
	rows.sweeps, rows.ask = []GID{tx.ID(), kept, gone}, Place{Identity: reg.id}
	if err := s.m.keepUp(t.Context()); err != nil {
		t.Error(err)
	}
	if rows.gone[tx.ID()] || rows.gone[kept] || !rows.gone[gone] || len(rows.swept) != 1 || rows.swept[0] != s.m.keepAge() {
		t.Errorf("told to be gone: %v; ages %v", rows.gone, rows.swept)
	}
	rows.ask = Place{Identity: "zzzzzzzz"}
	if err := s.m.keepUp(t.Context()); err != nil || rows.gone[gone] {
		t.Errorf("an unknown register is taken for one without the record; error %v", err)
	}
	rows.ask = Place{Identity: reg.id}
	reg.setErr(errors.New("connection refused"))
	if err := s.m.keepUp(t.Context()); err == nil || rows.gone[gone] {
		t.Errorf("a silent register is taken for one without the record; error %v", err)
	}
	// One that is not open is not asked.
	s.m.mu.Lock()
	s.m.opened[rows] = false
	s.m.mu.Unlock()
	if _ = s.m.keepUp(t.Context()); len(rows.swept) != 3 {
		t.Errorf("%d sweeps", len(rows.swept))
	}
}

// The process that committed forgets its records itself, KeepDecisions later, and
// ten seconds later what proves them.
func TestForgetterKeepsItsTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := &countingReg{memRegister: newMemRegister()}
		rows := &rowsRM{memRM: newMemRM("aramis", &callLog{})}
		reader := &rowsRM{memRM: newMemRM("planchet", &callLog{})}
		reader.wrote = false
		s := setup(t, func(cfg *Config, s *bundle) {
			cfg.Register, cfg.KeepDecisions = reg, time.Minute
			cfg.Resources = append(cfg.Resources, rows, reader)
		})
		run := func() GID {
			var id GID
			err := s.m.Run(t.Context(), func(ctx context.Context, tx *Tx) error {
				id = tx.ID()
				_, err1 := tx.Enlist(ctx, rows)
				_, err2 := tx.Enlist(ctx, reader)
				return errors.Join(err1, err2, s.a.work(ctx, tx))
			})
			if err != nil {
				t.Error(err)
			}
			return id
		}
		id := run()
		time.Sleep(time.Minute - 1)
		if synctest.Wait(); reg.size() != 1 {
			t.Error("the record went early")
		}
		time.Sleep(time.Second)
		if synctest.Wait(); reg.size() != 0 || reg.requests() != 1 {
			t.Errorf("the record is still there, or went %d times", reg.requests())
		}
		if len(rows.forgotten()) != 0 {
			t.Error("what proves it went with it")
		}
		time.Sleep(rowsDelay)
		if synctest.Wait(); len(rows.forgotten()) != 1 || !slices.Equal(rows.forgotten()[0], []GID{id}) || len(reader.forgotten()) != 0 {
			t.Errorf("rows forgotten: %v; the reader's: %v", rows.forgotten(), reader.forgotten())
		}

		// A register that is down, and a resource, are asked until they answer.
		id = run()
		reg.setErr(errors.New("connection refused"))
		rows.setForgetErr(errors.New("connection refused"))
		time.Sleep(2 * time.Minute)
		reg.setErr(nil)
		time.Sleep(30 * time.Second)
		if synctest.Wait(); reg.size() != 0 || len(rows.forgotten()) != 1 {
			t.Errorf("%d records, rows forgotten: %v", reg.size(), rows.forgotten())
		}
		rows.setForgetErr(nil)
		time.Sleep(time.Second)
		if synctest.Wait(); len(rows.forgotten()) != 2 || !slices.Equal(rows.forgotten()[1], []GID{id}) {
			t.Errorf("rows forgotten: %v", rows.forgotten())
		}
		s.m.forget.mu.Lock()
		if n := len(s.m.forget.queue) + len(s.m.forget.left); n != 0 {
			t.Errorf("%d lists are left", n)
		}
		s.m.forget.mu.Unlock()
		_ = s.m.Close(t.Context())
	})
}

// It forgets in batches, in the order of time, and what left nothing is not noted.
func TestForgetterBatches(t *testing.T) {
	t.Parallel()
	reg := &countingReg{memRegister: newMemRegister()}
	rows := &rowsRM{memRM: newMemRM("aramis", &callLog{})}
	s := setup(t, func(cfg *Config, _ *bundle) {
		cfg.Register, cfg.NoRecovery, cfg.KeepDecisions = reg, true, time.Hour
		cfg.Resources = append(cfg.Resources, rows)
	})
	f := &forgetter{mgr: s.m, work: make(chan struct{}, 1)} // not the Manager's, which is at work
	f.add(Place{}, "bank.x", nil)
	if len(f.queue) != 0 {
		t.Error("a transaction that left nothing is noted")
	}
	place := Place{Identity: reg.id}
	for i := range 2*forgetBatch + 1 {
		f.add(place, GID(fmt.Sprintf("bank.%d", i)), nil)
	}
	f.add(Place{}, "bank.rows", []Forgetter{rows})
	old := time.Now().Add(-2 * time.Hour)
	for i := range f.queue[place] {
		f.queue[place][i].at = old
	}
	f.queue[Place{}][0].at = old
	f.flush(t.Context())
	if reg.forgot != 3 || len(f.queue) != 0 {
		t.Errorf("%d requests, %d queues are left", reg.forgot, len(f.queue))
	}
	if len(f.left[rows]) != 1 || len(rows.forgot) != 0 {
		t.Errorf("rows: %v, forgotten %v", f.left[rows], rows.forgot)
	}
	f.left[rows] = nil
	for i := range forgetBatch + 1 {
		f.left[rows] = append(f.left[rows], forgettable{gid: GID(fmt.Sprintf("bank.%d", i)), at: time.Now().Add(-rowsDelay - time.Second)})
	}
	f.left[rows] = append(f.left[rows], forgettable{gid: "bank.young", at: time.Now()})
	f.flush(t.Context())
	if len(rows.forgot) != 2 || len(rows.forgot[0]) != forgetBatch || len(rows.forgot[1]) != 1 || len(f.left[rows]) != 1 {
		t.Errorf("%d requests, %d rows are left", len(rows.forgot), len(f.left[rows]))
	}
}
