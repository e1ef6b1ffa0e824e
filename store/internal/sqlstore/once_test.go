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

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/store"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// onServers runs a test on each server that has a statement for a batch.
func onServers(t *testing.T, f func(t *testing.T, d Dialect)) {
	t.Helper()
	for _, d := range []Dialect{Postgres{}, MySQL{}} {
		t.Run(d.name(), func(t *testing.T) {
			t.Parallel()
			f(t, d)
		})
	}
}

// openOnce is a store, and a writer without a goroutine, so that a test says what is
// one batch. Both reach the server through the proxy.
func openOnce(t *testing.T, d Dialect) (*Store, *writer, *cutproxy.Proxy) {
	t.Helper()
	driver, server := "pgx", interface {
		Addr() string
		NewDatabase(tb testing.TB) string
	}(nil)
	switch d.(type) {
	case Postgres:
		server = dbtest.SharedPostgres(t, 0)
	case MySQL:
		driver, server = "mysql", dbtest.SharedMariaDB(t, 0)
	}
	proxy := cutproxy.New(t, server.Addr())
	db, err := sql.Open(driver, strings.Replace(server.NewDatabase(t), server.Addr(), proxy.Addr(), 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s, err := Open(t.Context(), d, db, ServerOptions{})
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
	w.last.ended = time.Now().Add(time.Hour) // the connection stays fresh, however slow the machine is
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

// A statement is enough for a small batch, and what is there is whole.
func TestOnceWrites(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, d Dialect) {
		s, w, _ := openOnce(t, d)
		for i := range d.onceMax() {
			if err := s.Create(t.Context(), sagaOf(fmt.Sprint("old-", i), 0, "new")); err != nil {
				t.Fatal(err)
			}
		}
		for saves := range d.onceMax() + 1 {
			ops := make([]*op, d.onceMax())
			for i := range ops {
				if i < saves {
					ops[i] = save(t, fmt.Sprint("old-", i), int64(saves-i), "changed")
				} else {
					ops[i] = create(t, fmt.Sprintf("new-%d-%d", saves, i))
				}
			}
			b, err := w.once(ops)
			if err != nil || b == nil {
				t.Fatalf("%d saves of %d: once = %v, %v, want that it is done", saves, len(ops), b, err)
			}
			for i, o := range ops {
				if b.errs[i] != nil || b.after[i] != o.version+1 {
					t.Errorf("the change of %q = %v, and it is version %d", o.gid, b.errs[i], b.after[i])
				}
				x, err := s.Get(t.Context(), o.gid)
				if err != nil {
					t.Fatal(err)
				}
				if want := sagaOf(o.gid, o.version, x.Reason); x.Version != o.version+1 || !slices.EqualFunc(x.Branches, want.Branches, sameBranch) {
					t.Errorf("%q is %+v, want version %d, and %d branches", o.gid, x, o.version+1, len(want.Branches))
				}
			}
		}
	})
}

func sameBranch(a, b store.Branch) bool { return a.ID == b.ID && a.URL == b.URL && a.Op == b.Op }

// Each change of a batch of which some have lost hears what came of it.
func TestOnceOutcomes(t *testing.T) {
	t.Parallel()
	onServers(t, testOnceOutcomes)
}

func testOnceOutcomes(t *testing.T, d Dialect) {
	s, w, _ := openOnce(t, d)
	for _, gid := range []string{"old", "other", "stale"} {
		if err := s.Create(t.Context(), sagaOf(gid, 0, "new")); err != nil {
			t.Fatal(err)
		}
	}
	ops := []*op{
		save(t, "stale", 2, "too late"), create(t, "new"), save(t, "old", 1, "changed"), create(t, "other"),
		save(t, "gone", 1, "nothing"), create(t, "fresh"),
	}
	b, err := w.commit(ops)
	if err != nil {
		t.Fatal(err)
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
	onServers(t, testOnceIsForFew)
}

func testOnceIsForFew(t *testing.T, d Dialect) {
	_, w, _ := openOnce(t, d)
	usual := func(why string, ops ...*op) {
		t.Helper()
		if b, err := w.once(ops); b != nil || err != nil {
			t.Errorf("%s: once = %v, %v, want that it did nothing", why, b, err)
		}
	}
	usual("twice the same", create(t, "a"), save(t, "a", 1, ""))
	many := make([]*op, d.onceMax()+1)
	for i := range many {
		many[i] = create(t, fmt.Sprint("many-", i))
	}
	usual("many", many...)
	large := create(t, "large")
	large.definition = make([]byte, firstMax)
	usual("large", large)
	w.session.plain = true
	usual("the server does not know it", create(t, "a"))
	w.session.plain = false
	w.last.ended = time.Now().Add(-2 * freshFor)
	usual("idle", create(t, "a"))
}

// A statement without an answer may have been carried out: nobody guesses.
func TestOnceAnswerLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		place   cutproxy.Place
		version int64
	}{"AfterAnswer": {cutproxy.AfterAnswer, 2}, "BeforeServer": {cutproxy.BeforeServer, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onServers(t, func(t *testing.T, d Dialect) { testOnceAnswerLost(t, d, c.place, c.version) })
		})
	}
}

func testOnceAnswerLost(t *testing.T, d Dialect, place cutproxy.Place, version int64) {
	s, w, proxy := openOnce(t, d)
	for _, gid := range []string{"a", "b"} {
		if err := s.Create(t.Context(), sagaOf(gid, 0, "new")); err != nil {
			t.Fatal(err)
		}
	}
	// The statement is prepared by an earlier batch, so that the cut is in its execution.
	if b, err := w.once([]*op{save(t, "b", 1, "")}); err != nil || b == nil {
		t.Fatalf("once = %v, %v", b, err)
	}
	o := save(t, "a", 1, "cut here")
	cut := proxy.Cut(place, "cut here", 1)
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
	if err != nil || x.Version != version {
		t.Fatalf("it is %+v, %v, want version %d", x, err, version)
	}
	// It goes on, on another connection.
	b, err := w.commit([]*op{save(t, "a", version, "after")})
	if err != nil || b.errs[0] != nil || b.after[0] != version+1 {
		t.Errorf("the next change = %+v, %v", b, err)
	}
}

// A statement that the server refuses has done nothing, and the usual way says why.
func TestOnceRefused(t *testing.T) {
	t.Parallel()
	onServers(t, testOnceRefused)
}

func testOnceRefused(t *testing.T, d Dialect) {
	s, w, _ := openOnce(t, d)
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
	w.write([]*op{bad, good})
	var unknown *commitError
	if bad.err == nil || errors.As(bad.err, &unknown) || good.err != nil {
		t.Errorf("the bad one = %v, the good one = %v, want the server's error and nil", bad.err, good.err)
	}
}

// A block that waits for a lock in vain has done nothing, and leaves no transaction open
// in which the usual way would go on.
func TestOnceMeetsALock(t *testing.T) {
	t.Parallel()
	s, w, _ := openOnce(t, MySQL{})
	for _, gid := range []string{"a", "b"} {
		if err := s.Create(t.Context(), sagaOf(gid, 0, "new")); err != nil {
			t.Fatal(err)
		}
	}
	other, err := s.cfg.Read.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Rollback() }()
	if _, err := other.ExecContext(t.Context(), "UPDATE troth_transaction SET reason = 'locked' WHERE gid = 'b'"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.session.execOnce(t.Context(), "SET SESSION innodb_lock_wait_timeout = 1"); err != nil {
		t.Fatal(err)
	}
	ops := []*op{create(t, "new"), save(t, "a", 1, "changed"), save(t, "b", 1, "changed")}
	if b, err := w.once(ops); b != nil || err != nil {
		t.Fatalf("once = %+v, %v, want that the usual way is to write it", b, err)
	}
	if w.session == nil {
		t.Fatal("the connection is gone")
	}
	if n, err := queryAll(t.Context(), w.session, scanNumber, "SELECT @@in_transaction"); err != nil || len(n) != 1 || n[0] != 0 {
		t.Errorf("in a transaction: %v, %v", n, err)
	}
	if _, err := s.Get(t.Context(), "new"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of the new one = %v, want ErrNotFound", err)
	}
	if err := other.Rollback(); err != nil {
		t.Fatal(err)
	}
	b, err := w.commit(ops)
	if err != nil || slices.ContainsFunc(b.errs, func(err error) bool { return err != nil }) {
		t.Errorf("when nobody is in the way: %+v, %v", b, err)
	}
}

// On MariaDB a small batch is one round trip.
func TestOnceIsOneTrip(t *testing.T) {
	t.Parallel()
	s, w, _ := openOnce(t, MySQL{})
	if err := s.Create(t.Context(), sagaOf("a", 0, "new")); err != nil {
		t.Fatal(err)
	}
	version := int64(1)
	batch := func() []*op { // of a shape that comes again, so that it is prepared once
		version++
		return []*op{save(t, "a", version-1, "changed"), create(t, fmt.Sprint("new-", version))}
	}
	questions := func() int64 { // that the server heard on this connection, but for those that prepare
		n, err := queryAll(t.Context(), w.session, scanNumber, "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'QUESTIONS'")
		if err != nil || len(n) != 1 {
			t.Fatalf("the server's count is %v, %v", n, err)
		}
		return n[0]
	}
	if _, err := w.commit(batch()); err != nil {
		t.Fatal(err)
	}
	before := questions()
	for range 10 {
		if b, err := w.commit(batch()); err != nil || b.errs[0] != nil || b.errs[1] != nil {
			t.Fatalf("commit = %+v, %v", b, err)
		}
	}
	if n := questions() - before; n != 10+1 { // one is the question itself
		t.Errorf("10 batches took %d statements", n-1)
	}
}
