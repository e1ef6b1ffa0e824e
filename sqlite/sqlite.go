// Package sqlite lets one SQLite database take part in global transactions.
//
// SQLite cannot prepare, so it takes part as the home participant: the record of
// the decision is a row of its table troth_decision, written in the same local
// transaction as the program's work, and its commit decides for all. At most one
// database of that kind can write in a transaction; any number of PostgreSQL, MySQL
// and MariaDB databases can take part beside it.
//
// Any SQLite driver for database/sql will do; modernc.org/sqlite is the one tested.
//
// A branch takes SQLite's one write lock at its first statement (see [Deferred])
// and keeps it until the transaction is decided, that is, also while the other
// databases prepare. Other writers wait for as long as their busy timeout says.
package sqlite

import (
	"context"
	"database/sql"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/lastresource"
)

// A Resource is a SQLite database that takes part in global transactions.
type Resource struct {
	*lastresource.Resource // the methods of troth.Resource and troth.Checker
}

var (
	_ troth.Resource = (*Resource)(nil)
	_ troth.Checker  = (*Resource)(nil)
)

// New returns a Resource over a pool of SQLite sessions, which remains the
// caller's. If the pool is limited, the Manager raises the limit by one for a
// session of its own: so that recovery never waits for the program.
//
// Sessions may be set up as the program likes: while a branch is on one, a busy
// timeout of 0 is replaced by the rest of the transaction's time, at most 5
// seconds, and PRAGMA synchronous is raised to FULL, or EXTRA without a
// write-ahead log, for less may lose the decision in a power cut.
func New(name string, db *sql.DB, opts ...Option) *Resource {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	return &Resource{lastresource.New(name, db, &engine{options: o}, lastresource.Options{Package: "sqlite", Allow: o.allow})}
}

// DB returns the database as tx sees it, and lets it take part in tx if it does
// not yet: a genuine *sql.DB, for GORM, sqlx, bun, ent or plain database/sql, all
// of whose statements run in the branch. BeginTx on it is a savepoint. COMMIT and
// ROLLBACK as text are refused. It ends with the transaction; closing it is
// allowed and has no effect.
func (r *Resource) DB(ctx context.Context, tx *troth.Tx) (*sql.DB, error) {
	return lastresource.DB(ctx, tx, r)
}

// An Option changes a Resource.
type Option func(*options)

type options struct {
	deferred bool
	allow    []string
}

// Deferred lets a branch begin without the write lock and take it at the first
// statement that writes, so that branches which only read do not wait for
// writers. The price: if another session has written since the branch first read,
// that statement fails at once with SQLITE_BUSY_SNAPSHOT, whatever the busy
// timeout, and the transaction must be run again ([troth.SafeToRetry] is true).
func Deferred() Option { return func(o *options) { o.deferred = true } }

// Allow accepts fatal findings by their subjects, which the error of
// [troth.Open] names: "journal_mode", for example, or "database file" for a
// database in memory, in tests.
func Allow(subjects ...string) Option {
	return func(o *options) { o.allow = append(o.allow, subjects...) }
}
