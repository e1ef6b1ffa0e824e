package sqlregister

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
)

var bank = troth.RegisterConfig{Domain: "bank"}

func mustClose(t *testing.T, reg *Register) {
	t.Helper()
	if err := reg.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestOpenFindsTheDialect(t *testing.T) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			db := open(t, e.driver, e.dsn(t))
			if got, err := detect(t.Context(), db); err != nil || got != e.dialect {
				t.Errorf("detect = %v, %v, want %v", got, err, e.dialect)
			}
			reg := New(db, WithDialect(e.dialect))
			if err := reg.Open(t.Context(), bank); err != nil {
				t.Fatal(err)
			}
			mustClose(t, reg)
		})
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	dead := func(driver, dsn string) *sql.DB { return open(t, driver, dsn) }
	for _, db := range []*sql.DB{
		dead("pgx", "postgres://me:secret@127.0.0.1:1/x?sslmode=disable"),
		dead("postgres", "postgres://me:secret@127.0.0.1:1/x?sslmode=disable"),
		dead("mysql", "me:secret@tcp(127.0.0.1:1)/x"),
	} {
		err := New(db).Open(t.Context(), bank)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open of an unreachable server = %v, want an error without the password", err)
		}
	}
	db := dbtest.SharedMariaDB(t, 0)
	err := New(open(t, "mysql", db.DSN(""))).Open(t.Context(), bank)
	if err == nil || !strings.Contains(err.Error(), "data source name") {
		t.Errorf("Open without a database = %v, want a hint", err)
	}
	if err := New(open(t, "sqlite", ":memory:")).Open(t.Context(), bank); err == nil || !strings.Contains(err.Error(), "journal_mode") {
		t.Errorf("Open in memory = %v, want journal_mode refused", err)
	}
}

// Each setting that can lose a decision is refused by name with a remedy that
// works, and accepted if it is allowed by name.
func TestOpenRefusesToLoseDecisions(t *testing.T) {
	t.Parallel()
	type server struct{ driver, dsn string }
	postgres := func(name, value string) func(*testing.T) server {
		return func(t *testing.T) server {
			p, err := dbtest.StartPostgres(t.Context(), dbtest.PostgresConfig{Settings: map[string]string{name: value}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			return server{"pgx", p.DSN("postgres")}
		}
	}
	mariadb := func(name, value string, log bool) func(*testing.T) server {
		return func(t *testing.T) server {
			m, err := dbtest.StartMariaDB(t.Context(), dbtest.MariaDBConfig{Settings: map[string]string{name: value}, LogBin: log})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = m.Close() })
			return server{"mysql", m.DSN("mysql")}
		}
	}
	for _, c := range []struct {
		setting string
		start   func(*testing.T) server
		refused bool
	}{
		{"fsync", postgres("fsync", "off"), true},
		{"full_page_writes", postgres("full_page_writes", "off"), true},
		{"synchronous_commit", postgres("synchronous_commit", "off"), false}, // the register sees to it
		{"innodb_flush_log_at_trx_commit", mariadb("innodb_flush_log_at_trx_commit", "2", false), true},
		{"sync_binlog", mariadb("sync_binlog", "0", true), true},
		{"sync_binlog without a log", mariadb("sync_binlog", "0", false), false},
		{"journal_mode", func(t *testing.T) server {
			return server{"sqlite", "file:" + t.TempDir() + "/db?_pragma=journal_mode(OFF)"}
		}, true},
		{"synchronous", func(t *testing.T) server {
			return server{"sqlite", "file:" + t.TempDir() + "/db?_pragma=synchronous(OFF)"}
		}, false},
	} {
		t.Run(c.setting, func(t *testing.T) {
			s := c.start(t)
			reg := New(open(t, s.driver, s.dsn))
			err := reg.Open(t.Context(), bank)
			if !c.refused {
				if err != nil {
					t.Fatal(err)
				}
				mustClose(t, reg)
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.setting+" is ") {
				t.Fatalf("Open = %v, want %s refused", err, c.setting)
			}
			reg = New(open(t, s.driver, s.dsn), Allow(c.setting))
			if err := reg.Open(t.Context(), bank); err != nil {
				t.Fatalf("Open with Allow(%q): %v", c.setting, err)
			}
			mustClose(t, reg)
		})
	}
}

// The register's own sessions force the flush on SQLite.
func TestSQLiteSessionsAreSynchronous(t *testing.T) {
	t.Parallel()
	db := open(t, "sqlite", "file:"+t.TempDir()+"/db?_pragma=synchronous(OFF)")
	reg := New(db)
	if err := reg.Open(t.Context(), bank); err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, reg)
	err := reg.reserve.Do(t.Context(), func(ctx context.Context, c *sql.Conn) error {
		var level int
		if err := c.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&level); err != nil {
			return err
		}
		if level != 3 {
			return fmt.Errorf("synchronous is %d, want 3 (EXTRA)", level)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Decisions go through although business code has used up the pool, and after
// the server was away.
func TestPoolExhaustedAndServerRestarted(t *testing.T) {
	for i, name := range []string{"postgres", "mariadb"} {
		t.Run(name, func(t *testing.T) {
			var server interface {
				Kill() error
				Restart(context.Context) error
				MustOwn(testing.TB)
			}
			var driver, dsn string
			if i == 0 {
				p := dbtest.SharedPostgres(t, 1)
				server, driver, dsn = p, "pgx", p.NewDatabase(t)
			} else {
				m := dbtest.SharedMariaDB(t, 1)
				server, driver, dsn = m, "mysql", m.NewDatabase(t)
			}
			server.MustOwn(t)
			db := open(t, driver, dsn)
			db.SetMaxOpenConns(1)
			reg := New(db)
			if err := reg.Open(t.Context(), bank); err != nil {
				t.Fatal(err)
			}
			defer mustClose(t, reg)
			business, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = business.Close() }()
			one := troth.Decision{GID: troth.NewGID("bank", time.Now()), Outcome: troth.Committed}
			if got, err := reg.Decide(t.Context(), one); err != nil || got != troth.Committed {
				t.Fatalf("Decide = %v, %v", got, err)
			}
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			two := troth.Decision{GID: troth.NewGID("bank", time.Now()), Outcome: troth.Aborted}
			if got, err := reg.Decide(t.Context(), two); err == nil || got != troth.Undecided {
				t.Fatalf("Decide = %v, %v without a server", got, err)
			}
			if err := server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, err := reg.Lookup(t.Context(), one.GID); err != nil || got != troth.Committed {
				t.Errorf("Lookup = %v, %v after the kill, want committed", got, err)
			}
			if got, err := reg.Decide(t.Context(), two); err != nil || got != troth.Aborted {
				t.Errorf("Decide = %v, %v after the kill, want aborted", got, err)
			}
		})
	}
}

func TestBeforeOpenAndTwice(t *testing.T) {
	t.Parallel()
	reg := New(open(t, "sqlite", "file:"+t.TempDir()+"/db"))
	if _, err := reg.Lookup(t.Context(), troth.NewGID("bank", time.Now())); !errors.Is(err, troth.ErrClosed) {
		t.Errorf("Lookup before Open = %v, want ErrClosed", err)
	}
	mustClose(t, reg) // nothing to close
	if err := reg.Open(t.Context(), bank); err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, reg)
	if err := reg.Open(t.Context(), bank); err == nil {
		t.Error("Open twice gives no error")
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, e := range engines {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%d", e.name, callers), func(b *testing.B) {
				reg := New(open(b, e.driver, e.dsn(b)))
				if err := reg.Open(b.Context(), bank); err != nil {
					b.Fatal(err)
				}
				defer func() { _ = reg.Close(context.Background()) }()
				b.SetParallelism((callers + 1) / 2) // of 2 processors
				if callers == 1 {
					for b.Loop() {
						decideOne(b, reg)
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						decideOne(b, reg)
					}
				})
			})
		}
	}
}

func decideOne(b *testing.B, reg *Register) {
	d := troth.Decision{
		GID: troth.NewGID("bank", time.Now()), Outcome: troth.Committed,
		Branches: []troth.BranchRecord{{Resource: "athos", Branch: 1, Evidence: "4711"}, {Resource: "porthos", Branch: 2}},
	}
	if _, err := reg.Decide(b.Context(), d); err != nil {
		b.Error(err)
	}
}
