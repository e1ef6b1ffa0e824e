package resourcetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
)

const (
	domain   = "conformance"
	lifeMax  = time.Hour
	patience = 2 * time.Minute // for what happens soon on an idle machine
	accounts = 40              // rows of the table account, numbered from 1
	balance  = 100             // of each account at the start
)

// world is one test's database, and one resource of it.
type world struct {
	*testing.T
	f    Factory
	db   *Database
	ctx  context.Context //nolint:containedctx // the test's own
	res  troth.Resource
	pool Session
}

func setup(t *testing.T, f Factory, c testCase) *world {
	t.Helper()
	if c.skip != nil {
		if why := c.skip(f); why != "" {
			t.Skip(why)
		}
	}
	open := f.Open
	switch {
	case c.crash:
		open = f.OpenServer
	case c.cut:
		open = f.OpenCut
	}
	if open == nil {
		t.Skip("the factory has no such database")
	}
	w := newWorld(t, f, open)
	w.res, w.pool = w.open("bank", 0)
	return w
}

func newWorld(t *testing.T, f Factory, open func(*testing.T) *Database) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	t.Cleanup(cancel)
	w := &world{T: t, f: f, db: open(t), ctx: ctx}
	w.outside("create table account (id integer primary key, balance integer not null, check (balance >= 0))")
	var rows []string
	for id := 1; id <= accounts; id++ {
		rows = append(rows, fmt.Sprintf("(%d, %d)", id, balance))
	}
	w.outside("insert into account values " + strings.Join(rows, ", "))
	return w
}

// open is another process that knows the database by that name.
func (w *world) open(name string, poolMax int) (troth.Resource, Session) {
	w.Helper()
	r, pool := w.db.Resource(w.T, name, poolMax)
	w.must(r.Open(w.ctx, w.resourceConfig()))
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			w.Errorf("close resource: %v", err)
		}
	})
	if r.Can()&^troth.OnePhaseReturns != w.f.Can { // that depends on the server
		w.Fatalf("Can() is %b, the factory says %b", r.Can(), w.f.Can)
	}
	if r.Name() != name {
		w.Fatalf("Name() is %q, want %q", r.Name(), name)
	}
	return r, pool
}

func (w *world) resourceConfig() troth.ResourceConfig {
	return troth.ResourceConfig{
		Domain: domain, Logger: slog.New(slog.DiscardHandler), NeedDecisions: true, LifeMax: lifeMax,
	}
}

// branch is a branch with its handle for statements.
type branch struct {
	troth.Branch
	Session
	xid    troth.XID
	cancel context.CancelFunc // ends BranchConfig.Context
}

// begin makes a branch of a new transaction. Its decision is in a register of
// its own.
func (w *world) begin(r troth.Resource) *branch {
	w.Helper()
	b, err := w.tryBegin(w.ctx, r, troth.NewGID(domain, time.Now()))
	w.must(err)
	return b
}

func (w *world) tryBegin(ctx context.Context, r troth.Resource, gid troth.GID) (*branch, error) {
	return w.beginAs(ctx, r, troth.XID{GID: gid, Place: troth.Place{Identity: "00000000"}, Branch: 1})
}

func (w *world) beginAs(ctx context.Context, r troth.Resource, xid troth.XID) (*branch, error) {
	life, cancel := context.WithCancel(w.ctx)
	inner, err := r.Begin(ctx, troth.BranchConfig{
		GID: xid.GID, Branch: xid.Branch, Context: life,
		XID: func() (troth.XID, error) { return xid, nil },
	})
	if err != nil {
		cancel()
		return nil, err
	}
	w.Cleanup(func() { inner.Close(); cancel() })
	return &branch{Branch: inner, Session: w.f.Statements(w.T, inner), xid: xid, cancel: cancel}, nil
}

// add is the work that most tests do.
func add(ctx context.Context, s Session, id, amount int) error {
	return s.Exec(ctx, addSQL(id, amount))
}

func addSQL(id, amount int) string {
	return fmt.Sprintf("update account set balance = balance + (%d) where id = %d", amount, id)
}

// fail is a statement that breaks the check constraint.
func fail(ctx context.Context, s Session) error { return add(ctx, s, 40, -1000) }

// prepared is a branch that added 10 to account id, and voted commit.
func (w *world) prepared(r troth.Resource, id int) *branch {
	w.Helper()
	b := w.begin(r)
	w.must(add(w.ctx, b, id, 10))
	w.mustPrepare(b)
	return b
}

func (w *world) mustPrepare(b *branch) {
	w.Helper()
	vote, err := b.Prepare(w.ctx, b.xid)
	if vote != troth.VoteCommit || err != nil {
		w.Fatalf("Prepare answered %v, %v", vote, err)
	}
	w.wantListed(w.res, b.xid, true)
}

// wantBalance looks from outside.
func (w *world) wantBalance(id int, want int64) {
	w.Helper()
	if got := w.balance(id); got != want {
		w.Fatalf("account %d has %d, want %d", id, got, want)
	}
}

func (w *world) balance(id int) int64 {
	w.Helper()
	n, err := queryInt(w.ctx, w.db.Outside, fmt.Sprintf("select balance from account where id = %d", id))
	w.must(err)
	return n
}

func (w *world) outside(query string) {
	w.Helper()
	if _, err := w.db.Outside.ExecContext(w.ctx, query); err != nil {
		w.Fatalf("%s: %v", query, err)
	}
}

func (w *world) listed(r troth.Resource, xid troth.XID) bool {
	w.Helper()
	list, err := r.Recover(w.ctx)
	w.must(err)
	_, ok := find(list, xid)
	return ok
}

// find finds a branch in a list. Its name there may tell its session too.
func find(list []troth.Prepared, xid troth.XID) (troth.XID, bool) {
	for _, p := range list {
		name := p.XID
		name.Session = ""
		if p.Ours && name == xid {
			return p.XID, true
		}
	}
	return troth.XID{}, false
}

func (w *world) wantListed(r troth.Resource, xid troth.XID, want bool) {
	w.Helper()
	if got := w.listed(r, xid); got != want {
		w.Fatalf("Recover lists %v: %v, want %v", xid, got, want)
	}
}

// finish calls Finish until it gives one of the final answers: nil,
// ErrNoEvidence, or a HeuristicError.
func (w *world) finish(r troth.Resource, b *branch, outcome troth.Outcome) error {
	var err error
	if !w.until(func() bool {
		err = r.Finish(w.ctx, b.xid, outcome, b.Evidence())
		return err == nil || errors.Is(err, troth.ErrNoEvidence) || isHeuristic(err)
	}) {
		return fmt.Errorf("no final answer from Finish: %w", err)
	}
	return err
}

func isHeuristic(err error) bool {
	var h *troth.HeuristicError
	return errors.As(err, &h)
}

// decide asks the decision table until it answers.
func (w *world) decide(r troth.Resource, d troth.Decision) (troth.Outcome, error) {
	var outcome troth.Outcome
	var err error
	w.until(func() bool {
		outcome, err = r.Decisions().Decide(w.ctx, d)
		return err == nil
	})
	return outcome, err
}

// until repeats f, which asks a database about what other sessions do, until it
// is true or patience ends.
func (w *world) until(f func() bool) bool {
	for deadline := time.Now().Add(patience); ; {
		if f() {
			return true
		}
		if time.Now().After(deadline) || w.ctx.Err() != nil {
			return false
		}
		time.Sleep(5 * time.Millisecond) // there is no signal to wait for
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// wantClean checks that the branch's end left nothing behind: a pool's session
// works at once, and its statements are not part of some open transaction.
func (w *world) wantClean(pool Session, id int) {
	w.Helper()
	before := w.balance(id)
	ctx, cancel := context.WithTimeout(w.ctx, patience/2)
	defer cancel()
	w.must(add(ctx, pool, id, 1))
	w.wantBalance(id, before+1)
}

// end rolls the branch back and checks that this can be said twice.
func (w *world) end(b *branch) {
	w.Helper()
	w.must(b.Rollback(w.ctx))
	w.must(b.Rollback(w.ctx))
	b.Close()
	b.Close()
}
