// Package decisiontable keeps decisions in a table of a database: PostgreSQL,
// MySQL or MariaDB, and SQLite. It is the register of the home participant,
// whose own commit carries the record (see [Table.InsertSQL]), and the inside of
// package sqlregister.
//
//	troth_decision  gid PRIMARY KEY, outcome 'commit' or 'abort', branches, created_at
//	troth_meta      name PRIMARY KEY, value: 'version', 'identity', 'floor...'
//	troth_witness   gid, branch PRIMARY KEY, home, created_at; MySQL and MariaDB only
//
// The primary key of troth_decision is what makes the first writer win. A
// recoverer that inserts an abort while the home's transaction holds the key
// waits in the database until that ends, so the database itself settles the
// race.
//
// The tables are made with CREATE TABLE IF NOT EXISTS and carry a version in
// troth_meta: two tables of fixed form need no migration library. A program
// refuses a version newer than its own.
//
// Every statement names its tables in full, since a program may change the
// search path or the current database in a branch. Keys compare byte for byte,
// whatever the database's collation. Times are the database's.
package decisiontable

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/sqltext"
)

// A Dialect is a family of SQL databases.
type Dialect = sqltext.Dialect

// The dialects. Zero is none.
const (
	Postgres = sqltext.Postgres
	MySQL    = sqltext.MySQL // and MariaDB
	SQLite   = sqltext.SQLite
)

// A Runner gives sessions to a Table for its own statements.
type Runner interface {
	// Do calls f with a session that nobody else uses meanwhile. f may be called
	// again on another session when the first one broke: it is idempotent. f
	// changes settings of the session (lock timeouts, autocommit, isolation), so a
	// Runner hands the session to no one else afterwards, not even to the pool:
	// see package reserve.
	Do(ctx context.Context, f func(ctx context.Context, c *sql.Conn) error) error
}

// Options configure a Table. The zero value is a decision table of a home
// participant.
type Options struct {
	// Schema is where the tables are: a schema of PostgreSQL, a database of
	// MySQL, an attached database of SQLite. Empty: the session's current one at
	// Open.
	Schema string

	// LockWait bounds the wait for another transaction that holds the key, in the
	// server: a driver may leave a statement running when ctx ends. Rounded up to
	// seconds on MySQL. Defaults to 5 seconds.
	LockWait time.Duration

	// Floor makes Decide(commit) safe against coordinators that wake up after
	// their abort record expired: for registers whose database cannot end the
	// sessions of coordinators. See floor.go.
	Floor bool

	// FloorSettle is how long a floor stands before abort records below it are
	// dropped. It must be longer than the server can take over one INSERT. Defaults
	// to 1 hour.
	FloorSettle time.Duration

	// NoWitness leaves troth_witness out on MySQL. The other dialects never have it.
	NoWitness bool

	// WitnessOnly leaves troth_decision out on MySQL: the witness methods work,
	// those that need decisions fail.
	WitnessOnly bool
}

// A Table is a register in a database. Its methods are safe for concurrent use.
type Table struct {
	kind    Dialect
	dialect dialect
	run     Runner
	opts    Options

	names  atomic.Pointer[names] // nil before the first Open
	closed atomic.Bool

	asked sync.Map // GIDs whose commit was sent and not answered; see floor.go

	mu    sync.Mutex
	ready []weak.Pointer[sql.Conn] // sessions that have our settings
}

var _ troth.Register = (*Table)(nil)

// names is what Open found out.
type names struct {
	domain   string
	identity string

	schema                  string // bare
	decision, meta, witness string // qualified and quoted
}

// New returns a Table. It does nothing before Open.
func New(kind Dialect, run Runner, opts Options) *Table {
	t := &Table{kind: kind, run: run, opts: opts}
	if t.opts.LockWait <= 0 {
		t.opts.LockWait = 5 * time.Second
	}
	if t.opts.FloorSettle <= 0 {
		t.opts.FloorSettle = time.Hour
	}
	switch kind {
	case Postgres:
		t.dialect = postgres{}
	case MySQL:
		t.dialect = mysql{}
	case SQLite:
		t.dialect = sqlite{}
	}
	return t
}

func (t *Table) hasDecision() bool { return !t.opts.WitnessOnly }
func (t *Table) hasWitness() bool  { return t.kind == MySQL && !t.opts.NoWitness }

// Name is the qualified, quoted name of troth_decision, valid after Open.
func (t *Table) Name() string {
	if n := t.names.Load(); n != nil {
		return n.decision
	}
	return ""
}

// WitnessName is the qualified, quoted name of troth_witness, valid after Open
// on MySQL.
func (t *Table) WitnessName() string {
	if n := t.names.Load(); n != nil && t.hasWitness() {
		return n.witness
	}
	return ""
}

// Identity implements troth.Register. It is valid after Open, also after Close.
func (t *Table) Identity() string {
	if n := t.names.Load(); n != nil {
		return n.identity
	}
	return ""
}

// Close implements troth.Register. It does not close the Runner.
func (t *Table) Close(context.Context) error {
	t.closed.Store(true)
	return nil
}

var errNotOpen = errors.New("decision table: not open")

// opened returns the names, or why the Table cannot be used.
func (t *Table) opened(needDecision bool) (*names, error) {
	n := t.names.Load()
	switch {
	case t.closed.Load():
		return nil, fmt.Errorf("decision table: %w", troth.ErrClosed)
	case n == nil:
		return nil, errNotOpen
	case needDecision && !t.hasDecision():
		return nil, errors.New("decision table: opened for witnesses only")
	}
	return n, nil
}

// do runs f on a session that has our settings. f may run several times: it is
// idempotent.
func (t *Table) do(ctx context.Context, f func(ctx context.Context, c *sql.Conn) error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return t.run.Do(ctx, func(ctx context.Context, c *sql.Conn) error {
		if err := t.setUp(ctx, c); err != nil {
			return err
		}
		// SQLite's own wait for a lock does not heed ctx, so it is cut into slices.
		for begin := time.Now(); ; {
			err := f(ctx, c)
			if !t.dialect.busy(err) || ctx.Err() != nil || time.Since(begin) > t.opts.LockWait {
				return err
			}
		}
	})
}

// setUp gives a session our settings, once. A *sql.Conn is one session for life,
// so its address is enough to know it by.
func (t *Table) setUp(ctx context.Context, c *sql.Conn) error {
	statements := t.dialect.settings(t.opts)
	if len(statements) == 0 || t.isReady(c) {
		return nil
	}
	for _, s := range statements {
		if _, err := c.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	live := t.ready[:0]
	for _, w := range t.ready {
		if w.Value() != nil {
			live = append(live, w)
		}
	}
	t.ready = append(live, weak.Make(c))
	return nil
}

func (t *Table) isReady(c *sql.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.ready {
		if w.Value() == c {
			return true
		}
	}
	return false
}

// query runs a SELECT whose placeholders are written "?", and calls scan for
// each row.
func (t *Table) query(ctx context.Context, c *sql.Conn, text string, args []any, scan func(*sql.Rows) error) error {
	rows, err := c.QueryContext(ctx, t.dialect.bind(text), args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // its error is that of Err below
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (t *Table) exec(ctx context.Context, c *sql.Conn, text string, args ...any) (int64, error) {
	res, err := c.ExecContext(ctx, t.dialect.bind(text), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// quoteLiteral is the one place that puts a value into SQL text. The values are
// validated before, by alphabets without quotes and backslashes; so a character
// that could end or escape a literal anywhere is a bug, and panics.
func quoteLiteral(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '\'' || c == '\\' {
			panic(fmt.Sprintf("decisiontable: %q does not belong into an SQL literal", s))
		}
	}
	return "'" + s + "'"
}

// quoteIdentifier quotes a name that came from the database or the
// configuration. mark doubles within it.
func quoteIdentifier(name, mark string) string {
	return mark + strings.ReplaceAll(name, mark, mark+mark) + mark
}

// domainRange returns the bounds of a domain's GIDs: low < gid < high. The
// character after "." in ASCII is "/", and neither occurs in a domain.
func domainRange(domain string) (low, high string) { return domain + ".", domain + "/" }
