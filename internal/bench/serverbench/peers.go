package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"

	"github.com/troth-tx/troth/internal/dbserver"
)

// The stores that are compared. For the default one each server takes its own: troth
// its directory, dtm its bolt file.
const (
	storeDefault  = "default"
	storePostgres = "PostgreSQL"
	storeMariaDB  = "MariaDB"
)

var stores = []string{storeDefault, storePostgres, storeMariaDB}

// world is what the servers stand on.
type world struct {
	dir      string // everything that is written
	troth    string // the programs; dtm is empty if it is not there
	dtm      string
	dtmSQL   string // the directory of its scripts
	pg       *dbserver.Postgres
	maria    *dbserver.MariaDB
	serial   int
	branches *participant
}

// newWorld builds troth, and starts what the chosen stores need.
func newWorld(ctx context.Context, cfg config) (_ *world, err error) {
	w := &world{dtm: cfg.dtm, dtmSQL: cfg.dtmSQL}
	if w.dir, err = os.MkdirTemp("", "troth-serverbench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.troth = cfg.troth; w.troth == "" {
		w.troth = filepath.Join(w.dir, "troth")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", w.troth, "github.com/troth-tx/troth/cmd/troth").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build troth: %w: %s", err, out)
		}
	}
	if cfg.wants(storePostgres) {
		w.pg, err = dbserver.StartPostgres(ctx, dbserver.PostgresConfig{Settings: map[string]string{
			"max_connections": "600", "shared_buffers": "256MB", "max_wal_size": "4GB", // dtm opens up to 500
		}})
		if err != nil {
			return nil, err
		}
	}
	if cfg.wants(storeMariaDB) {
		w.maria, err = dbserver.StartMariaDB(ctx, dbserver.MariaDBConfig{Settings: map[string]string{
			"max_connections": "600", "innodb_buffer_pool_size": "256M", "innodb_log_file_size": "512M",
		}})
		if err != nil {
			return nil, err
		}
	}
	w.branches, err = newParticipant(nil)
	return w, err
}

func (w *world) close() (err error) {
	if w.branches != nil {
		w.branches.stop()
	}
	if w.pg != nil {
		err = errors.Join(err, w.pg.Close())
	}
	if w.maria != nil {
		err = errors.Join(err, w.maria.Close())
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// newDir makes a directory for one server.
func (w *world) newDir(name string) (string, error) {
	w.serial++
	dir := filepath.Join(w.dir, fmt.Sprintf("%s-%d", name, w.serial))
	return dir, os.Mkdir(dir, 0o700)
}

func twoFreeAddrs() (a, b string, err error) {
	if a, err = freeAddr(); err == nil {
		b, err = freeAddr()
	}
	return a, b, err
}

// startTroth starts troth as it is without flags, but for its ports and its store.
func (w *world) startTroth(ctx context.Context, store string, flags ...string) (*process, error) {
	dir, err := w.newDir("troth")
	if err != nil {
		return nil, err
	}
	address := filepath.Join(dir, "store")
	switch store {
	case storePostgres:
		name := filepath.Base(dir)
		if err := w.pg.CreateDatabase(ctx, name); err != nil {
			return nil, err
		}
		address = w.pg.DSN(name)
	case storeMariaDB:
		name := filepath.Base(dir)
		if err := w.maria.CreateDatabase(ctx, name); err != nil {
			return nil, err
		}
		address = "mysql://root@" + w.maria.Addr() + "/" + name
	}
	return w.startTrothOn(ctx, dir, address, flags...)
}

// startTrothOn starts troth over a store that may be there already. dir is removed
// with it.
func (w *world) startTrothOn(ctx context.Context, dir, address string, flags ...string) (*process, error) {
	onHTTP, onGRPC, err := twoFreeAddrs()
	if err != nil {
		return nil, err
	}
	c := command{
		name: "troth", path: w.troth, dir: dir, http: onHTTP, ping: "/readyz",
		args: append([]string{"serve", "--http", onHTTP, "--grpc", onGRPC, "--store", address}, flags...),
	}
	p, err := c.start(ctx)
	if p != nil {
		p.dir = dir
	}
	return p, err
}

// startDTM starts dtm as it is without flags, but for its ports and its store. Its log,
// which takes two thirds of its time at the default level, is down to errors.
func (w *world) startDTM(ctx context.Context, store string) (*process, error) {
	dir, err := w.newDir("dtm")
	if err != nil {
		return nil, err
	}
	onHTTP, onGRPC, err := twoFreeAddrs()
	if err != nil {
		return nil, err
	}
	env := []string{"HTTP_PORT=" + portOf(onHTTP), "GRPC_PORT=" + portOf(onGRPC), "LOG_LEVEL=error"}
	if store != storeDefault {
		more, err := w.prepareDTM(ctx, store)
		if err != nil {
			return nil, err
		}
		env = append(env, more...)
	}
	p, err := command{name: "dtm", path: w.dtm, dir: dir, http: onHTTP, env: env, ping: "/api/ping"}.start(ctx)
	if p != nil {
		p.dir, p.mayRefuse = dir, true
	}
	return p, err
}

// prepareDTM makes dtm's tables anew, by its own scripts, and returns the settings.
func (w *world) prepareDTM(ctx context.Context, store string) (env []string, err error) {
	driver, script, addr, user := "mysql", "dtmsvr.storage.mysql.sql", "", "root"
	var db *sql.DB
	switch store {
	case storePostgres:
		driver, script, addr, user = "postgres", "dtmsvr.storage.postgres.sql", w.pg.Addr(), "postgres"
		if err := w.pg.DropDatabase(ctx, "dtm"); err != nil {
			return nil, err
		}
		if err := w.pg.CreateDatabase(ctx, "dtm"); err != nil {
			return nil, err
		}
		if db, err = sql.Open("pgx", w.pg.DSN("dtm")); err != nil {
			return nil, err
		}
	default:
		addr = w.maria.Addr()
		cfg, err := mysql.ParseDSN(w.maria.DSN(""))
		if err != nil {
			return nil, err
		}
		cfg.MultiStatements = true
		connector, err := mysql.NewConnector(cfg)
		if err != nil {
			return nil, err
		}
		db = sql.OpenDB(connector)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	text, err := os.ReadFile(filepath.Join(w.dtmSQL, script))
	if err != nil {
		return nil, fmt.Errorf("dtm's tables: %w: name the directory sqls of its source with -dtm-sql", err)
	}
	if _, err := db.ExecContext(ctx, string(text)); err != nil {
		return nil, fmt.Errorf("dtm's tables: %w", err)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return []string{
		"STORE_DRIVER=" + driver, "STORE_HOST=" + host, "STORE_PORT=" + port, "STORE_USER=" + user, "STORE_DB=dtm",
		"STORE_PASSWORD=" + passwordFor(driver),
	}, nil
}

// passwordFor is a password that nobody asks for: without one dtm's address of a
// PostgreSQL database goes wrong.
func passwordFor(driver string) string {
	if driver == "postgres" {
		return "unused"
	}
	return ""
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
