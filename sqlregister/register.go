// Package sqlregister keeps the decisions of a cluster in a database of its
// own: PostgreSQL, MySQL, MariaDB or SQLite. Any number of processes share it.
//
//	reg := sqlregister.New(db)
//	mgr, err := troth.Open(ctx, troth.Config{Resources: ..., Register: reg})
//
// A decision costs one round trip and one forced write there. While that
// database is down nothing is decided; so it should be as available as the
// databases that take part together. A replica that is promoted must have every
// decision: replicate synchronously.
//
// The register is safe against coordinators that were stopped for longer than
// abort records are kept: see Expire.
package sqlregister

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/decisiontable"
	"github.com/troth-tx/troth/internal/reserve"
)

// A Register is a troth.Register in a database. Its methods are safe for
// concurrent use.
type Register struct {
	db   *sql.DB
	opts options

	opening sync.Mutex // held by Open and Close
	mu      sync.Mutex // guards what follows; not held across I/O
	table   *decisiontable.Table
	reserve *reserve.Reserve
	closed  bool
}

var _ troth.Register = (*Register)(nil)

// An Option changes a Register.
type Option func(*options)

type options struct {
	dialect     Dialect
	schema      string
	sessions    int
	allow       []string
	floorSettle time.Duration // zero for the default; tests do not wait an hour
}

// A Dialect is a family of SQL databases.
type Dialect = decisiontable.Dialect

// The dialects.
const (
	Postgres Dialect = decisiontable.Postgres
	MySQL    Dialect = decisiontable.MySQL // and MariaDB
	SQLite   Dialect = decisiontable.SQLite
)

// WithDialect says what the database is. Without it, Open asks the server.
func WithDialect(d Dialect) Option { return func(o *options) { o.dialect = d } }

// Schema names the schema (on MySQL: the database) of the tables. Without it,
// they are in the current schema of the session that opens the register.
func Schema(name string) Option { return func(o *options) { o.schema = name } }

// Sessions bounds how many sessions the register takes from the *sql.DB. They
// come on top of the limit that SetMaxOpenConns set, and are taken as they are
// needed. Defaults to 8, and to 1 on SQLite, which has one writer at a time.
func Sessions(n int) Option { return func(o *options) { o.sessions = n } }

// Allow lets Open accept settings of the server that can lose a decision, by
// name: "fsync", "full_page_writes", "innodb_flush_log_at_trx_commit",
// "sync_binlog", "wsrep_on", "journal_mode". A lost decision means that some
// branches of a transaction have committed and others roll back.
func Allow(settings ...string) Option {
	return func(o *options) { o.allow = append(o.allow, settings...) }
}

// New returns a Register in the database of db. It does nothing before Open. db
// stays open until its owner closes it, after the register.
func New(db *sql.DB, opts ...Option) *Register {
	r := &Register{db: db}
	for _, o := range opts {
		o(&r.opts)
	}
	return r
}

// Open implements troth.Register. It creates the tables, or says what to run if
// it may not, and refuses a server whose settings can lose a decision, see
// [Allow].
func (r *Register) Open(ctx context.Context, cfg troth.RegisterConfig) error {
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.current() != nil {
		return errors.New("sql register: open already")
	}
	table, sessions, err := r.open(ctx, cfg)
	if err != nil {
		return fmt.Errorf("sql register: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table, r.reserve, r.closed = table, sessions, false
	return nil
}

func (r *Register) open(ctx context.Context, cfg troth.RegisterConfig) (*decisiontable.Table, *reserve.Reserve, error) {
	dialect := r.opts.dialect
	if dialect == 0 {
		var err error
		if dialect, err = detect(ctx, r.db); err != nil {
			return nil, nil, err
		}
	}
	n := r.opts.sessions
	if n <= 0 {
		n = 8
		if dialect == SQLite {
			n = 1
		}
	}
	sessions := reserve.NewSize(r.db, n)
	table := decisiontable.New(dialect, sessions, decisiontable.Options{
		Schema: r.opts.schema, Floor: true, FloorSettle: r.opts.floorSettle, NoWitness: true,
	})
	err := sessions.Do(ctx, func(ctx context.Context, c *sql.Conn) error {
		return checkDurability(ctx, c, dialect, r.opts)
	})
	if err == nil {
		err = table.Open(ctx, cfg)
	}
	if err != nil {
		return nil, nil, errors.Join(err, sessions.Close(ctx))
	}
	return table, sessions, nil
}

func (r *Register) current() *decisiontable.Table {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table
}

// opened returns the table, or why there is none.
func (r *Register) opened() (*decisiontable.Table, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.table == nil || r.closed {
		return nil, fmt.Errorf("sql register: not open: %w", troth.ErrClosed)
	}
	return r.table, nil
}

// Identity implements troth.Register.
func (r *Register) Identity() string {
	if table := r.current(); table != nil {
		return table.Identity()
	}
	return ""
}

// Decide implements troth.Register.
func (r *Register) Decide(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	table, err := r.opened()
	if err != nil {
		return troth.Undecided, err
	}
	return table.Decide(ctx, d)
}

// Lookup implements troth.Register.
func (r *Register) Lookup(ctx context.Context, gid troth.GID) (troth.Outcome, error) {
	table, err := r.opened()
	if err != nil {
		return troth.Undecided, err
	}
	return table.Lookup(ctx, gid)
}

// Committed implements troth.Register, for the domain that it was opened for.
func (r *Register) Committed(ctx context.Context, minAge time.Duration, after troth.GID, limit int) ([]troth.Decision, error) {
	table, err := r.opened()
	if err != nil {
		return nil, err
	}
	return table.Committed(ctx, minAge, after, limit)
}

// Forget implements troth.Register.
func (r *Register) Forget(ctx context.Context, gids []troth.GID) error {
	table, err := r.opened()
	if err != nil {
		return err
	}
	return table.Forget(ctx, gids)
}

// Expire implements troth.Register, for the domain that it was opened for. From
// now on it also refuses commits of transactions that began more than age ago:
// a coordinator that wakes up so late hears aborted, although the abort record
// is gone. So that no statement under way can slip through, a record is dropped
// an hour later than age says.
func (r *Register) Expire(ctx context.Context, age time.Duration) (int, error) {
	table, err := r.opened()
	if err != nil {
		return 0, err
	}
	return table.Expire(ctx, age)
}

// Close implements troth.Register. It waits for calls under way, until ctx ends.
func (r *Register) Close(ctx context.Context) error {
	r.opening.Lock()
	defer r.opening.Unlock()
	r.mu.Lock()
	table, sessions := r.table, r.reserve
	r.closed = true
	r.mu.Unlock()
	if table == nil {
		return nil
	}
	err := errors.Join(table.Close(ctx), sessions.Close(ctx))
	return err
}

func (o options) allows(setting string) bool { return slices.Contains(o.allow, setting) }
