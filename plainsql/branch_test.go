package plainsql_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/plainsql"
)

const domain = "plain"

func resourceConfig(lifeMax time.Duration) troth.ResourceConfig {
	return troth.ResourceConfig{Domain: domain, Logger: slog.New(slog.DiscardHandler), NeedDecisions: true, LifeMax: lifeMax}
}

// home is an open resource over a database with one account.
type home struct {
	*testing.T
	res *plainsql.Resource
	db  *sql.DB
	spy *spy
}

func newHome(t *testing.T, dialect plainsql.Dialect, drv, dsn string) *home {
	t.Helper()
	s := &spy{inner: open(t, drv, dsn).Driver(), dsn: dsn}
	h := &home{T: t, db: sql.OpenDB(s), spy: s}
	t.Cleanup(func() { must(t, h.db.Close()) })
	h.exec(h.db, "create table account (id integer primary key, balance integer not null)")
	h.exec(h.db, "insert into account values (1, 100)")
	h.res = plainsql.New("plain", h.db, dialect)
	must(t, h.res.Open(t.Context(), resourceConfig(time.Hour)))
	t.Cleanup(func() { must(t, h.res.Close(context.Background())) })
	return h
}

func (h *home) begin(level sql.IsolationLevel) (troth.Branch, *sql.DB, troth.Decision) {
	h.Helper()
	gid := troth.NewGID(domain, time.Now())
	b, err := h.res.Begin(h.Context(), troth.BranchConfig{GID: gid, Branch: 1, Context: h.Context(), Isolation: level})
	must(h.T, err)
	h.Cleanup(b.Close)
	return b, b.(branchDB).DB(), troth.Decision{GID: gid, Outcome: troth.Committed}
}

func (h *home) exec(db *sql.DB, query string) {
	h.Helper()
	if _, err := db.ExecContext(h.Context(), query); err != nil {
		h.Fatalf("%s: %v", query, err)
	}
}

func (h *home) want(db *sql.DB, query, want string) {
	h.Helper()
	var got string
	if err := db.QueryRowContext(h.Context(), query).Scan(&got); err != nil {
		h.Fatalf("%s: %v", query, err)
	}
	if got != want {
		h.Fatalf("%s: %s, want %s", query, got, want)
	}
}

func (h *home) wantAborted(b troth.Branch, d troth.Decision, why string) {
	h.Helper()
	outcome, err := b.CommitDeciding(h.Context(), d)
	if outcome != troth.Aborted || err == nil || !strings.Contains(err.Error(), why) {
		h.Fatalf("CommitDeciding answered %v, %v, want Aborted because of %q", outcome, err, why)
	}
	h.want(h.db, "select count(*) from troth_decision", "0")
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
	if err == nil {
		s.conns = append(s.conns, c)
	}
	return c, err
}

const add10 = "update account set balance = balance + 10 where id = 1"

// The record of a transaction that ended behind our back would be committed by
// itself.
func TestTransactionGone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, driver, dsn, why string
		dialect                plainsql.Dialect
	}{
		{"pgx", "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t), "division by zero", plainsql.PostgreSQL},
		{"pq", "postgres", dbtest.SharedPostgres(t, 0).NewDatabase(t), "division by zero", plainsql.PostgreSQL},
		{"mariadb", "mysql", dbtest.SharedMariaDB(t, 0).NewDatabase(t), "ended before its time", plainsql.MySQL},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newHome(t, test.dialect, test.driver, test.dsn)
			b, db, d := h.begin(sql.LevelDefault)
			h.exec(db, add10)
			for _, conn := range h.spy.conns { // one of them is the branch's
				_, _ = conn.(driver.ExecerContext).ExecContext(t.Context(), "rollback", nil)
			}
			h.wantAborted(b, d, test.why)
			h.want(h.db, "select balance from account where id = 1", "100")
		})
	}
}

func TestPostgresSettings(t *testing.T) {
	t.Parallel()
	dsn := dbtest.SharedPostgres(t, 0).NewDatabase(t)
	u, err := url.Parse(dsn)
	must(t, err)
	q := u.Query()
	q.Set("synchronous_commit", "off")
	u.RawQuery = q.Encode()
	h := newHome(t, plainsql.PostgreSQL, "pgx", u.String())
	// A deferred trigger sees the settings that COMMIT has.
	h.exec(h.db, "create table seen (setting text)")
	h.exec(h.db, `create function see() returns trigger language plpgsql as $$ begin
		insert into seen values (current_setting('synchronous_commit')); return null; end $$`)
	h.exec(h.db, "create constraint trigger see after update on account deferrable initially deferred for each row execute function see()")

	b, db, d := h.begin(sql.LevelSerializable)
	h.exec(db, add10)
	h.want(db, "show transaction_isolation", "serializable")
	h.want(db, "show idle_in_transaction_session_timeout", "1h") // R5
	h.want(db, "show synchronous_commit", "off")
	if outcome, err := b.CommitDeciding(t.Context(), d); outcome != troth.Committed || err != nil {
		t.Fatalf("CommitDeciding answered %v, %v", outcome, err)
	}
	h.want(h.db, "select string_agg(setting, ' ') from seen", "on")
	h.want(h.db, "show synchronous_commit", "off")
	h.want(h.db, "show idle_in_transaction_session_timeout", "0")

	b, db, d = h.begin(sql.LevelSnapshot)
	if _, err := db.ExecContext(t.Context(), add10); err == nil || !strings.Contains(err.Error(), "isolation level") {
		t.Fatalf("an isolation level that does not exist: %v", err)
	}
	if outcome, err := b.CommitDeciding(t.Context(), d); outcome != troth.Aborted || err == nil {
		t.Fatalf("CommitDeciding answered %v, %v", outcome, err)
	}
}

// What COMMIT itself finds wrong is definite: nobody need ask the table.
func TestPostgresRefusedCommit(t *testing.T) {
	t.Parallel()
	h := newHome(t, plainsql.PostgreSQL, "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t))
	h.exec(h.db, "create table owner (id integer references account deferrable initially deferred)")
	b, db, d := h.begin(sql.LevelDefault)
	h.exec(db, "insert into owner values (7)")
	h.wantAborted(b, d, "foreign key")
	h.want(h.db, "select count(*) from owner", "0")
}

// A function that a SELECT calls may write; PostgreSQL can be asked.
func TestPostgresHiddenWrite(t *testing.T) {
	t.Parallel()
	h := newHome(t, plainsql.PostgreSQL, "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t))
	h.exec(h.db, "create function pay() returns integer language sql as $$ "+add10+" returning balance $$")
	b, db, _ := h.begin(sql.LevelDefault)
	h.want(db, "select pay()", "110")
	if wrote, err := b.Wrote(t.Context()); !wrote || err != nil {
		t.Fatalf("Wrote answered %v, %v", wrote, err)
	}
}

func TestMariaDBOpenRefuses(t *testing.T) {
	t.Parallel()
	dsn := dbtest.SharedMariaDB(t, 0).NewDatabase(t)
	refused := func(dsn string, lifeMax time.Duration, subject string) {
		t.Helper()
		r := plainsql.New("plain", open(t, "mysql", dsn), plainsql.MySQL)
		defer func() { must(t, r.Close(context.Background())) }()
		err := r.Open(t.Context(), resourceConfig(lifeMax))
		if subject == "" {
			must(t, err)
			return
		}
		if err == nil || !strings.Contains(err.Error(), `plainsql.Allow("`+subject+`")`) {
			t.Fatalf("Open answered %v, want a refusal that names %q", err, subject)
		}
	}
	param := func(p string) string {
		if strings.Contains(dsn, "?") {
			return dsn + "&" + p
		}
		return dsn + "?" + p
	}
	refused(param("wait_timeout=601"), time.Minute, "wait_timeout") // R5
	refused(param("wait_timeout=600"), time.Minute, "")
	refused(param("completion_type=CHAIN"), time.Hour, "completion_type")
}

func TestMariaDBDurability(t *testing.T) {
	t.Parallel()
	server, err := dbtest.StartMariaDB(t.Context(), dbtest.MariaDBConfig{}) // its own: settings are the server's
	must(t, err)
	t.Cleanup(func() { must(t, server.Close()) })
	db := open(t, "mysql", server.NewDatabase(t))
	_, err = db.ExecContext(t.Context(), "set global innodb_flush_log_at_trx_commit = 2")
	must(t, err)
	const subject = "innodb_flush_log_at_trx_commit"
	r := plainsql.New("plain", db, plainsql.MySQL)
	if err := r.Open(t.Context(), resourceConfig(time.Hour)); err == nil || !strings.Contains(err.Error(), subject) {
		t.Fatalf("Open answered %v", err)
	}
	must(t, r.Close(t.Context()))
	r = plainsql.New("plain", db, plainsql.MySQL, plainsql.Allow(subject))
	must(t, r.Open(t.Context(), resourceConfig(time.Hour)))
	must(t, r.Close(t.Context()))
}

func TestNewPanicsWithoutDialect(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	plainsql.New("plain", nil, 0)
}
