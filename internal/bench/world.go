package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/troth-tx/troth/internal/dbserver"
)

// accounts is how many rows each database has: enough that workers seldom meet
// on one.
const accounts = 10_000

// An engine is a kind of database.
type engine string

const (
	postgresEngine engine = "PG"
	mariadbEngine  engine = "MariaDB"
)

// world is the servers of one profile: two of each kind.
type world struct {
	profile Profile
	dir     string
	wire    *wire
	shim    *shim
	pg      [2]*dbserver.Postgres
	maria   [2]*dbserver.MariaDB
	closers []func() error
}

var dialers atomic.Int64 // go-sql-driver registers its dialers by name

func newWorld(ctx context.Context, p Profile) (_ *world, err error) {
	w := &world{profile: p, wire: &wire{delay: p.RoundTrip}}
	if w.dir, err = os.MkdirTemp("", "troth-bench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if err := os.Chmod(w.dir, 0o755); err != nil { //nolint:gosec // the servers run as other users
		return nil, err
	}
	if w.shim, err = buildShim(ctx, w.dir); err != nil {
		return nil, err
	}
	for i := range 2 {
		w.pg[i], err = dbserver.StartPostgres(ctx, dbserver.PostgresConfig{
			Env: w.shim.env(p),
			// A checkpoint in a measured second would be noise.
			Settings: map[string]string{
				"checkpoint_timeout": "1h", "max_wal_size": "8GB", "max_connections": "1000",
				// As troth doctor recommends; otherwise every branch sets it for itself.
				"idle_in_transaction_session_timeout": "10min",
			},
		})
		if err != nil {
			return nil, err
		}
		w.closers = append(w.closers, w.pg[i].Close)
		w.maria[i], err = dbserver.StartMariaDB(ctx, dbserver.MariaDBConfig{
			Env: w.shim.env(p), Settings: map[string]string{"innodb_log_file_size": "512M", "innodb_buffer_pool_size": "256M", "max_connections": "1000"},
		})
		if err != nil {
			return nil, err
		}
		w.closers = append(w.closers, w.maria[i].Close)
	}
	return w, w.createTables(ctx)
}

func (w *world) close() error {
	var errs []error
	for i := len(w.closers) - 1; i >= 0; i-- {
		errs = append(errs, w.closers[i]())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

func (w *world) createTables(ctx context.Context) error {
	for i := range 2 {
		if err := w.pg[i].CreateDatabase(ctx, "bank"); err != nil {
			return err
		}
		if err := w.maria[i].CreateDatabase(ctx, "bank"); err != nil {
			return err
		}
		for _, fill := range []struct {
			e    engine
			rows string
		}{
			{postgresEngine, "INSERT INTO account SELECT g, 1000000 FROM generate_series(0, %d) g"},
			{mariadbEngine, "INSERT INTO account SELECT seq, 1000000 FROM seq_0_to_%d"},
		} {
			db, err := w.open(fill.e, i, driverDefault)
			if err != nil {
				return err
			}
			for _, s := range []string{
				"CREATE TABLE account (id INT PRIMARY KEY, balance BIGINT NOT NULL)",
				fmt.Sprintf(fill.rows, accounts-1),
			} {
				if _, err := db.ExecContext(ctx, s); err != nil {
					return err
				}
			}
			if err := db.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// driverKind chooses between drivers of one engine.
type driverKind int

const (
	driverDefault driverKind = iota // pgx stdlib; go-sql-driver with multi-statements
	driverPlain                     // lib/pq; go-sql-driver as it comes
)

// poolMax is enough for 32 workers and recovery.
const poolMax = 40

// open opens server i of an engine; the caller closes the pool.
func (w *world) open(e engine, i int, kind driverKind) (*sql.DB, error) {
	db, err := w.openDB(e, i, kind)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(poolMax)
	db.SetMaxIdleConns(poolMax)
	return db, nil
}

func (w *world) openDB(e engine, i int, kind driverKind) (*sql.DB, error) {
	switch {
	case e == postgresEngine && kind == driverPlain:
		c, err := pq.NewConnector(w.pg[i].DSN("bank"))
		if err != nil {
			return nil, err
		}
		c.Dialer(w.wire)
		return sql.OpenDB(c), nil
	case e == postgresEngine:
		cfg, err := pgx.ParseConfig(w.pg[i].DSN("bank"))
		if err != nil {
			return nil, err
		}
		cfg.DialFunc = w.wire.dial
		return stdlib.OpenDB(*cfg), nil
	}
	var params []string
	if kind == driverDefault {
		params = []string{"multiStatements=true", "interpolateParams=true"}
	}
	cfg, err := mysql.ParseDSN(w.maria[i].DSN("bank", params...))
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("bench%d", dialers.Add(1))
	mysql.RegisterDialContext(name, func(ctx context.Context, addr string) (net.Conn, error) { return w.wire.dial(ctx, "tcp", addr) })
	cfg.Net = name
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

func (w *world) openPool(ctx context.Context, i int) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(w.pg[i].DSN("bank"))
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = poolMax
	cfg.ConnConfig.DialFunc = w.wire.dial
	return pgxpool.NewWithConfig(ctx, cfg)
}

func (w *world) logDir(name string) string { return filepath.Join(w.dir, name) }
