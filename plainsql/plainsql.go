// Package plainsql lets one database that cannot prepare take part in global
// transactions: CockroachDB, TiDB, Vitess, a PostgreSQL without prepared
// transactions behind a proxy, or any other that speaks the language of PostgreSQL
// or MySQL and has transactions.
//
// Such a database takes part as the home participant: the record of the decision
// is a row of its table troth_decision, written in the same local transaction as
// the program's work, and its commit decides for all. At most one database of that
// kind can write in a transaction; any number of databases that can prepare can take
// part beside it. For PostgreSQL, MySQL and MariaDB themselves, packages postgres
// and mysql do more.
//
// What the database must provide: a unique key that makes the second of two
// transactions that insert it wait for the first, or fail; COMMIT that returns
// when the work is durable; and that one session's statements stay on one
// server session while a transaction is open, which rules out poolers that switch
// between statements.
package plainsql

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/lastresource"
)

// A Dialect is the language of a database.
type Dialect uint8

// The dialects. What a database lacks beside the original is found out when the
// resource is opened.
const (
	PostgreSQL Dialect = 1 + iota
	MySQL              // and MariaDB
)

func (d Dialect) String() string {
	switch d {
	case PostgreSQL:
		return "PostgreSQL"
	case MySQL:
		return "MySQL"
	}
	return fmt.Sprintf("dialect(%d)", uint8(d))
}

// A Resource is a database that takes part in global transactions.
type Resource struct {
	*lastresource.Resource // the methods of troth.Resource and troth.Checker
}

var (
	_ troth.Resource = (*Resource)(nil)
	_ troth.Checker  = (*Resource)(nil)
)

// New returns a Resource over a pool, which remains the caller's. If the pool is
// limited, the Manager raises the limit by one for a session of its own: so that
// recovery never waits for the program. It panics if the dialect is none.
func New(name string, db *sql.DB, dialect Dialect, opts ...Option) *Resource {
	var e lastresource.Engine
	switch dialect {
	case PostgreSQL:
		e = new(postgres)
	case MySQL:
		e = new(mysql)
	default:
		panic("plainsql: New: " + dialect.String() + " is not a Dialect of this package")
	}
	o := lastresource.Options{Package: "plainsql"}
	for _, opt := range opts {
		opt(&o)
	}
	return &Resource{lastresource.New(name, db, e, o)}
}

// DB returns the database as tx sees it, and lets it take part in tx if it does
// not yet: a genuine *sql.DB, for GORM, sqlx, bun, ent or plain database/sql, all
// of whose statements run in the branch. BeginTx on it is a savepoint. COMMIT,
// ROLLBACK and what commits by itself are refused as text. It ends with the
// transaction; closing it is allowed and has no effect.
func (r *Resource) DB(ctx context.Context, tx *troth.Tx) (*sql.DB, error) {
	return lastresource.DB(ctx, tx, r)
}

// An Option changes a Resource.
type Option func(*lastresource.Options)

// Allow accepts fatal findings by their subjects, which the error of
// [troth.Open] names: "synchronous_commit", for example.
func Allow(subjects ...string) Option {
	return func(o *lastresource.Options) { o.Allow = append(o.Allow, subjects...) }
}

// Schema says where the decision table is: a schema, in MySQL's words a database.
// Without it, the current one of the pool's sessions.
func Schema(name string) Option { return func(o *lastresource.Options) { o.Schema = name } }
