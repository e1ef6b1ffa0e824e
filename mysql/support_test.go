package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

const (
	domain     = "test"
	longEnough = 2 * time.Minute // for what happens soon on an idle machine
)

// kinds are what most tests run on: a step at a time, as few round trips as
// possible, and the same on a server with a binary log, which prepares in another
// way.
var kinds = map[string]struct {
	params string
	logBin bool
}{
	"plain":      {},
	"joined":     {params: "multiStatements=true&interpolateParams=true"},
	"binary log": {params: "multiStatements=true&interpolateParams=true", logBin: true},
}

// logged is the server with a binary log that tests share while any of them runs.
var logged struct {
	mu     sync.Mutex
	server *dbtest.MariaDB
	users  int
}

func sharedServer(t *testing.T, logBin bool) *dbtest.MariaDB {
	t.Helper()
	if !logBin {
		return dbtest.SharedMariaDB(t, 0)
	}
	logged.mu.Lock()
	defer logged.mu.Unlock()
	if logged.server == nil {
		server, err := dbtest.StartMariaDB(t.Context(), dbtest.MariaDBConfig{LogBin: true})
		if err != nil {
			t.Fatal(err)
		}
		logged.server = server
	}
	logged.users++
	t.Cleanup(func() {
		logged.mu.Lock()
		defer logged.mu.Unlock()
		if logged.users--; logged.users > 0 {
			return
		}
		if err := logged.server.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
		logged.server = nil
	})
	return logged.server
}

// world is a schema with a table t(id, v) of rows 1 to 9, v = 0, and a resource.
type world struct {
	*testing.T
	ctx     context.Context //nolint:containedctx // the test's own
	server  *dbtest.MariaDB
	params  string
	dsn     string
	outside *sql.DB // an administrator's
	pool    *sql.DB // the resource's
	res     *Resource
}

// eachKind runs a test once for each kind, on a shared server.
func eachKind(t *testing.T, f func(w *world)) {
	t.Parallel()
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := sharedServer(t, kind.logBin)
			w := newWorld(t, withParams(server.NewDatabase(t), kind.params))
			w.server, w.params = server, kind.params
			f(w)
		})
	}
}

func withParams(dsn, params string) string {
	switch {
	case params == "":
		return dsn
	case strings.Contains(dsn, "?"):
		return dsn + "&" + params
	}
	return dsn + "?" + params
}

func newWorld(t *testing.T, dsn string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*longEnough)
	t.Cleanup(cancel)
	w := &world{T: t, ctx: ctx, dsn: dsn, outside: openDB(t, dsn)}
	w.exec("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL) ENGINE = InnoDB")
	w.exec("INSERT INTO t VALUES (1,0), (2,0), (3,0), (4,0), (5,0), (6,0), (7,0), (8,0), (9,0)")
	w.res, w.pool = w.resource("porthos", dsn, true)
	return w
}

func openDB(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = &mysql.NopLogger{} // broken connections are what many tests are about
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// resource opens a resource as another process would.
func (w *world) resource(name, dsn string, decisions bool, configure ...func(*sql.DB)) (*Resource, *sql.DB) {
	w.Helper()
	db := openDB(w.T, dsn)
	for _, f := range configure {
		f(db)
	}
	r := New(name, db)
	w.must(r.Open(w.ctx, resourceConfig(decisions)))
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), longEnough)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			w.Errorf("close resource: %v", err)
		}
	})
	return r, db
}

func resourceConfig(decisions bool) troth.ResourceConfig {
	return troth.ResourceConfig{
		Domain: domain, Logger: slog.New(slog.DiscardHandler), NeedDecisions: decisions, LifeMax: time.Hour,
	}
}

// testBranch is a branch with its handle.
type testBranch struct {
	*branch
	xid    troth.XID
	db     *sql.DB
	cancel context.CancelFunc
}

func newXID() troth.XID {
	return troth.XID{GID: troth.NewGID(domain, time.Now()), Place: troth.Place{Identity: "00000000"}, Branch: 1}
}

func (w *world) begin(r *Resource) *testBranch {
	w.Helper()
	return w.beginWith(r, newXID(), sql.LevelDefault)
}

func (w *world) beginAt(r *Resource, level sql.IsolationLevel) *testBranch {
	w.Helper()
	return w.beginWith(r, newXID(), level)
}

func (w *world) beginWith(r *Resource, xid troth.XID, level sql.IsolationLevel) *testBranch {
	w.Helper()
	life, cancel := context.WithCancel(w.ctx)
	b, err := r.Begin(w.ctx, troth.BranchConfig{
		GID: xid.GID, Branch: xid.Branch, Context: life, Isolation: level,
		XID: func() (troth.XID, error) { return xid, nil },
	})
	if err != nil {
		cancel()
		w.Fatal(err)
	}
	w.Cleanup(func() { b.Close(); cancel() })
	inner := b.(*branch)
	xid.Session = inner.thread.session()
	return &testBranch{branch: inner, xid: xid, db: inner.session.DB(), cancel: cancel}
}

func (b *testBranch) add(ctx context.Context, id int) error {
	_, err := b.db.ExecContext(ctx, "UPDATE t SET v = v + 1 WHERE id = ?", id)
	return err
}

// prepared is a branch that added one to row id and voted commit.
func (w *world) prepared(r *Resource, id int) *testBranch {
	w.Helper()
	b := w.begin(r)
	w.must(b.add(w.ctx, id))
	w.mustPrepare(b)
	return b
}

func (w *world) mustPrepare(b *testBranch) {
	w.Helper()
	if vote, err := b.Prepare(w.ctx, b.xid); vote != troth.VoteCommit || err != nil {
		w.Fatalf("Prepare answered %v, %v", vote, err)
	}
}

func (w *world) decision(b *testBranch) troth.Decision {
	return troth.Decision{GID: b.xid.GID, Outcome: troth.Committed}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) exec(query string) {
	w.Helper()
	if _, err := w.outside.ExecContext(w.ctx, query); err != nil {
		w.Fatalf("%s: %v", query, err)
	}
}

func (w *world) wantValue(id, want int) {
	w.Helper()
	if got := w.int("SELECT v FROM t WHERE id = ?", id); got != want {
		w.Fatalf("row %d has %d, want %d", id, got, want)
	}
}

func (w *world) int(query string, args ...any) int {
	w.Helper()
	var n int
	if err := w.outside.QueryRowContext(w.ctx, query, args...).Scan(&n); err != nil {
		w.Fatalf("%s: %v", query, err)
	}
	return n
}

func (w *world) listed(r *Resource, xid troth.XID) bool {
	w.Helper()
	list, err := r.Recover(w.ctx)
	w.must(err)
	return slices.ContainsFunc(list, func(p troth.Prepared) bool { return p.Ours && (p.XID == xid || bare(p.XID) == xid) })
}

func (w *world) wantListed(xid troth.XID, want bool) {
	w.Helper()
	if got := w.listed(w.res, xid); got != want {
		w.Fatalf("listed %v: %v, want %v", xid, got, want)
	}
}

// wantClean runs a statement on every session that the pool has, and sees that
// each commits at once.
func (w *world) wantClean(pool *sql.DB) {
	w.Helper()
	n := max(1, pool.Stats().Idle)
	var conns []*sql.Conn
	for range n {
		c, err := pool.Conn(w.ctx)
		w.must(err)
		conns = append(conns, c)
	}
	for _, c := range conns {
		before := w.int("SELECT v FROM t WHERE id = 9")
		_, err := c.ExecContext(w.ctx, "UPDATE t SET v = v + 1 WHERE id = 9")
		w.must(err)
		w.wantValue(9, before+1)
		w.must(c.Close())
	}
}

// until repeats f, which asks a server about what other sessions do.
func (w *world) until(what string, f func() bool) {
	w.Helper()
	for deadline := time.Now().Add(longEnough); !f(); {
		if time.Now().After(deadline) {
			w.Fatalf("in vain: wait until %s", what)
		}
		time.Sleep(2 * time.Millisecond) // there is no signal to wait for
	}
}

// kill ends a session in the server and waits until it is gone.
func (w *world) kill(t thread) {
	w.Helper()
	w.exec(killSession(t.id))
	w.until("the session is gone", func() bool { return w.session(t) == nil })
}

// session is what the server shows of a session, nil if it is gone.
func (w *world) session(t thread) *process {
	w.Helper()
	c, err := w.outside.Conn(w.ctx)
	w.must(err)
	defer func() { _ = c.Close() }()
	list, err := processes(w.ctx, c)
	w.must(err)
	for _, p := range list {
		if p.id == t.id {
			return &p
		}
	}
	return nil
}

// finish calls Finish until it gives a final answer.
func (w *world) finish(r *Resource, b *testBranch, outcome troth.Outcome, evidence string) error {
	w.Helper()
	var err error
	for deadline := time.Now().Add(longEnough); time.Now().Before(deadline); {
		if err = r.Finish(w.ctx, b.xid, outcome, evidence); err == nil || isFinal(err) {
			return err
		}
		time.Sleep(2 * time.Millisecond) // there is no signal to wait for
	}
	return fmt.Errorf("no final answer from Finish within %v: %w", longEnough, err)
}

// throughProxy returns a proxy to the server of dsn, and the DSN through it.
func throughProxy(t *testing.T, dsn string) (*cutproxy.Proxy, string) {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	p := cutproxy.New(t, cfg.Addr)
	cfg.Addr = p.Addr()
	return p, cfg.FormatDSN()
}
