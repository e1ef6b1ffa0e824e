package simdb

// An engine is what one kind of server does in its own way. The common part calls
// it; it may use all of the package.
type engine interface {
	// whole recognises a text as a whole, before anything tries to read it; nil if
	// it does not know it.
	whole(text string) statement

	// statement reads a statement that begins with word, in upper case and taken
	// already; nil if it is not one of the engine's own. It may also take over words
	// of the common language (SELECT, INSERT ...).
	statement(p *parser, word string) statement

	// function finds an SQL function by its name in lower case without a schema;
	// special reads an expression that begins with a word in a way of its own
	// (nil: it is not special, nothing was taken); variable is what "@@name" is.
	function(name string) function
	special(p *parser) expr
	variable(c *call, name string) (any, error)

	// relation is a table that the server computes (a system catalog). ok is false
	// if there is none of that name.
	relation(c *call, t tableName) (names []string, rows [][]any, ok bool, err error)

	// schema is the name of the schema in which tables are.
	schema() string

	// admit is called before a statement begins; its error is the statement's. It
	// sees to it that the session has a transaction (c.s.tx) if the statement
	// needs one. It may wait (errBlocked), and is called again then.
	admit(c *call) error

	// conclude is called when a statement has ended, well or not, and returns the
	// error that the client hears: here a transaction of a single statement
	// commits, or one that cannot go on is rolled back.
	conclude(c *call, err error) error

	// finish is called when a request has ended: all its statements, or the first
	// that failed.
	finish(s *Session, err error) error

	// leave is called when a session ends, whatever ended it: its open transaction
	// is rolled back, unless it lives on.
	leave(s *Session)

	// claim is called before a row with a new key is inserted: it locks the row, or
	// waits with c.s.wait for others that might insert or delete it. taken: the key is
	// there.
	claim(c *call, r *row) (taken bool, err error)

	// numbered is called when a transaction is about to insert, which gives it its
	// number in some servers even if it then fails.
	numbered(c *call)

	// lockRow locks a row for SELECT ... FOR UPDATE, UPDATE and DELETE. locksAll:
	// these lock every row that they look at, also a key that is missing; not only
	// those that meet the condition. countsFound: an UPDATE counts rows that it did
	// not change.
	lockRow(c *call, r *row) error
	locksAll() bool
	countsFound() bool

	// barges reports whether a lock that is free is given to a newcomer although
	// others wait for it, and undoFrees whether undoing work also gives up the
	// locks that it took (rolling back to a savepoint, a failed statement).
	barges() bool
	undoFrees() bool

	// victim chooses who of a cycle of transactions is told of the deadlock. The
	// first is the one whose wait would close it.
	victim(cycle []*txn) *txn

	// snapshot reports whether plain SELECTs of the transaction see what was
	// committed when the first of them ran, not what is committed now.
	snapshot(tx *txn) bool

	// Errors as the server words them.
	mistake(m mistake, detail string) error
	duplicate(t *table, key string) error
	deadlocked() error
	timedOut() error

	// crash is kill -9, when all sessions have ended already: what does not last is
	// lost. restart brings the server up again.
	crash()
	restart()
}

// A mistake is an error that every kind of server knows, by a code of its own.
type mistake uint8

const (
	mistakeArguments   mistake = 1 + iota // placeholders and arguments do not fit
	mistakeColumn                         // no such column
	mistakeTable                          // no such table
	mistakeTableExists                    // it is there already
	mistakeType                           // a value is of the wrong type
	mistakeDivision                       // by zero
	mistakeManyRows                       // of a subquery
	mistakeNull                           // in a column that is NOT NULL
	mistakeCheck                          // a CHECK of the table
	mistakeLong                           // a text does not fit in its column
)

// An Error is a server's answer to a statement that it refused.
type Error struct {
	Code    string // SQLSTATE of PostgreSQL; the number of MariaDB or SQLite
	Message string
	State   string // SQLSTATE of MariaDB
	Fatal   bool   // the server ends the session with it
}

func (e *Error) Error() string { return e.Message + " (" + e.Code + ")" }
