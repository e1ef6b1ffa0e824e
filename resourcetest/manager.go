package resourcetest

import (
	"context"
	"errors"
	"time"

	"github.com/troth-tx/troth"
)

// managerCases drive resources through a Manager, as programs do.
var managerCases = []testCase{
	{name: "one database commits", run: func(w *world) {
		b := newBank(w, 1)
		tx := b.run(func(ctx context.Context, s []Session) error { return add(ctx, s[0], 1, 10) })
		w.must(tx.err)
		w.wantBalance(1, balance+10)
		b.wantOutcome(tx.id, troth.Committed)
		w.wantClean(w.pool, 1)
	}},
	{name: "an error rolls back", run: func(w *world) {
		b := newBank(w, 1)
		whim := errors.New("changed my mind")
		tx := b.run(func(ctx context.Context, s []Session) error {
			return errors.Join(add(ctx, s[0], 1, 10), whim)
		})
		w.wantRolledBack(tx.err)
		if !errors.Is(tx.err, whim) {
			w.Fatalf("the program's own error is lost: %v", tx.err)
		}
		w.wantBalance(1, balance)
		w.wantClean(w.pool, 1)
	}},
	{name: "a swallowed statement error rolls back", run: func(w *world) { // R9
		b := newBank(w, 1)
		tx := b.run(func(ctx context.Context, s []Session) error {
			if err := add(ctx, s[0], 1, 10); err != nil {
				return err
			}
			_ = fail(ctx, s[0])
			return nil
		})
		w.wantRolledBack(tx.err)
		w.wantBalance(1, balance)
	}},
	{name: "a returned error is safe to retry or not", skip: noLockWait, run: returnedError},
	{name: "a panic rolls back and goes on", run: func(w *world) {
		b := newBank(w, 1)
		func() {
			defer func() {
				if recover() == nil {
					w.Error("the panic was swallowed")
				}
			}()
			b.run(func(ctx context.Context, s []Session) error {
				w.must(add(ctx, s[0], 1, 10))
				panic("out of coffee")
			})
		}()
		w.wantBalance(1, balance)
		w.wantClean(w.pool, 1)
	}},
	{name: "a timeout rolls back", run: func(w *world) {
		b := newBank(w, 1)
		tx := b.run(func(ctx context.Context, s []Session) error {
			if err := add(ctx, s[0], 1, 10); err != nil {
				return err
			}
			<-ctx.Done()
			return nil // did not notice
		}, troth.Timeout(200*time.Millisecond))
		w.wantRolledBack(tx.err)
		if !errors.Is(tx.err, troth.ErrTimeout) {
			w.Fatalf("the error does not tell of the timeout: %v", tx.err)
		}
		w.wantBalance(1, balance)
		w.wantClean(w.pool, 1)
	}},
	{name: "only reading", run: func(w *world) {
		b := newBank(w, 1)
		tx := b.run(func(ctx context.Context, s []Session) error {
			_, err := s[0].Int(ctx, "select balance from account where id = 1")
			return err
		})
		w.must(tx.err)
		w.wantClean(w.pool, 1)
	}},
	{name: "two databases commit", needs: troth.CanPrepare, run: func(w *world) {
		b := newBank(w, 2)
		for range 3 {
			tx := b.run(b.transfer)
			w.must(tx.err)
			b.wantOutcome(tx.id, troth.Committed)
		}
		b.wantBalances(balance-30, balance+30)
		b.wantNothingPrepared()
		w.wantClean(w.pool, 2)
	}},
	{name: "two databases roll back", needs: troth.CanPrepare, run: func(w *world) {
		b := newBank(w, 2)
		tx := b.run(func(ctx context.Context, s []Session) error {
			return errors.Join(b.transfer(ctx, s), errors.New("changed my mind"))
		})
		w.wantRolledBack(tx.err)
		b.wantBalances(balance, balance)
		b.wantNothingPrepared()
	}},
	{name: "one of two databases refuses", needs: troth.CanPrepare, run: func(w *world) {
		b := newBank(w, 2)
		for broken := range 2 {
			tx := b.run(func(ctx context.Context, s []Session) error {
				if err := b.transfer(ctx, s); err != nil {
					return err
				}
				_ = fail(ctx, s[broken])
				return nil
			})
			w.wantRolledBack(tx.err)
			b.wantBalances(balance, balance)
		}
		b.wantNothingPrepared()
	}},
	{name: "one of two databases only reads", run: func(w *world) {
		b := newBank(w, 2)
		tx := b.run(func(ctx context.Context, s []Session) error {
			if _, err := s[0].Int(ctx, "select balance from account where id = 1"); err != nil {
				return err
			}
			return add(ctx, s[1], 1, 10)
		})
		w.must(tx.err)
		b.wantBalances(balance, balance+10)
		w.wantClean(w.pool, 2)
	}},
	{name: "two databases that cannot prepare", run: func(w *world) {
		if w.f.Can&troth.CanPrepare != 0 {
			w.Skip("they can")
		}
		b := newBank(w, 2)
		tx := b.run(b.transfer)
		w.wantRolledBack(tx.err)
		b.wantBalances(balance, balance)
		w.wantClean(w.pool, 2)
	}},
	{name: "recovery finishes what another process left", needs: troth.CanPrepare | troth.CanDecide, run: recoverLeft},
	{name: "closing and opening again", run: func(w *world) {
		b := newBank(w, 1)
		w.must(b.mgr.Close(w.ctx))
		b.open()
		w.must(b.run(func(ctx context.Context, s []Session) error { return add(ctx, s[0], 1, 10) }).err)
		w.wantBalance(1, balance+10)
	}},
}

func noLockWait(f Factory) string {
	if f.SQL.LockWait == "" {
		return "the database cannot be told how long to wait for a lock"
	}
	return ""
}

// returnedError: a program returns the driver's error as it is. The transaction's
// error must still say whether a retry helps, and which database it was.
func returnedError(w *world) {
	b := newBank(w, 1)
	holder, err := w.db.Outside.BeginTx(w.ctx, nil)
	w.must(err)
	defer func() { _ = holder.Rollback() }()
	_, err = holder.ExecContext(w.ctx, "update account set balance = 1 where id = 1")
	w.must(err)
	for _, c := range []struct {
		query string
		retry bool
	}{
		{"update account set balance = 2 where id = 1", true},
		{"update nosuch set balance = 2", false},
	} {
		tx := b.run(func(ctx context.Context, s []Session) error {
			if err := s[0].Exec(ctx, w.f.SQL.LockWait); err != nil {
				return err
			}
			return s[0].Exec(ctx, c.query)
		})
		w.wantRolledBack(tx.err)
		var branch *troth.BranchError
		if !errors.As(tx.err, &branch) || branch.Resource != b.resources[0].Name() {
			w.Errorf("%s: the error does not name the database: %v", c.query, tx.err)
		}
		if troth.SafeToRetry(tx.err) != c.retry {
			w.Errorf("%s: safe to retry is %v: %v", c.query, !c.retry, tx.err)
		}
	}
}

// bank is a Manager over one or two databases.
type bank struct {
	w         *world
	mgr       *troth.Manager
	resources []troth.Resource
	worlds    []*world           // the databases, in the order of resources
	ids       map[troth.GID]bool // of the transactions that it ran
}

func newBank(w *world, databases int) *bank {
	w.Helper()
	b := &bank{w: w, worlds: []*world{w}, ids: make(map[troth.GID]bool)}
	if databases == 2 {
		b.worlds = append(b.worlds, newWorld(w.T, w.f, w.f.Open))
	}
	for i, name := range []string{"athos", "porthos"}[:databases] {
		r, pool := b.worlds[i].db.Resource(w.T, name, 4)
		b.resources = append(b.resources, r)
		b.worlds[i].pool = pool
	}
	b.open()
	return b
}

func (b *bank) open() {
	b.w.Helper()
	mgr, err := troth.Open(b.w.ctx, troth.Config{
		Domain: domain, Resources: b.resources, RecoverEvery: -1, Grace: -1,
	})
	b.w.must(err)
	b.mgr = mgr
	b.w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := mgr.Close(ctx); err != nil && !errors.Is(err, troth.ErrClosed) {
			b.w.Errorf("close manager: %v", err)
		}
	})
}

type result struct {
	id  troth.GID
	err error
}

// run runs f in a transaction in which all databases take part.
func (b *bank) run(f func(ctx context.Context, s []Session) error, opts ...troth.TxOption) result {
	var r result
	r.err = b.mgr.Run(b.w.ctx, func(ctx context.Context, tx *troth.Tx) error {
		r.id = tx.ID()
		b.ids[r.id] = true
		var sessions []Session
		for _, res := range b.resources {
			branch, err := tx.Enlist(ctx, res)
			if err != nil {
				return err
			}
			sessions = append(sessions, b.w.f.Statements(b.w.T, branch))
		}
		return f(ctx, sessions)
	}, opts...)
	return r
}

// transfer moves 10 from the first database to the second.
func (b *bank) transfer(ctx context.Context, s []Session) error {
	return errors.Join(add(ctx, s[0], 1, -10), add(ctx, s[1], 1, 10))
}

func (b *bank) wantBalances(first, second int64) {
	b.w.Helper()
	b.worlds[0].wantBalance(1, first)
	b.worlds[1].wantBalance(1, second)
}

func (b *bank) wantOutcome(id troth.GID, want troth.Outcome) {
	b.w.Helper()
	got, err := b.mgr.Outcome(b.w.ctx, id)
	if got != want || err != nil {
		b.w.Fatalf("Outcome answered %v, %v, want %v", got, err, want)
	}
}

func (b *bank) wantNothingPrepared() {
	b.w.Helper()
	list, err := b.mgr.InDoubt(b.w.ctx)
	b.w.must(err)
	for _, branch := range list {
		if branch.Ours && b.ids[branch.XID.GID] { // servers are shared with other tests
			b.w.Errorf("left prepared: %+v", branch)
		}
	}
}

func (w *world) wantRolledBack(err error) {
	w.Helper()
	if !errors.Is(err, troth.ErrRolledBack) {
		w.Fatalf("the error is %v, want ErrRolledBack", err)
	}
}

// recoverLeft leaves prepared branches as a crashed process does: one of a
// transaction that was decided in time, one of a transaction that was not.
func recoverLeft(w *world) {
	name := w.res.Name()
	place := troth.Place{Resource: name, Identity: w.res.Decisions().Identity()}
	leave := func(id int, decided bool) *branch {
		gid := troth.NewGID(domain, time.Now())
		b, err := w.beginAs(w.ctx, w.res, troth.XID{GID: gid, Place: place, Branch: 2})
		w.must(err)
		w.must(add(w.ctx, b, id, 10))
		w.mustPrepare(b)
		if decided {
			home, err := w.beginAs(w.ctx, w.res, troth.XID{GID: gid, Place: place, Branch: 1})
			w.must(err)
			w.must(add(w.ctx, home, id+1, 10))
			outcome, err := home.CommitDeciding(w.ctx, troth.Decision{
				GID: gid, Outcome: troth.Committed,
				Branches: []troth.BranchRecord{{Resource: name, Branch: 2, Evidence: b.Evidence()}},
			})
			if outcome != troth.Committed || err != nil {
				w.Fatalf("CommitDeciding answered %v, %v", outcome, err)
			}
		}
		b.Close()
		return b
	}
	committed, aborted := leave(1, true), leave(3, false)

	b := &bank{w: w, worlds: []*world{w}}
	survivor, _ := w.db.Resource(w.T, name, 4)
	b.resources = append(b.resources, survivor)
	b.open()
	w.until(func() bool {
		_, err := b.mgr.Recover(w.ctx)
		return err == nil && !w.listed(survivor, committed.xid) && !w.listed(survivor, aborted.xid)
	})
	w.wantListed(survivor, committed.xid, false)
	w.wantListed(survivor, aborted.xid, false)
	w.wantBalance(1, balance+10)
	w.wantBalance(2, balance+10)
	w.wantBalance(3, balance)
	b.wantOutcome(committed.xid.GID, troth.Committed)
	b.wantOutcome(aborted.xid.GID, troth.Aborted)
}
