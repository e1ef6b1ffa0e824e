package plainsql_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/plainsql"
	"github.com/troth-tx/troth/resourcetest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// branchDB is what a branch of this package has.
type branchDB interface{ DB() *sql.DB }

func statements(_ *testing.T, b troth.Branch) resourcetest.Session {
	return resourcetest.OnDB(b.(branchDB).DB())
}

func TestPostgresConformance(t *testing.T) {
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			resourcetest.Run(t, resourcetest.Factory{
				Can: troth.CanDecide,
				Open: func(t *testing.T) *resourcetest.Database {
					return postgresDatabase(t, driver, dbtest.SharedPostgres(t, 0))
				},
				OpenServer: func(t *testing.T) *resourcetest.Database {
					server, err := dbtest.StartPostgres(t.Context(), dbtest.PostgresConfig{})
					must(t, err)
					t.Cleanup(func() { must(t, server.Close()) })
					d := postgresDatabase(t, driver, server)
					d.Crash = func(t *testing.T) {
						must(t, server.Kill())
						must(t, server.Restart(t.Context()))
					}
					return d
				},
				OpenCut: func(t *testing.T) *resourcetest.Database {
					server := dbtest.SharedPostgres(t, 0)
					dsn := server.NewDatabase(t)
					proxy := cutproxy.New(t, server.Addr())
					d := database(t, plainsql.PostgreSQL, driver, strings.Replace(dsn, server.Addr(), proxy.Addr(), 1), dsn)
					d.Cut = cutter(proxy)
					return d
				},
				Statements: statements,
				SQL: resourcetest.SQL{
					Slow:      "select count(*) from pg_sleep(300)",
					ForUpdate: " for update",
					Returning: true,
					SessionID: "select pg_backend_pid()",
					Kill:      func(id int64) string { return fmt.Sprintf("select pg_terminate_backend(%d, 60000)", id) },
					Messages:  struct{ Prepare, Commit, Decide []string }{Decide: []string{"troth_decision", "COMMIT"}},
				},
			})
		})
	}
}

func TestMariaDBConformance(t *testing.T) {
	resourcetest.Run(t, resourcetest.Factory{
		Can: troth.CanDecide,
		Open: func(t *testing.T) *resourcetest.Database {
			return mariaDatabase(t, dbtest.SharedMariaDB(t, 0))
		},
		OpenServer: func(t *testing.T) *resourcetest.Database {
			server, err := dbtest.StartMariaDB(t.Context(), dbtest.MariaDBConfig{})
			must(t, err)
			t.Cleanup(func() { must(t, server.Close()) })
			d := mariaDatabase(t, server)
			d.Crash = func(t *testing.T) {
				must(t, server.Kill())
				must(t, server.Restart(t.Context()))
			}
			return d
		},
		OpenCut: func(t *testing.T) *resourcetest.Database {
			server := dbtest.SharedMariaDB(t, 0)
			dsn := server.NewDatabase(t)
			proxy := cutproxy.New(t, server.Addr())
			d := database(t, plainsql.MySQL, "mysql", strings.Replace(dsn, server.Addr(), proxy.Addr(), 1), dsn)
			d.Cut = cutter(proxy)
			return d
		},
		Statements: statements,
		SQL: resourcetest.SQL{
			Slow:           "select sleep(300)",
			ForUpdate:      " for update",
			Returning:      true,
			SessionID:      "select connection_id()",
			Kill:           func(id int64) string { return fmt.Sprintf("kill %d", id) },
			Messages:       struct{ Prepare, Commit, Decide []string }{Decide: []string{"troth_decision", "COMMIT"}},
			UnsureOfNoRows: true,
		},
	})
}

func postgresDatabase(t *testing.T, driver string, server *dbtest.Postgres) *resourcetest.Database {
	dsn := server.NewDatabase(t)
	return database(t, plainsql.PostgreSQL, driver, dsn, dsn)
}

func mariaDatabase(t *testing.T, server *dbtest.MariaDB) *resourcetest.Database {
	dsn := server.NewDatabase(t)
	return database(t, plainsql.MySQL, "mysql", dsn, dsn)
}

// database is one whose resources connect to one address, and the test itself to
// another, or the same.
func database(t *testing.T, dialect plainsql.Dialect, driver, dsn, outside string) *resourcetest.Database {
	return &resourcetest.Database{
		Outside: open(t, driver, outside),
		Resource: func(t *testing.T, name string, poolMax int) (troth.Resource, resourcetest.Session) {
			db := open(t, driver, dsn)
			db.SetMaxOpenConns(poolMax)
			return plainsql.New(name, db, dialect), resourcetest.OnDB(db)
		},
	}
}

func cutter(proxy *cutproxy.Proxy) func(before bool, text string) <-chan struct{} {
	return func(before bool, text string) <-chan struct{} {
		place := cutproxy.AfterAnswer
		if before {
			place = cutproxy.BeforeServer
		}
		return proxy.Cut(place, text, 1)
	}
}

func open(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
