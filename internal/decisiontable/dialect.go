package decisiontable

import (
	"context"
	"database/sql"
	"strings"

	"github.com/troth-tx/troth"
)

// A dialect is what differs between the databases.
type dialect interface {
	// settings are the statements that prepare a session for our own statements.
	settings(Options) []string

	// place returns the session's current schema, empty if it has none, and the
	// current user as GRANT wants it.
	place(ctx context.Context, c *sql.Conn) (schema, user string, err error)

	// inspect reports whether a table exists as far as the user may see, with an
	// error if it is not fit to hold decisions.
	inspect(ctx context.Context, c *sql.Conn, schema, table string) (bool, error)

	// identifier quotes a name.
	identifier(name string) string

	// create is the CREATE TABLE IF NOT EXISTS of one of our tables.
	create(table, qualified string) string

	// insert is the INSERT of a decision, complete, without placeholders.
	insert(insertion) string

	// insertMeta inserts (?, ?) into troth_meta. It does nothing, or fails with
	// exists, if the name is there.
	insertMeta(meta string) string

	// now is the database's clock in microseconds since 1970; at is created_at in
	// the same unit; older is the condition that created_at is at least "?"
	// microseconds old.
	now() string
	at() string
	older() string

	// bind rewrites "?" placeholders.
	bind(query string) string

	// deleteFrom begins a DELETE whose condition names keys.
	deleteFrom(table string) string

	// lookup is a SELECT of one row: the outcome of gid "?" or NULL, and whether
	// this server may lag behind, so that NULL proves nothing.
	lookup(decision string) string

	exists(error) bool  // the error is a duplicate key
	busy(error) bool    // the lock is not free yet, nothing was done: ask again
	again(error) bool   // the statement was undone, and may be run again at once
	denied(error) bool  // a right is missing
	created(error) bool // CREATE IF NOT EXISTS lost a race: run it again
}

// An insertion is a decision on its way into the table.
type insertion struct {
	table    string // qualified
	gid      troth.GID
	outcome  string
	branches string

	// home: part of the transaction of a home participant, which fails if there is a
	// decision. Otherwise on its own, and doing nothing is fine, too.
	home bool

	lockWaitMS int64  // bounds the wait for the key, if not home
	meta       string // qualified troth_meta, if the floor must be below gid
	floor      string // the floor's name there
}

// values are the literals of the row, without created_at.
func (in insertion) values() string {
	return quoteLiteral(string(in.gid)) + ", " + quoteLiteral(in.outcome) + ", " + quoteLiteral(in.branches)
}

// aboveFloor is the condition that the floor is below gid.
func (in insertion) aboveFloor() string {
	return "NOT EXISTS (SELECT 1 FROM " + in.meta + " WHERE name = " + quoteLiteral(in.floor) +
		" AND value >= " + quoteLiteral(string(in.gid)) + ")"
}

const (
	decisionTable = "troth_decision"
	metaTable     = "troth_meta"
	witnessTable  = "troth_witness"
)

// repeatMarks returns "?, ?, ?".
func repeatMarks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }
