package pgxtx

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/pgrm"
	"github.com/troth-tx/troth/resourcetest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestConformance(t *testing.T) { resourcetest.Run(t, factory()) }

func factory() resourcetest.Factory {
	f := resourcetest.Factory{
		Can: troth.CanPrepare | troth.CanDecide,
		Open: func(t *testing.T) *resourcetest.Database {
			return database(t, dbtest.SharedPostgres(t, 0).NewDatabase(t), nil)
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
			d := database(t, s.DSN("postgres"), nil)
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
			return database(t, s.NewDatabase(t), cutproxy.New(t, s.Addr()))
		},
		Statements: func(t *testing.T, b troth.Branch) resourcetest.Session { return onTx{handle(b)} },
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

// handle is what Tx returns for the branch.
func handle(b troth.Branch) pgx.Tx { return &branchTx{s: b.(*pgrm.Branch).Session().(*session)} }

func database(t *testing.T, dsn string, proxy *cutproxy.Proxy) *resourcetest.Database {
	d := &resourcetest.Database{Outside: open(t, dsn)}
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
		pool := openPool(t, dsn, int32(poolMax))
		return New(name, pool), onPool{pool}
	}
	return d
}

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func openPool(t *testing.T, dsn string, poolMax int32) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxConns = 50
	if poolMax > 0 {
		cfg.MaxConns = poolMax
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// querier is what a pool and a pgx.Tx have in common.
type querier interface {
	Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, query string, args ...any) pgx.Row
	Begin(ctx context.Context) (pgx.Tx, error)
}

type onTx struct{ q querier }

func (s onTx) Exec(ctx context.Context, query string) error {
	_, err := s.q.Exec(ctx, query)
	return err
}

func (s onTx) Int(ctx context.Context, query string) (n int64, err error) {
	err = s.q.QueryRow(ctx, query).Scan(&n)
	return n, err
}

func (s onTx) Nested(ctx context.Context, f func(resourcetest.Session) error) error {
	tx, err := s.q.Begin(ctx)
	if err != nil {
		return err
	}
	if err := f(onTx{tx}); err != nil {
		if rollbackErr := tx.Rollback(ctx); rollbackErr != nil {
			return rollbackErr
		}
		return err
	}
	return tx.Commit(ctx)
}

type onPool struct{ pool *pgxpool.Pool }

func (s onPool) Exec(ctx context.Context, query string) error { return onTx{s.pool}.Exec(ctx, query) }

func (s onPool) Int(ctx context.Context, query string) (int64, error) {
	return onTx{s.pool}.Int(ctx, query)
}

func (s onPool) Nested(ctx context.Context, f func(resourcetest.Session) error) error {
	return onTx{s.pool}.Nested(ctx, f)
}
