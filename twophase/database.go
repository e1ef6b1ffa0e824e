package twophase

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlite"
)

// namePrefix begins the names of resources. What follows is the identity that the
// database's own decision table has, so that every process gives a database the
// same name, whatever the order of its participants.
const namePrefix = "db-"

// A database is what a pool's server says of itself.
type database struct {
	pool     *sql.DB
	kind     kind
	identity string // of its decision table
	login    string // whose session it is, and what decides the meaning of its statements
}

// A kind is a brand of database.
type kind uint8

const (
	kindPostgres kind = iota + 1
	kindMySQL         // and MariaDB
	kindSQLite
)

// resource makes a resource, and returns its DB method too.
func (k kind) resource(name string, db *sql.DB) (troth.Resource, func(context.Context, *troth.Tx) (*sql.DB, error)) {
	switch k {
	case kindPostgres:
		r := postgres.New(name, db)
		return r, r.DB
	case kindMySQL:
		r := mysql.New(name, db)
		return r, r.DB
	case kindSQLite:
		r := sqlite.New(name, db)
		return r, r.DB
	}
	panic(fmt.Sprintf("twophase: kind %d", k))
}

// loginQuery asks for what may make the same statement mean different things in
// two pools on one database.
func (k kind) loginQuery() string {
	switch k {
	case kindPostgres:
		return "SELECT current_user || ' with search_path ' || current_setting('search_path')"
	case kindMySQL:
		return "SELECT CURRENT_USER()"
	case kindSQLite:
		return "SELECT ''"
	}
	panic(fmt.Sprintf("twophase: kind %d", k))
}

// identify asks a database what it is. It creates the decision table if there is
// none.
func identify(ctx context.Context, db *sql.DB) (*database, error) {
	k, err := ask(ctx, db)
	if err != nil {
		return nil, err
	}
	d := &database{pool: db, kind: k}
	if err := db.QueryRowContext(ctx, k.loginQuery()).Scan(&d.login); err != nil {
		return nil, fmt.Errorf("ask a database for its login: %w", err)
	}
	err = d.onRegister(ctx, func(reg troth.Register) error {
		d.identity = reg.Identity()
		return nil
	})
	return d, err
}

// ask tells the brands apart. The driver's name would not do: programs wrap
// drivers.
func ask(ctx context.Context, db *sql.DB) (kind, error) {
	var version string
	err := db.QueryRowContext(ctx, "SELECT version()").Scan(&version)
	switch {
	case err != nil:
		// SQLite knows no such function.
		if db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version) == nil {
			return kindSQLite, nil
		}
		return 0, fmt.Errorf("ask a database for its version: %w", err)
	case strings.HasPrefix(version, "PostgreSQL "):
		return kindPostgres, nil
	case version != "" && version[0] >= '0' && version[0] <= '9': // "8.4.2", "10.11.19-MariaDB-log"
		return kindMySQL, nil
	}
	return 0, fmt.Errorf("a participant's database says that its version is %q: only PostgreSQL, MariaDB, MySQL and SQLite can take part", version)
}

// onRegister opens the decision table for f alone.
func (d *database) onRegister(ctx context.Context, f func(troth.Register) error) error {
	r, _ := d.kind.resource("twophase", d.pool)
	err := r.Open(ctx, troth.ResourceConfig{Domain: domain, Logger: slog.Default(), NeedDecisions: true, LifeMax: timeoutMax})
	if err == nil {
		err = f(r.Decisions())
	}
	return errors.Join(err, r.Close(context.WithoutCancel(ctx)))
}

// mayShare returns nil if the two pools are on different databases, or if
// functions for either can work on one session of the first: two sessions would
// wait for each other's locks.
func (d *database) mayShare(ctx context.Context, other *database) error {
	if d.identity != other.identity {
		return nil
	}
	same, err := d.sees(ctx, other)
	switch {
	case err != nil:
		return fmt.Errorf("find out whether two participants are on one database: %w", err)
	case !same:
		return fmt.Errorf("two databases have decision tables with the same identity, %s: one is a copy of the other; "+
			"in the copy, DROP TABLE troth_decision and troth_meta while no transaction is in doubt", d.identity)
	case d.login != other.login:
		return fmt.Errorf("two participants are on one database with different logins, %s and %s: "+
			"give both the same *sql.DB", other.login, d.login)
	}
	return nil
}

// sees reports whether what one pool writes can be read in the other: a mark, in
// the form of the decision about a transaction that never was.
func (d *database) sees(ctx context.Context, other *database) (bool, error) {
	mark := troth.Decision{GID: troth.NewGID(domain, time.Now()), Outcome: troth.Aborted}
	err := other.onRegister(ctx, func(reg troth.Register) error {
		_, err := reg.Decide(ctx, mark)
		return err
	})
	if err != nil {
		return false, err
	}
	var outcome troth.Outcome
	err = d.onRegister(ctx, func(reg troth.Register) error {
		outcome, err = reg.Lookup(ctx, mark.GID)
		return err
	})
	return outcome == troth.Aborted, err
}
