package sqlite_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/sqlite"
)

const domain = "sqlite"

// home is an open resource over a file, and a look at it from outside.
type home struct {
	*testing.T
	res     *sqlite.Resource
	db      *sql.DB // the resource's pool, of one session beside the reserve
	outside *sql.DB
}

func newHome(t *testing.T, params string, opts ...sqlite.Option) *home {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bank.db")
	h := &home{T: t, db: openDB(t, path, params), outside: openDB(t, path, "_pragma=busy_timeout(10000)&"+params)}
	h.db.SetMaxOpenConns(1)
	h.exec(h.outside, "create table account (id integer primary key, balance integer not null)")
	h.exec(h.outside, "insert into account values (1, 100), (2, 100)")
	h.res = sqlite.New("aramis", h.db, opts...)
	h.openResource(time.Hour)
	return h
}

func (h *home) openResource(lifeMax time.Duration) {
	h.Helper()
	h.must(h.res.Open(h.Context(), resourceConfig(lifeMax)))
	h.Cleanup(func() { _ = h.res.Close(context.Background()) }) // a second time, for tests that open twice
}

func resourceConfig(lifeMax time.Duration) troth.ResourceConfig {
	return troth.ResourceConfig{Domain: domain, Logger: slog.New(slog.DiscardHandler), NeedDecisions: true, LifeMax: lifeMax}
}

func (h *home) begin() (troth.Branch, *sql.DB, troth.Decision) {
	h.Helper()
	gid := troth.NewGID(domain, time.Now())
	b, err := h.res.Begin(h.Context(), troth.BranchConfig{GID: gid, Branch: 1, Context: h.Context()})
	h.must(err)
	h.Cleanup(b.Close)
	return b, b.(branchDB).DB(), troth.Decision{GID: gid, Outcome: troth.Committed}
}

func (h *home) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *home) exec(db *sql.DB, query string) {
	h.Helper()
	if _, err := db.ExecContext(h.Context(), query); err != nil {
		h.Fatalf("%s: %v", query, err)
	}
}

func (h *home) number(db *sql.DB, query string) int64 {
	h.Helper()
	var n int64
	if err := db.QueryRowContext(h.Context(), query).Scan(&n); err != nil {
		h.Fatalf("%s: %v", query, err)
	}
	return n
}

func (h *home) wantNumber(db *sql.DB, query string, want int64) {
	h.Helper()
	if got := h.number(db, query); got != want {
		h.Fatalf("%s: %d, want %d", query, got, want)
	}
}

func (h *home) wantAborted(b troth.Branch, d troth.Decision, why string) {
	h.Helper()
	outcome, err := b.CommitDeciding(h.Context(), d)
	if outcome != troth.Aborted || err == nil || !strings.Contains(err.Error(), why) {
		h.Fatalf("CommitDeciding answered %v, %v, want Aborted because of %q", outcome, err, why)
	}
	h.wantNumber(h.outside, "select count(*) from troth_decision where gid = '"+string(d.GID)+"'", 0)
	h.wantNumber(h.outside, "select balance from account where id = 1", 100)
}

func (h *home) wantCommitted(b troth.Branch, d troth.Decision) {
	h.Helper()
	if outcome, err := b.CommitDeciding(h.Context(), d); outcome != troth.Committed || err != nil {
		h.Fatalf("CommitDeciding answered %v, %v", outcome, err)
	}
	h.wantNumber(h.outside, "select count(*) from troth_decision where gid = '"+string(d.GID)+"' and outcome = 'commit'", 1)
}

const add10 = "update account set balance = balance + 10 where id = 1"

// SQLite may roll back a whole transaction because of one statement. What
// follows runs outside of it, and so would the record of the decision.
func TestTransactionRolledBackByItself(t *testing.T) {
	t.Parallel()
	t.Run("the error is noticed", func(t *testing.T) {
		h := newHome(t, "")
		b, db, d := h.begin()
		h.exec(db, add10)
		if _, err := db.ExecContext(t.Context(), "insert or rollback into account values (2, 0)"); err == nil {
			t.Fatal("no conflict")
		}
		_, _ = db.ExecContext(t.Context(), add10)
		h.wantAborted(b, d, "UNIQUE")
	})
	t.Run("a savepoint does not repair it", func(t *testing.T) {
		h := newHome(t, "")
		b, db, d := h.begin()
		h.exec(db, add10)
		tx, err := db.BeginTx(t.Context(), nil)
		h.must(err)
		if _, err := tx.ExecContext(t.Context(), "insert or rollback into account values (2, 0)"); err == nil {
			t.Fatal("no conflict")
		}
		_ = tx.Rollback()
		_, _ = db.ExecContext(t.Context(), add10)
		h.wantAborted(b, d, "")
	})
	t.Run("nobody notices", func(t *testing.T) {
		h := newHome(t, "")
		spy := &spy{inner: h.db.Driver(), dsn: "file:" + filepath.Join(t.TempDir(), "spied.db")}
		h.db = sql.OpenDB(spy)
		t.Cleanup(func() { _ = h.db.Close() })
		h.outside = h.db
		h.exec(h.db, "create table account (id integer primary key, balance integer not null)")
		h.exec(h.db, "insert into account values (1, 100)")
		h.res = sqlite.New("aramis", h.db)
		h.openResource(time.Hour)
		b, db, d := h.begin()
		h.exec(db, add10)
		for _, conn := range spy.conns { // one of them is the branch's
			_, _ = conn.(driver.ExecerContext).ExecContext(t.Context(), "rollback", nil)
		}
		h.wantAborted(b, d, "ended before its time")
	})
}

// spy keeps the connections that it makes.
type spy struct {
	inner driver.Driver
	dsn   string
	conns []driver.Conn
}

func (s *spy) Driver() driver.Driver { return s.inner }

func (s *spy) Connect(context.Context) (driver.Conn, error) {
	c, err := s.inner.Open(s.dsn)
	s.conns = append(s.conns, c)
	return c, err
}

func TestSessionSettings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, params           string
		busyIn, syncIn         int64 // while the branch is on the session
		busyAround, syncAround int64
	}{
		{"wal, all default", "_pragma=journal_mode(wal)", 5000, 2, 0, 2},
		{"wal, lax", "_pragma=journal_mode(wal)&_pragma=synchronous(normal)&_pragma=busy_timeout(77)", 77, 2, 77, 1},
		{"journal, all default", "_pragma=journal_mode(delete)", 5000, 3, 0, 2},
		{"journal, off", "_pragma=journal_mode(truncate)&_pragma=synchronous(off)", 5000, 3, 0, 0},
		{"journal, strict", "_pragma=journal_mode(persist)&_pragma=synchronous(extra)", 5000, 3, 0, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newHome(t, test.params)
			around := func() {
				h.Helper()
				h.wantNumber(h.db, "PRAGMA busy_timeout", test.busyAround)
				h.wantNumber(h.db, "PRAGMA synchronous", test.syncAround)
			}
			around()
			for _, commit := range []bool{true, false} {
				b, db, d := h.begin()
				h.exec(db, add10)
				h.wantNumber(db, "PRAGMA busy_timeout", test.busyIn)
				h.wantNumber(db, "PRAGMA synchronous", test.syncIn)
				if commit {
					h.wantCommitted(b, d)
				} else {
					h.must(b.Rollback(t.Context()))
				}
				around()
			}
		})
	}
}

func TestBusyTimeoutEndsWithTheTransaction(t *testing.T) {
	t.Parallel()
	h := newHome(t, "")
	for range 20 { // the machine may be too busy to ask in time
		life, cancel := context.WithTimeout(t.Context(), 4*time.Second) // the default is five
		b, err := h.res.Begin(t.Context(), troth.BranchConfig{GID: troth.NewGID(domain, time.Now()), Branch: 1, Context: life})
		var got int64
		if err == nil {
			err = b.(branchDB).DB().QueryRowContext(t.Context(), "PRAGMA busy_timeout").Scan(&got)
			b.Close()
		}
		late := life.Err() != nil
		cancel()
		if late {
			continue
		}
		if err != nil || got <= 0 || got > 4000 {
			t.Errorf("busy_timeout is %d ms with 4 s to go: %v", got, err)
		}
		return
	}
	t.Error("no branch was asked within four seconds")
}

// Without a write-ahead log a reader keeps COMMIT from the file.
func TestCommitWaitsForReaders(t *testing.T) {
	t.Parallel()
	h := newHome(t, "_pragma=journal_mode(delete)&_pragma=busy_timeout(10)")
	reader, err := h.outside.BeginTx(t.Context(), nil)
	h.must(err)
	read := func() {
		var n int64
		h.must(reader.QueryRowContext(t.Context(), "select balance from account where id = 1").Scan(&n))
	}

	read()
	b, db, d := h.begin()
	h.exec(db, add10)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // in which it tries at least once
	defer cancel()
	outcome, err := b.CommitDeciding(ctx, d)
	if outcome != troth.Aborted || err == nil {
		t.Fatalf("CommitDeciding answered %v, %v", outcome, err)
	}
	var be *troth.BranchError
	if !errors.As(err, &be) || !be.Transient {
		t.Fatalf("a busy file is worth another try: %v", err)
	}
	read() // still there, still the old balance

	b, db, d = h.begin()
	h.exec(db, add10)
	time.AfterFunc(200*time.Millisecond, func() { _ = reader.Rollback() })
	h.wantCommitted(b, d)
	h.wantNumber(h.outside, "select balance from account where id = 1", 110)
}

func TestDeferred(t *testing.T) {
	t.Parallel()
	h := newHome(t, "_pragma=journal_mode(wal)", sqlite.Deferred())
	b, db, d := h.begin()
	h.number(db, "select balance from account where id = 1")
	h.exec(h.outside, "update account set balance = 7 where id = 2") // the branch holds no write lock
	_, err := db.ExecContext(t.Context(), add10)
	if err == nil || !strings.Contains(err.Error(), "locked") {
		t.Fatalf("a stale snapshot could be written: %v", err)
	}
	h.wantAborted(b, d, "locked")
}

// R5: a branch older than LifeMax must not decide, whoever let it sleep.
func TestTooOldToDecide(t *testing.T) {
	t.Parallel()
	h := newHome(t, "")
	h.must(h.res.Close(t.Context()))
	h.openResource(time.Nanosecond)
	b, db, d := h.begin()
	h.exec(db, add10)
	h.wantAborted(b, d, "LifeMax")
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, dsn, subject string
		prepare            string // run on the session
	}{
		{name: "memory", dsn: "file:refused?mode=memory&cache=shared", subject: "database file"},
		{name: "journal off", dsn: "file:DIR/off.db?_pragma=journal_mode(off)", subject: "journal_mode"},
		{name: "journal in memory", dsn: "file:DIR/mem.db?_pragma=journal_mode(memory)", subject: "journal_mode"},
		{name: "exclusive", dsn: "file:DIR/excl.db?_pragma=locking_mode(exclusive)", subject: "locking_mode"},
		{name: "query only", dsn: "file:DIR/q.db?_pragma=query_only(1)", subject: "query_only"},
		{
			name: "attached", dsn: "file:DIR/a.db?_pragma=journal_mode(wal)", subject: "attached databases",
			prepare: "attach 'DIR/b.db' as b",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			db, err := sql.Open("sqlite", strings.ReplaceAll(test.dsn, "DIR", dir))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close() //nolint:errcheck // nothing is lost
			db.SetMaxOpenConns(1)
			if test.prepare != "" {
				if _, err := db.ExecContext(t.Context(), strings.ReplaceAll(test.prepare, "DIR", dir)); err != nil {
					t.Fatal(err)
				}
			}
			r := sqlite.New("aramis", db)
			err = r.Open(t.Context(), resourceConfig(time.Hour))
			if err == nil || !strings.Contains(err.Error(), `sqlite.Allow("`+test.subject+`")`) {
				t.Fatalf("Open answered %v, want a refusal that names %q", err, test.subject)
			}
			_ = r.Close(t.Context())

			findings, err := r.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fatal := 0
			for _, f := range findings {
				if f.Severity == troth.FindingFatal {
					fatal++
					if f.Subject != test.subject || f.Why == "" || f.Fix == "" {
						t.Errorf("finding %+v", f)
					}
				}
			}
			if fatal != 1 {
				t.Errorf("%d fatal findings in %+v", fatal, findings)
			}
		})
	}
}

func TestAllowMemory(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", "file:allowed?mode=memory&cache=shared")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // nothing is lost
	h := &home{T: t, db: db, outside: db, res: sqlite.New("aramis", db, sqlite.Allow("database file"))}
	h.exec(db, "create table account (id integer primary key, balance integer not null)")
	h.exec(db, "insert into account values (1, 100)")
	h.openResource(time.Hour)
	b, handle, d := h.begin()
	h.exec(handle, add10)
	h.wantCommitted(b, d)
}

// Attaching later, in the branch itself, is found out before the decision.
func TestAttachedInBranch(t *testing.T) {
	t.Parallel()
	h := newHome(t, "_pragma=journal_mode(wal)")
	b, db, d := h.begin()
	h.exec(db, add10)
	other := filepath.Join(t.TempDir(), "other.db")
	if _, err := db.ExecContext(t.Context(), "attach '"+other+"' as other"); err != nil {
		t.Skipf("this SQLite attaches nothing inside a transaction: %v", err)
	}
	h.wantAborted(b, d, "attached databases")
}

func TestCheckNotesPermissions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "it's open.db")
	db := openDB(t, path, "_pragma=journal_mode(wal)")
	if _, err := db.ExecContext(t.Context(), "create table t (a)"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	findings, err := sqlite.New("aramis", db).Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bySubject := make(map[string]troth.Finding)
	for _, f := range findings {
		bySubject[f.Subject] = f
	}
	if f := bySubject["file permissions"]; f.Severity != troth.FindingWarning || !strings.Contains(f.Fix, `'\''`) {
		t.Errorf("permissions: %+v", f)
	}
	if f := bySubject["journal_mode"]; f.Severity != troth.FindingOK || f.Found != "wal" {
		t.Errorf("journal: %+v", f)
	}
	if f := bySubject["busy_timeout"]; f.Severity != troth.FindingNote {
		t.Errorf("busy timeout: %+v", f)
	}
	if f := bySubject["foreign_keys"]; f.Severity != troth.FindingNote {
		t.Errorf("foreign keys: %+v", f)
	}
}
