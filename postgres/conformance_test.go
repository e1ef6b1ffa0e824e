package postgres

import (
	"database/sql"
	"fmt"
	"net/url"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"
	_ "github.com/lib/pq"              // driver "postgres"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/pgrm"
	"github.com/troth-tx/troth/resourcetest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// drivers are the two that are known by type, and one that hides which it is.
var drivers = []string{"pgx", "postgres", "hidden"}

func TestConformance(t *testing.T) {
	for i, driver := range drivers {
		t.Run(driver, func(t *testing.T) { resourcetest.Run(t, factory(driver, i+1)) })
	}
}

func factory(driver string, server int) resourcetest.Factory {
	f := resourcetest.Factory{
		Can: troth.CanPrepare | troth.CanDecide,
		Open: func(t *testing.T) *resourcetest.Database {
			return database(t, driver, dbtest.SharedPostgres(t, 0).NewDatabase(t), nil)
		},
		OpenServer: func(t *testing.T) *resourcetest.Database {
			s, err := dbtest.StartPostgres(t.Context(), dbtest.PostgresConfig{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			d := database(t, driver, s.DSN("postgres"), nil)
			d.Crash = func(t *testing.T) {
				t.Helper()
				d.Outside.SetMaxIdleConns(0) // its sessions die: let it know
				defer d.Outside.SetMaxIdleConns(2)
				if err := s.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := s.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			return d
		},
		OpenCut: func(t *testing.T) *resourcetest.Database {
			s := dbtest.SharedPostgres(t, 0)
			return database(t, driver, s.NewDatabase(t), cutproxy.New(t, s.Addr()))
		},
		Statements: func(t *testing.T, b troth.Branch) resourcetest.Session { return resourcetest.OnDB(handle(b)) },
		SQL: resourcetest.SQL{
			Slow: "select 1 from pg_sleep(300)", ForUpdate: " for update", Returning: true,
			LockWait:  "set local lock_timeout = 20",
			SessionID: "select pg_backend_pid()",
			Kill:      func(id int64) string { return fmt.Sprintf("select pg_terminate_backend(%d, 60000)", id) },
			Finish: func(xid troth.XID, outcome troth.Outcome) string {
				if outcome == troth.Committed {
					return "COMMIT PREPARED '" + xid.String() + "'"
				}
				return "ROLLBACK PREPARED '" + xid.String() + "'"
			},
			Foreign: func(name string) ([]string, string) {
				return []string{"BEGIN", "CREATE TABLE t" + name + " (id int)", "PREPARE TRANSACTION '" + name + "'"},
					"ROLLBACK PREPARED '" + name + "'"
			},
		},
	}
	f.SQL.Messages.Prepare = []string{"PREPARE TRANSACTION"}
	f.SQL.Messages.Commit = []string{"COMMIT PREPARED"}
	f.SQL.Messages.Decide = []string{"COMMIT"}
	return f
}

// handle is what DB returns for the branch.
func handle(b troth.Branch) *sql.DB { return b.(*pgrm.Branch).Session().(*session).DB() }

func database(t *testing.T, driver, dsn string, proxy *cutproxy.Proxy) *resourcetest.Database {
	d := &resourcetest.Database{Outside: open(t, "pgx", dsn, 0)}
	if proxy != nil {
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		u.Host = proxy.Addr()
		dsn = u.String()
		d.Cut = func(before bool, text string) <-chan struct{} {
			if before {
				return proxy.Cut(cutproxy.BeforeServer, text, 1)
			}
			return proxy.Cut(cutproxy.AfterAnswer, text, 1)
		}
	}
	d.Resource = func(t *testing.T, name string, poolMax int) (troth.Resource, resourcetest.Session) {
		db := open(t, driver, dsn, poolMax)
		return New(name, db), resourcetest.OnDB(db)
	}
	return d
}

func open(t *testing.T, driver, dsn string, poolMax int) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(poolMax)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
