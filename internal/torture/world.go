package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/dbserver"
)

// engine is what kind of database one is.
type engine string

const (
	enginePostgres engine = "postgres"
	engineMariaDB  engine = "mariadb"
	engineSQLite   engine = "sqlite"
)

// server is what a run does to a database server.
type server interface {
	Addr() string
	Kill() error
	Restart(ctx context.Context) error
	Close() error
	Log() string
}

// A database is one of the world's, as seen from outside.
type database struct {
	name   string
	engine engine
	server server // nil for SQLite
	dsn    string // direct, past every proxy
	db     *sql.DB

	journalRead int64 // id up to which the journal was checked
	journalRows int64 // how many rows that were
	planted     []plant
}

// schemaName is the database, or on MariaDB the schema, that holds the accounts.
const schemaName = "bank"

// A world is the databases of a run.
type world struct {
	dir       string
	databases []*database
	register  *database // of the register "sql": a database of its own, on the first server
	accounts  int
}

// names are the databases in a fixed order; see Options.Databases.
var allDatabases = []string{"ma1", "ma2", "pg1", "pg2", "lite"}

// newWorld starts servers, in parallel, and fills the databases.
func newWorld(ctx context.Context, dir string, names []string, accounts int) (_ *world, err error) {
	w := &world{dir: dir, accounts: accounts}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	found := make([]*database, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { found[i], errs[i] = startDatabase(ctx, dir, name) })
	}
	wg.Wait()
	for _, d := range found {
		if d != nil {
			w.databases = append(w.databases, d)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := w.openRegister(ctx); err != nil {
		return nil, err
	}
	for _, d := range w.databases {
		if err := d.fill(ctx, len(w.databases), accounts); err != nil {
			return nil, fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return w, nil
}

func startDatabase(ctx context.Context, dir, name string) (*database, error) {
	d := &database{name: name}
	switch {
	case strings.HasPrefix(name, "pg"):
		pg, err := dbserver.StartPostgres(ctx, dbserver.PostgresConfig{})
		if err != nil {
			return nil, err
		}
		d.engine, d.server, d.dsn = enginePostgres, pg, pg.DSN(schemaName)
		err = pg.CreateDatabase(ctx, schemaName)
		return d, errors.Join(err, d.open("pgx"))
	case strings.HasPrefix(name, "ma"):
		maria, err := dbserver.StartMariaDB(ctx, dbserver.MariaDBConfig{LogBin: name == "ma2"})
		if err != nil {
			return nil, err
		}
		d.engine, d.server, d.dsn = engineMariaDB, maria, maria.DSN(schemaName)
		err = maria.CreateDatabase(ctx, schemaName)
		return d, errors.Join(err, d.open("mysql"))
	case name == "lite":
		d.engine = engineSQLite
		d.dsn = "file:" + filepath.Join(dir, "bank.db") + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(2000)&_pragma=synchronous(FULL)"
		return d, d.open("sqlite")
	}
	return nil, fmt.Errorf("there is no database %q: use some of %v", name, allDatabases)
}

// openRegister makes the database of the sql register on the first PostgreSQL.
func (w *world) openRegister(ctx context.Context) error {
	for _, d := range w.databases {
		pg, ok := d.server.(*dbserver.Postgres)
		if !ok {
			continue
		}
		w.register = &database{name: registerName, engine: enginePostgres, server: pg, dsn: pg.DSN(registerName)}
		return errors.Join(pg.CreateDatabase(ctx, registerName), w.register.open("pgx"))
	}
	return nil
}

func (d *database) open(driver string) error {
	db, err := openHandle(driver, d.dsn)
	if err != nil {
		return err
	}
	db.SetMaxIdleConns(0) // its server will be killed: no session of before may be asked
	d.db = db
	return nil
}

// fill makes the tables. The journal has no unique key: a row that is there twice
// is to be found, not prevented.
func (d *database) fill(ctx context.Context, databases, accounts int) error {
	id := map[engine]string{
		enginePostgres: "BIGSERIAL PRIMARY KEY",
		engineMariaDB:  "BIGINT AUTO_INCREMENT PRIMARY KEY",
		engineSQLite:   "INTEGER PRIMARY KEY AUTOINCREMENT",
	}[d.engine]
	tables := []string{
		"CREATE TABLE account (id INT PRIMARY KEY, balance BIGINT NOT NULL)",
		"CREATE TABLE journal (id " + id + ", gid VARCHAR(64) NOT NULL, account INT NOT NULL, amount BIGINT NOT NULL, note VARCHAR(16) NOT NULL)",
		"CREATE TABLE list (k INT PRIMARY KEY, vals TEXT NOT NULL)",
		"CREATE TABLE planted (name VARCHAR(80) PRIMARY KEY)",
	}
	var rows []string
	for i := 1; i <= accounts; i++ {
		rows = append(rows, fmt.Sprintf("(%d, %d)", i, startBalance))
	}
	for i := range len(pairs(databases)) * pots {
		rows = append(rows, fmt.Sprintf("(%d, %d)", -1-i, startBalance))
	}
	tables = append(tables, "INSERT INTO account VALUES "+strings.Join(rows, ", "))
	for _, s := range tables {
		if _, err := d.db.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// newLists makes the lists of an epoch.
func (w *world) newLists(ctx context.Context, keys keyRange) error {
	var rows []string
	for i := range keys.Count {
		rows = append(rows, fmt.Sprintf("(%d, '')", keys.First+i))
	}
	for _, d := range w.databases {
		if _, err := d.db.ExecContext(ctx, "INSERT INTO list VALUES "+strings.Join(rows, ", ")); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

func (w *world) find(name string) *database {
	for _, d := range w.databases {
		if d.name == name {
			return d
		}
	}
	return nil
}

// linked are the databases that a manager reaches through a proxy.
func (w *world) linked() []*database {
	var out []*database
	for _, d := range w.databases {
		if d.server != nil {
			out = append(out, d)
		}
	}
	if w.register != nil {
		out = append(out, w.register)
	}
	return out
}

func (w *world) close() {
	if w.register != nil && w.register.db != nil {
		_ = w.register.db.Close()
	}
	for _, d := range w.databases {
		if d.db != nil {
			_ = d.db.Close() // its server goes too
		}
		if d.server != nil {
			_ = d.server.Close() // and its watchdog sees to the rest
		}
	}
}

// version is what the database says that it is.
func (d *database) version(ctx context.Context) string {
	query := map[engine]string{
		enginePostgres: "SELECT 'PostgreSQL ' || current_setting('server_version')",
		engineMariaDB:  "SELECT VERSION()",
		engineSQLite:   "SELECT 'SQLite ' || sqlite_version()",
	}[d.engine]
	var v string
	if err := d.db.QueryRowContext(ctx, query).Scan(&v); err != nil {
		return err.Error()
	}
	return v
}

// askTime bounds one question from outside.
const askTime = 5 * time.Second
