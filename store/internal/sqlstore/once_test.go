package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/store"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// openOnce is a store, and a writer without a goroutine, so that a test says what is
// one batch. Both reach the server through the proxy.
func openOnce(t *testing.T) (*Store, *writer, *cutproxy.Proxy) {
	t.Helper()
	server := dbtest.SharedPostgres(t, 0)
	proxy := cutproxy.New(t, server.Addr())
	db, err := sql.Open("pgx", strings.Replace(server.NewDatabase(t), server.Addr(), proxy.Addr(), 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s, err := Open(t.Context(), Postgres{}, db, ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{store: s}
	t.Cleanup(func() {
		w.drop()
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := w.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.reserve(100); err != nil {
		t.Fatal(err)
	}
	w.last.ended = time.Now()
	return s, w, proxy
}

func sagaOf(gid string, version int64, reason string) *store.Transaction {
	t := &store.Transaction{
		GID: gid, Pattern: store.Saga, State: store.Submitted, Version: version, Reason: reason,
		Created: time.Unix(1, 0).UTC(), Updated: time.Unix(2, 0).UTC(), Due: time.Unix(3, 0).UTC(),
	}
	for i := range version + 1 { // a branch more with every version
		t.Branches = append(t.Branches, store.Branch{ID: fmt.Sprint(i), URL: "http://a", Op: store.Action, State: store.BranchPrepared})
	}
	return t
}

func create(t *testing.T, gid string) *op {
	t.Helper()
	o, err := newCreate(sagaOf(gid, 0, "new"))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func save(t *testing.T, gid string, version int64, reason string) *op {
	t.Helper()
	o, err := newSave(sagaOf(gid, version, reason), int(version))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// One statement tells each of its changes what came of it, and what is there is whole.
func TestOnceOutcomes(t *testing.T) {
	t.Parallel()
	s, w, _ := openOnce(t)
	for _, gid := range []string{"old", "other", "stale"} {
		if err := s.Create(t.Context(), sagaOf(gid, 0, "new")); err != nil {
			t.Fatal(err)
		}
	}
	ops := []*op{
		save(t, "stale", 2, "too late"), create(t, "new"), save(t, "old", 1, "changed"), create(t, "other"),
		save(t, "gone", 1, "nothing"), create(t, "fresh"),
	}
	b, err := w.once(ops)
	if err != nil || b == nil {
		t.Fatalf("once = %v, %v, want that it is done", b, err)
	}
	want := []error{store.ErrConflict, nil, nil, store.ErrExists, store.ErrNotFound, nil}
	for i, err := range b.errs {
		if !errors.Is(err, want[i]) {
			t.Errorf("the change of %q = %v, want %v", ops[i].gid, err, want[i])
		}
	}
	if want := []int64{0, 1, 2, 0, 0, 1}; !slices.Equal(b.after, want) {
		t.Errorf("the versions are %d, want %d", b.after, want)
	}
	for gid, want := range map[string]struct {
		version  int64
		reason   string
		branches int
	}{"new": {1, "new", 1}, "fresh": {1, "new", 1}, "old": {2, "changed", 2}, "other": {1, "new", 1}, "stale": {1, "new", 1}} {
		x, err := s.Get(t.Context(), gid)
		if err != nil {
			t.Errorf("Get of %q: %v", gid, err)
		} else if x.Version != want.version || x.Reason != want.reason || len(x.Branches) != want.branches {
			t.Errorf("%q is %+v, want %+v", gid, x, want)
		}
	}
	if _, err := s.Get(t.Context(), "gone"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of what was not there = %v, want ErrNotFound", err)
	}
	var orphans int
	err = s.cfg.Read.QueryRowContext(t.Context(), "SELECT count(*) FROM troth_definition WHERE seq NOT IN (SELECT seq FROM troth_transaction)").Scan(&orphans)
	if err != nil || orphans != 0 {
		t.Errorf("%d definitions have no transaction, %v", orphans, err)
	}
}

// What goes the usual way: changes that follow each other, a connection that may have
// died, and more than a statement should have.
func TestOnceIsForFew(t *testing.T) {
	t.Parallel()
	_, w, _ := openOnce(t)
	usual := func(why string, ops ...*op) {
		t.Helper()
		if b, err := w.once(ops); b != nil || err != nil {
			t.Errorf("%s: once = %v, %v, want that it did nothing", why, b, err)
		}
	}
	usual("twice the same", create(t, "a"), save(t, "a", 1, ""))
	many := make([]*op, onceMax+1)
	for i := range many {
		many[i] = create(t, fmt.Sprint("many-", i))
	}
	usual("many", many...)
	large := create(t, "large")
	large.definition = make([]byte, firstMax)
	usual("large", large)
	w.last.ended = time.Now().Add(-2 * freshFor)
	usual("idle", create(t, "a"))
}

// A statement without an answer may have been carried out: nobody guesses.
func TestOnceAnswerLost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		place   cutproxy.Place
		version int64
	}{{"AfterAnswer", cutproxy.AfterAnswer, 2}, {"BeforeServer", cutproxy.BeforeServer, 1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, w, proxy := openOnce(t)
			if err := s.Create(t.Context(), sagaOf("a", 0, "new")); err != nil {
				t.Fatal(err)
			}
			o := save(t, "a", 1, "cut here")
			// The statement is prepared by an earlier batch, so that the cut is in its execution.
			if b, err := w.once([]*op{save(t, "none", 1, "")}); err != nil || b == nil {
				t.Fatalf("once = %v, %v", b, err)
			}
			cut := proxy.Cut(c.place, "cut here", 1)
			_, err := w.commit([]*op{o})
			<-cut
			var unknown *commitError
			if !errors.As(err, &unknown) {
				t.Errorf("commit = %v, want that the outcome is not known", err)
			}
			if w.session != nil {
				t.Error("the connection is kept")
			}
			x, err := s.Get(t.Context(), "a")
			if err != nil || x.Version != c.version {
				t.Fatalf("it is %+v, %v, want version %d", x, err, c.version)
			}
			// It goes on, on another connection.
			b, err := w.commit([]*op{save(t, "a", c.version, "after")})
			if err != nil || b.errs[0] != nil || b.after[0] != c.version+1 {
				t.Errorf("the next change = %+v, %v", b, err)
			}
		})
	}
}

// A statement that the server refuses has done nothing, and the usual way says why.
func TestOnceRefused(t *testing.T) {
	t.Parallel()
	s, w, _ := openOnce(t)
	if _, err := s.cfg.Read.ExecContext(t.Context(), "ALTER TABLE troth_transaction ADD CHECK (reason <> 'refused')"); err != nil {
		t.Fatal(err)
	}
	bad, good := save(t, "a", 1, "refused"), create(t, "b")
	if err := s.Create(t.Context(), sagaOf("a", 0, "new")); err != nil {
		t.Fatal(err)
	}
	session := w.session
	if b, err := w.once([]*op{bad, good}); b != nil || err != nil || w.session != session {
		t.Fatalf("once = %v, %v, want that it did nothing, and the connection is kept", b, err)
	}
	if _, err := s.Get(t.Context(), "b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of what was beside it = %v, want ErrNotFound", err)
	}
	w.last.ended = time.Now()
	w.write([]*op{bad, good})
	var unknown *commitError
	if bad.err == nil || errors.As(bad.err, &unknown) || good.err != nil {
		t.Errorf("the bad one = %v, the good one = %v, want the server's error and nil", bad.err, good.err)
	}
}
