package simdb

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// sqlite is the engine of SQLite in WAL mode: readers see a snapshot and wait for
// nobody, and there is one writer at a time.
type sqlite struct {
	srv *Server

	// writer stands for the lock that a writer holds: it is dirty while one does.
	// Who waits for it asks again and again in the real SQLite, so there is no queue.
	writer row
}

// sqliteSession is what a connection of SQLite has.
type sqliteSession struct {
	block   bool // BEGIN was said
	changes int64
	pragmas map[string]string
}

func newSQLite(srv *Server) engine {
	return &sqlite{srv: srv, writer: row{table: &table{srv: srv}}}
}

func (lite *sqlite) schema() string { return "main" }

// admit gives a statement its transaction, and a write the lock.
func (lite *sqlite) admit(c *call) error {
	s := c.s
	switch st := c.st.(type) {
	case action, *liteControl:
		return nil
	case *createStatement:
		if s.sqlite.block {
			return lite.srv.unknown(c, "CREATE TABLE in a transaction")
		}
	case *selectQuery:
		if st.lock {
			return lite.srv.unknown(c, "FOR UPDATE")
		}
		lite.begin(s)
		c.mark = s.tx.mark("")
		s.tx.takeSnapshot()
		return nil
	}
	lite.begin(s)
	c.mark = s.tx.mark("")
	return lite.lock(c)
}

func (lite *sqlite) begin(s *Session) {
	if s.tx == nil {
		s.begin()
		s.tx.isolated = true
	}
}

// lock makes the session's transaction the writer. One that has read already does
// not wait, for it could not go on with what it has read.
func (lite *sqlite) lock(c *call) error {
	tx := c.s.tx
	if lite.writer.dirty == tx {
		return nil
	}
	if lite.writer.dirty != nil && (tx.seen != 0 || c.s.pragma("busy_timeout") == "0") {
		return errLiteBusy
	}
	if err := c.awaitChange(&lite.writer); err != nil {
		return err
	}
	if tx.seen != 0 && tx.seen != lite.srv.commits {
		return &Error{Code: "517", Message: "database is locked"}
	}
	lite.writer.dirty = tx
	tx.takeSnapshot()
	return nil
}

var errLiteBusy = &Error{Code: "5", Message: "database is locked"}

// conclude undoes a statement that failed; its transaction goes on.
func (lite *sqlite) conclude(c *call, err error) error {
	s := c.s
	switch {
	case s.tx == nil:
		return err
	case err == nil:
		if lite.writer.dirty == s.tx {
			s.sqlite.changes += int64(len(s.tx.undo) - min(c.mark.undo, len(s.tx.undo)))
		}
	case lite.writer.dirty == s.tx:
		s.tx.undoTo(c.mark)
	}
	if !s.sqlite.block {
		lite.end(s, err == nil)
	}
	return err
}

// end ends the session's transaction.
func (lite *sqlite) end(s *Session, keep bool) {
	tx := s.tx
	told := tx.number != 0
	kind := RolledBack
	if keep {
		kind = Committed
		tx.commit()
	} else {
		tx.rollback()
	}
	if lite.writer.dirty == tx {
		lite.writer.dirty = nil
	}
	s.sqlite.block = false
	if told {
		lite.srv.tell(kind, s, "")
	}
}

func (lite *sqlite) finish(_ *Session, err error) error { return err }

func (lite *sqlite) leave(s *Session) {
	if s.tx != nil {
		lite.end(s, false)
	}
	s.sqlite = sqliteSession{}
}

func (lite *sqlite) claim(c *call, r *row) (bool, error) {
	taken := r.visible(c.s.tx, 0) != nil
	if !taken {
		r.grant(c.s.tx, lockExclusive)
	}
	return taken, nil
}

func (lite *sqlite) numbered(*call)            {}
func (lite *sqlite) lockRow(*call, *row) error { return nil }
func (lite *sqlite) locksAll() bool            { return false }
func (lite *sqlite) countsFound() bool         { return true }
func (lite *sqlite) barges() bool              { return true }
func (lite *sqlite) undoFrees() bool           { return true }
func (lite *sqlite) victim(cycle []*txn) *txn  { return cycle[0] }
func (lite *sqlite) snapshot(*txn) bool        { return true }
func (lite *sqlite) deadlocked() error         { return errLiteBusy }
func (lite *sqlite) timedOut() error           { return errLiteBusy }
func (lite *sqlite) crash()                    {}
func (lite *sqlite) restart()                  {}

func (lite *sqlite) lockTimeout(s *Session) time.Duration {
	ms, _ := strconv.ParseInt(s.pragma("busy_timeout"), 10, 64) // a number, or it would not be there
	return time.Duration(ms) * time.Millisecond
}

func (lite *sqlite) idleTimeout(*Session) time.Duration { return 0 }

// liteControl is a statement about transactions.
type liteControl struct {
	verb pgVerb
	name string // of the savepoint
	now  bool   // BEGIN IMMEDIATE
}

func (lite *sqlite) whole(string) statement { return nil }

func (lite *sqlite) statement(p *parser, word string) statement {
	switch word {
	case "BEGIN":
		ctl := &liteControl{verb: pgBegin, now: p.words("IMMEDIATE")}
		_ = p.words("DEFERRED")
		_ = p.words("TRANSACTION")
		return ctl
	case "COMMIT", "END":
		return &liteControl{verb: pgCommit}
	case "ROLLBACK":
		if p.words("TO") {
			_ = p.words("SAVEPOINT")
			return &liteControl{verb: pgRollbackTo, name: p.name()}
		}
		return &liteControl{verb: pgRollback}
	case "SAVEPOINT":
		return &liteControl{verb: pgSavepoint, name: p.name()}
	case "RELEASE":
		_ = p.words("SAVEPOINT")
		return &liteControl{verb: pgRelease, name: p.name()}
	case "PRAGMA":
		return lite.pragmaStatement(p)
	}
	return nil
}

func liteError(message string) error {
	return &Error{Code: "1", Message: "SQL logic error: " + message}
}

func (ctl *liteControl) start(*call) (activity, error) { return ctl, nil }

func (ctl *liteControl) step(c *call) (Result, error) {
	lite := c.eng().(*sqlite)
	s := c.s
	tag := Result{Tag: "OK"}
	if ctl.verb == pgBegin {
		if s.sqlite.block && ctl.now { // the real one may take the lock, and fail
			return tag, lite.srv.unknown(c, "BEGIN IMMEDIATE in a transaction")
		}
		lite.begin(s)
		c.mark = s.tx.mark("")
		if ctl.now {
			if err := lite.lock(c); err != nil {
				return tag, err // conclude drops the transaction
			}
		}
		if s.sqlite.block {
			return tag, liteError("cannot start a transaction within a transaction")
		}
		s.sqlite.block = true
		return tag, nil
	}
	if !s.sqlite.block {
		switch ctl.verb {
		case pgCommit:
			return tag, liteError("cannot commit - no transaction is active")
		case pgRollback:
			return tag, liteError("cannot rollback - no transaction is active")
		case pgSavepoint: // would begin a transaction; nothing of ours does so
			return tag, lite.srv.unknown(c, "SAVEPOINT outside of a transaction")
		case pgBegin, pgRelease, pgRollbackTo, pgPrepare, pgCommitPrepared, pgRollbackPrepared:
		}
		return tag, liteError("no such savepoint: " + ctl.name)
	}
	c.mark = s.tx.mark("") // conclude undoes nothing
	switch ctl.verb {
	case pgCommit:
		if s.tx.number != 0 && c.lingers(Committed, "") {
			return tag, errBlocked
		}
		lite.end(s, true)
	case pgRollback:
		lite.end(s, false)
	case pgSavepoint:
		s.tx.marks = append(s.tx.marks, s.tx.mark(ctl.name))
	case pgRelease, pgRollbackTo:
		i := s.tx.savepoint(ctl.name)
		if i < 0 {
			return tag, liteError("no such savepoint: " + ctl.name)
		}
		if ctl.verb == pgRelease {
			s.tx.marks = s.tx.marks[:i]
			return tag, nil
		}
		s.tx.undoTo(s.tx.marks[i])
		s.tx.marks = s.tx.marks[:i+1]
		c.mark = s.tx.mark("")
	case pgBegin, pgPrepare, pgCommitPrepared, pgRollbackPrepared: // SQLite has only the first, see above
	}
	return tag, nil
}

// Defaults of a connection.
var litePragmas = map[string]string{
	"busy_timeout": "0", "journal_mode": "wal", "synchronous": "2", "foreign_keys": "0", "query_only": "0",
	"read_uncommitted": "0", "locking_mode": "normal",
}

func (s *Session) pragma(name string) string {
	if v, ok := s.sqlite.pragmas[name]; ok {
		return v
	}
	return litePragmas[name]
}

// pragmaStatement reads PRAGMA [schema.]name [= value].
func (lite *sqlite) pragmaStatement(p *parser) statement {
	name := p.name()
	if p.op(".") {
		if name != "main" {
			p.fail("a schema that is not simulated")
		}
		name = p.name()
	}
	_, known := litePragmas[name]
	if !known && name != "database_list" && name != "schema_version" {
		p.i--
		p.fail("a pragma that is not simulated")
	}
	if !p.op("=") {
		return action(func(c *call) (Result, error) { return lite.askPragma(c, name), nil })
	}
	value := strings.ToLower(p.take().text)
	if n, ok := map[string]string{"off": "0", "normal": "1", "full": "2", "extra": "3", "on": "1"}[value]; ok && name != "locking_mode" {
		value = n
	}
	if !known || name == "journal_mode" && value != "wal" || name == "locking_mode" && value != "normal" || name == "query_only" && value != "0" {
		p.i--
		p.fail("a pragma whose change is not simulated")
	}
	return action(func(c *call) (Result, error) {
		if name == "synchronous" && c.s.sqlite.block {
			return Result{}, liteError("Safety level may not be changed inside a transaction")
		}
		if c.s.sqlite.pragmas == nil {
			c.s.sqlite.pragmas = map[string]string{}
		}
		c.s.sqlite.pragmas[name] = value
		if name == "busy_timeout" || name == "journal_mode" || name == "locking_mode" {
			return lite.askPragma(c, name), nil
		}
		return Result{Tag: "OK"}, nil
	})
}

func (lite *sqlite) askPragma(c *call, name string) Result {
	switch name {
	case "database_list":
		return Result{Tag: "OK", Columns: []string{"seq", "name", "file"}, Rows: [][]any{{int64(0), "main", ""}}}
	case "schema_version":
		return one("OK", name, int64(len(lite.srv.tables)))
	}
	value := c.s.pragma(name)
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return one("OK", name, n)
	}
	return one("OK", name, value)
}

func (lite *sqlite) special(*parser) expr { return nil }

func (lite *sqlite) variable(*call, string) (any, error) {
	return nil, liteError(`near "@@": syntax error`)
}

func (lite *sqlite) function(name string) function { return liteFunctions[name] }

// julianEpoch is the Julian day of 1970, as SQLite counts days.
const julianEpoch = 2440587.5

var liteFunctions = map[string]function{
	"sqlite_version": constantly("3.50.0"),
	"total_changes":  func(e *env, _ []any) (any, error) { return e.c.s.sqlite.changes, nil },
	"round": func(_ *env, args []any) (any, error) {
		f, ok := toFloat(args[0])
		if !ok {
			return nil, nil
		}
		return math.Round(f), nil
	},
	"julianday": func(e *env, args []any) (any, error) {
		if len(args) != 1 || args[0] != "now" {
			return nil, liteError("julianday of another time than now is not simulated")
		}
		return float64(e.c.s.srv.now().UnixMilli())/86400000 + julianEpoch, nil
	},
}

func (lite *sqlite) relation(_ *call, t tableName) (names []string, rows [][]any, ok bool, err error) {
	if t.name != "sqlite_master" || t.schema != "" && t.schema != "main" {
		return nil, nil, false, nil
	}
	for name := range lite.srv.tables {
		rows = append(rows, []any{name, "table"})
	}
	return []string{"name", "type"}, sortRows(rows), true, nil
}

func (lite *sqlite) duplicate(t *table, _ string) error {
	columns := make([]string, len(t.key))
	for i, col := range t.key {
		columns[i] = t.name + "." + t.names[col]
	}
	return &Error{Code: "1555", Message: "constraint failed: UNIQUE constraint failed: " + strings.Join(columns, ", ")}
}

func (lite *sqlite) mistake(m mistake, detail string) error {
	e := liteMistakes[m]
	e.Message = strings.ReplaceAll(e.Message, "%", detail)
	return &e
}

var liteMistakes = map[mistake]Error{
	mistakeArguments:   {Code: "1", Message: "SQL logic error: %"},
	mistakeColumn:      {Code: "1", Message: "SQL logic error: no such column: %"},
	mistakeTable:       {Code: "1", Message: "SQL logic error: no such table: %"},
	mistakeTableExists: {Code: "1", Message: "SQL logic error: table % already exists"},
	mistakeType:        {Code: "3091", Message: "constraint failed: cannot store this value in column %"},
	mistakeDivision:    {Code: "1", Message: "SQL logic error: division by zero"}, // SQLite says NULL: nothing of ours divides there
	mistakeManyRows:    {Code: "1", Message: "SQL logic error: many rows"},        // SQLite takes the first
	mistakeNull:        {Code: "1299", Message: "constraint failed: NOT NULL constraint failed: %"},
	mistakeCheck:       {Code: "275", Message: "constraint failed: CHECK constraint failed: %"},
	mistakeLong:        {Code: "18", Message: "string or blob too big: %"},
}
