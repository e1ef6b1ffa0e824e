package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbserver"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlite"
)

// engine is a kind of database, by the name of its driver.
type engine string

const (
	enginePostgres engine = "pgx"
	engineMariaDB  engine = "mysql"
	engineSQLite   engine = "sqlite"
)

// An address is what another process needs to open a database.
type address struct {
	Name   string // troth's name of it
	Engine engine
	DSN    string
}

func (a address) open() (*sql.DB, error) { return sql.Open(string(a.Engine), a.DSN) }

// A resource is a database that takes part in transactions.
type resource interface {
	troth.Resource
	DB(ctx context.Context, tx *troth.Tx) (*sql.DB, error)
}

func (a address) resource(db *sql.DB) resource {
	switch a.Engine {
	case enginePostgres:
		return postgres.New(a.Name, db)
	case engineMariaDB:
		return mysql.New(a.Name, db)
	case engineSQLite:
		return sqlite.New(a.Name, db)
	}
	panic("demo: engine " + string(a.Engine))
}

// A place is one of the story's databases.
type place struct {
	address
	product, version string
	shown            string // where it is, for people
	db               *sql.DB
}

// world holds the databases of the story.
type world struct {
	athos, porthos *place // PostgreSQL, on two servers
	dartagnan      *place // MariaDB
	aramis         *place // SQLite
	closers        []func() error
}

// places are those that this story has.
func (w *world) places() (all []*place) {
	for _, p := range []*place{w.athos, w.porthos, w.dartagnan, w.aramis} {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

// newWorld starts the servers of the story of the library.
func newWorld(ctx context.Context) (*world, error) {
	w := &world{}
	return w, w.start(ctx, startPostgres("athos", &w.athos), startPostgres("porthos", &w.porthos), w.startMariaDB, w.startSQLite)
}

// start starts servers, all at once, and makes the tables. After an error nothing is
// left.
func (w *world) start(ctx context.Context, starters ...func(context.Context) (*place, func() error, error)) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for _, start := range starters {
		wg.Go(func() {
			p, closer, err := start(ctx)
			if err == nil {
				err = p.prepare(ctx)
			}
			mu.Lock()
			defer mu.Unlock()
			if closer != nil {
				w.closers = append(w.closers, closer)
			}
			errs = append(errs, err)
		})
	}
	wg.Wait()
	err := errors.Join(errs...)
	if err != nil {
		w.close()
	}
	return err
}

func startPostgres(name string, at **place) func(context.Context) (*place, func() error, error) {
	return func(ctx context.Context) (*place, func() error, error) {
		server, err := dbserver.StartPostgres(ctx, dbserver.PostgresConfig{})
		if err != nil {
			return nil, nil, err
		}
		*at = &place{address: address{name, enginePostgres, server.DSN(name)}, product: "PostgreSQL", shown: server.Addr()}
		return *at, server.Close, server.CreateDatabase(ctx, name)
	}
}

func (w *world) startMariaDB(ctx context.Context) (*place, func() error, error) {
	const name = "dartagnan"
	server, err := dbserver.StartMariaDB(ctx, dbserver.MariaDBConfig{})
	if err != nil {
		return nil, nil, err
	}
	w.dartagnan = &place{address: address{name, engineMariaDB, server.DSN(name)}, product: "MariaDB", shown: server.Addr()}
	return w.dartagnan, server.Close, server.CreateDatabase(ctx, name)
}

func (w *world) startSQLite(context.Context) (*place, func() error, error) {
	const name = "aramis"
	dir, err := os.MkdirTemp("", "troth-sq-")
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(dir, name+".db")
	dsn := "file:" + file + "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)"
	w.aramis = &place{address: address{name, engineSQLite, dsn}, product: "SQLite", shown: file}
	return w.aramis, func() error { return os.RemoveAll(dir) }, nil
}

// close removes everything. What fails is in temporary directories, and nobody can
// do better than the next start of the machine.
func (w *world) close() {
	for _, p := range w.places() {
		if p.db != nil {
			_ = p.db.Close()
		}
	}
	var wg sync.WaitGroup
	for _, closer := range w.closers {
		wg.Go(func() { _ = closer() })
	}
	wg.Wait()
}

// The trigger looks at the time of commit, or, in a database that votes first, of
// its vote: later than any other check, when all other work is done.
var tables = map[engine][]string{
	enginePostgres: {
		"CREATE TABLE account (holder text PRIMARY KEY, balance bigint NOT NULL)",
		`CREATE FUNCTION refuse_overdraft() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN RAISE EXCEPTION ''% would have %'', NEW.holder, NEW.balance; END'`,
		`CREATE CONSTRAINT TRIGGER no_overdraft AFTER INSERT OR UPDATE ON account
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.balance < 0) EXECUTE FUNCTION refuse_overdraft()`,
	},
	engineMariaDB: {"CREATE TABLE account (holder varchar(50) PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0)) ENGINE=InnoDB"},
	engineSQLite:  {"CREATE TABLE account (holder text PRIMARY KEY, balance integer NOT NULL CHECK (balance >= 0))"},
}

var versionQuery = map[engine]string{
	enginePostgres: "SELECT split_part(current_setting('server_version'), ' ', 1)",
	engineMariaDB:  "SELECT substring_index(version(), '-', 1)",
	engineSQLite:   "SELECT sqlite_version()",
}

// prepare opens the database and makes its table.
func (p *place) prepare(ctx context.Context) error {
	var err error
	if p.db, err = p.open(); err != nil {
		return err
	}
	for _, statement := range tables[p.Engine] {
		if _, err := p.db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return p.db.QueryRowContext(ctx, versionQuery[p.Engine]).Scan(&p.version)
}

// placeNamed finds a database.
func (w *world) placeNamed(name string) *place {
	for _, p := range w.places() {
		if p.Name == name {
			return p
		}
	}
	panic("demo: there is no database " + name)
}

// set gives each account its balance, in plain transactions before an act begins.
func (w *world) set(ctx context.Context, all balances) error {
	for _, b := range all {
		p := w.placeNamed(b.place)
		if _, err := p.db.ExecContext(ctx, "DELETE FROM account"); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		if _, err := p.db.ExecContext(ctx, "INSERT INTO account (holder, balance) VALUES ("+parameters(p.Engine, 2)+")", b.holder, b.amount); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}

// read returns the balances that anybody can see now.
func (w *world) read(ctx context.Context, accounts balances) (balances, error) {
	out := make(balances, len(accounts))
	for i, b := range accounts {
		p := w.placeNamed(b.place)
		err := p.db.QueryRowContext(ctx, "SELECT balance FROM account WHERE holder = "+parameters(p.Engine, 1), b.holder).Scan(&b.amount)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		out[i] = b
	}
	return out, nil
}

// parameters returns n placeholders.
func parameters(e engine, n int) string {
	s := ""
	for i := range n {
		if i > 0 {
			s += ", "
		}
		if e == enginePostgres {
			s += fmt.Sprintf("$%d", i+1)
		} else {
			s += "?"
		}
	}
	return s
}
