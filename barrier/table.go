package barrier

import (
	"context"
	"database/sql"
	"fmt"
)

// Config configures a [Table].
type Config struct {
	// Name is the table's name, as table or schema.table (in MySQL and MariaDB
	// database.table): letters, digits and underscores. It must be in the database that
	// has the business data, or a transaction would not hold them together. Defaults to
	// [Dialect.DefaultName].
	Name string

	// TxOptions are those of the transactions that Run begins. Nil means the database's
	// defaults. Every isolation level is good enough for the barrier.
	TxOptions *sql.TxOptions
}

// A Table is a barrier in a SQL database. It holds no connection: each call says where
// it is to happen. It is safe for concurrent use.
type Table struct {
	dialect Dialect
	name    string
	sql     statements
	options *sql.TxOptions
}

// NewTable returns the barrier of a database of that kind. It sends nothing; see
// [Table.Create] for the table itself. All errors are [ErrInvalid].
func NewTable(d Dialect, cfg *Config) (*Table, error) {
	switch d {
	case PostgreSQL, MySQL, SQLite:
	default:
		return nil, invalid("%v: want PostgreSQL, MySQL or SQLite", d)
	}
	if cfg == nil {
		cfg = &Config{}
	}
	name := cfg.Name
	if name == "" {
		name = d.DefaultName()
	}
	schema, table, err := splitName(name)
	if err != nil {
		return nil, err
	}
	return &Table{dialect: d, name: name, sql: d.statements(schema, table), options: cfg.TxOptions}, nil
}

// Name returns the table's name.
func (t *Table) Name() string { return t.name }

// Dialect returns the kind of the database.
func (t *Table) Dialect() Dialect { return t.dialect }

// A Verdict is what is to be done with a step.
type Verdict uint8

// The verdicts.
const (
	// Proceed: this is the first time. Do it, in the same transaction, and commit.
	Proceed Verdict = iota + 1

	// Repeat: it was done before. Do nothing; answer success.
	Repeat

	// Empty: it would undo what never happened, and from now on never will. Do nothing
	// else, but commit; answer success.
	Empty

	// Late: what undoes it has come first. Do nothing; answer success.
	Late
)

func (v Verdict) String() string {
	switch v {
	case Proceed:
		return "proceed"
	case Repeat:
		return "repeat"
	case Empty:
		return "empty"
	case Late:
		return "late"
	}
	return fmt.Sprintf("verdict %d", uint8(v))
}

// A Tx is what the barrier needs of a transaction: a *sql.Tx is one, and so is a
// *sql.Conn on which a transaction was begun.
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Enter writes the step's row in the transaction tx and says what is to be done. It
// neither commits nor rolls back: that is the caller's, who must commit after Proceed
// and after Empty, and may do what he likes after Repeat and Late. The row and the
// work it stands for must be in the one transaction, and Enter is best its first
// statement.
//
// Enter waits while another transaction that has entered the same step, or the one that
// it undoes, is not over: as long as ctx, the database's own time for locks and, in
// SQLite, busy_timeout allow.
//
// After an error the transaction must be rolled back; it can be begun anew. Op msg has
// no harmless repetition: instead of Repeat and Late the error is [ErrDuplicated], or
// also [ErrRuledOut].
func (t *Table) Enter(ctx context.Context, tx Tx, s Step) (Verdict, error) {
	return t.On(sqlSession{tx}).Enter(ctx, s)
}
