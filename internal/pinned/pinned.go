// Package pinned makes one database session look like a whole *sql.DB.
//
// A transaction branch lives on one session. The program that works in it may be
// written with GORM, sqlx, bun, ent or plain database/sql, all of which want a
// *sql.DB, open several result sets at once, and begin transactions. A Session
// gives them a genuine one, whose connections are all the same session:
//
//   - statements are serialised; an open result set is read into memory when
//     the next statement needs the session, so nothing ever waits for itself;
//   - BeginTx is SAVEPOINT, Commit is RELEASE SAVEPOINT, Rollback is ROLLBACK TO
//     SAVEPOINT: the branch cannot be ended through the handle;
//   - a text that would end the branch is refused before anything is sent;
//   - any statement error makes the branch rollback-only (rule R9), unless it is
//     undone by rolling back to a savepoint set before it;
//   - a lost session is never replaced silently: database/sql's habit of
//     repeating a statement on another connection is switched off.
//
// The handle's Driver is the one in Config. A driver connection got from it with
// (*sql.Conn).Raw is this package's, not the driver's.
package pinned

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/troth-tx/troth/internal/sqltext"
)

// BufferLimit is how many bytes of result sets a Session reads into memory so
// that another statement can run while they are open.
const BufferLimit = 64 << 20

// Config says what a Session is made of. Resource, Dialect, Conn and Start are required.
type Config struct {
	// Resource is the name of the resource, for messages.
	Resource string

	Dialect sqltext.Dialect

	// Conn is the session. It belongs to the Session until Release: nobody else
	// may use it, for the Session keeps the driver connection behind it.
	Conn *sql.Conn

	// Driver is what the handle's Driver method returns: pass that of the *sql.DB
	// from which Conn is. Nil is a driver that only fails.
	Driver driver.Driver

	// Start begins the branch on the session. It is called at most once, before the first
	// statement. If it fails the branch counts as started and failed, for good.
	Start func(ctx context.Context, dc driver.Conn) error

	// StartExec begins the branch and runs its first statement in one round trip.
	// driver.ErrSkip or ErrNotJoined mean that it did nothing because it
	// cannot do so for this statement: then Start is called. Any other error
	// counts as one of a statement in a branch that has begun. Nil if there is no such way.
	StartExec func(ctx context.Context, dc driver.Conn, query string, args []driver.NamedValue) (driver.Result, error)

	// StartQuery is StartExec for a statement that returns rows.
	StartQuery func(ctx context.Context, dc driver.Conn, query string, args []driver.NamedValue) (driver.Rows, error)

	// Context is the transaction's: its end cancels a running statement and those
	// that wait, and refuses those that come later. It does not bound Raw. Nil
	// means that only the statements' own contexts count.
	Context context.Context //nolint:containedctx // the lifetime of the branch, not of a call

	// ContextKey is a key under which Context has a value, comparable and its own
	// (a pointer to the transaction). A statement whose context has the same value
	// under it descends from Context and needs no second watch. Nil watches always.
	ContextKey any

	// Lost tells whether the session is gone, after err. It is asked in addition to
	// driver.ErrBadConn, driver.Validator and a few errors known to be fatal;
	// needed for drivers without Validator (pgx). Nil if there is nothing to add.
	Lost func(dc driver.Conn, err error) bool
}

// A Change tells what is known about a branch having changed anything.
//
// PostgreSQL: ChangeNo proves nothing, for a SELECT may call a function that writes;
// ask pg_current_xact_id_if_assigned. ChangeMaybe: ask as well. ChangeYes: it did.
//
// MySQL: ChangeNo means that no text could write, save through a view that calls a
// stored function. The server cannot be asked, so ChangeMaybe counts as a change.
//
// SQLite: ChangeNo means that no text could write, save through an application-defined
// function; ChangeMaybe counts as a change.
//
// Work undone by rolling back to a savepoint still counts. So do the rows
// of ChangeYes; only the RM's own statements (Raw, Start) never do.
type Change uint8

const (
	// ChangeNo means that no statement of kind sqltext.Write was sent.
	ChangeNo Change = iota
	// ChangeMaybe means that one was sent, but the client did not hear of a changed row: it was
	// sent as a query (INSERT ... RETURNING), failed, locked rows only, was DDL, or matched no row.
	ChangeMaybe
	// ChangeYes means that an Exec reported more than zero rows affected.
	ChangeYes
)
