package simdb

import (
	"hash/fnv"
	"strconv"
	"strings"
	"time"
)

// postgres is the engine of PostgreSQL 15: READ COMMITTED and REPEATABLE READ.
// SERIALIZABLE is not simulated.
type postgres struct {
	srv      *Server
	settings map[string]string // of the server
	system   int64             // its identifier
	forced   uint64            // the last number that is on disk
	boot     time.Time
}

// pgSession is what a session of PostgreSQL has.
type pgSession struct {
	block    bool      // BEGIN was said
	failed   bool      // and a statement failed since
	settings []setting // made with SET, newest last
	begun    int       // how many of them when the transaction began
}

// A setting of a session, or of a transaction.
type setting struct {
	name, value string
	local       bool
}

func newPostgres(srv *Server) engine {
	h := fnv.New64a()
	_, _ = h.Write([]byte(srv.opt.Name))
	return &postgres{
		srv: srv, system: int64(h.Sum64() >> 1), forced: srv.lastNumber, boot: srv.now(),
		settings: map[string]string{
			"server_version":            "15.18",
			"server_version_num":        "150018",
			"max_prepared_transactions": strconv.Itoa(max(srv.opt.MaxPrepared, 0)),
			"max_connections":           strconv.Itoa(srv.opt.MaxSessions),
			"fsync":                     "on", "full_page_writes": "on", "synchronous_commit": "on",
			"lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
			"default_transaction_isolation": "read committed",
		},
	}
}

func (pg *postgres) schema() string { return "public" }

// admit sees to it that there is a transaction, and that a failed one goes no
// further.
func (pg *postgres) admit(c *call) error {
	s := c.s
	ctl, isControl := c.st.(*pgControl)
	if s.pg.failed && (!isControl || !ctl.endsFailed()) {
		return &Error{Code: "25P02", Message: "current transaction is aborted, commands ignored until end of transaction block"}
	}
	if isControl {
		return nil
	}
	if _, ok := c.st.(*createStatement); ok && s.pg.block {
		return pg.srv.unknown(c, "CREATE TABLE in a transaction block")
	}
	if s.tx == nil {
		pg.begin(s)
	}
	if _, isAction := c.st.(action); s.tx.isolated && !isAction {
		s.tx.takeSnapshot()
	}
	return nil
}

func (pg *postgres) begin(s *Session) {
	s.begin()
	s.tx.isolated = pg.setting(s, "default_transaction_isolation") == "repeatable read"
	s.pg.begun = len(s.pg.settings)
}

// conclude fails the transaction with the statement. What was done since the
// newest savepoint is undone at once, with its locks; all of it if there is none.
func (pg *postgres) conclude(c *call, err error) error {
	s := c.s
	if err == nil || !s.pg.block {
		return err // finish sees to it
	}
	if ctl, ok := c.st.(*pgControl); ok && ctl.verb == pgPrepare {
		return err // it has ended the transaction
	}
	s.pg.failed = true
	if s.tx != nil {
		if n := len(s.tx.marks); n > 0 {
			s.tx.undoTo(s.tx.marks[n-1])
		} else {
			pg.rollback(s, s)
		}
	}
	return err
}

// finish ends the transaction of a request that said no BEGIN.
func (pg *postgres) finish(s *Session, err error) error {
	switch {
	case s.pg.block || s.tx == nil:
	case err != nil:
		pg.rollback(s, s)
	default:
		pg.commit(s)
	}
	return err
}

func (pg *postgres) leave(s *Session) {
	if s.tx != nil {
		pg.rollback(s, nil)
	}
	s.pg = pgSession{}
}

// commit commits the session's transaction.
func (pg *postgres) commit(s *Session) {
	tx := s.tx
	told := tx.number != 0
	tx.commit()
	pg.over(s, false)
	if told {
		pg.force()
		pg.srv.tell(Committed, s, "")
	}
}

// rollback rolls the session's transaction back.
func (pg *postgres) rollback(s, by *Session) {
	tx := s.tx
	told := tx.number != 0
	tx.rollback()
	if !s.pg.failed {
		pg.over(s, true)
	}
	if told {
		pg.srv.tell(RolledBack, by, "")
	}
}

// over ends what settings held for the transaction: SET LOCAL, and also SET if it
// was rolled back.
func (pg *postgres) over(s *Session, undone bool) {
	if len(s.pg.settings) == 0 {
		return
	}
	kept := s.pg.settings[:min(s.pg.begun, len(s.pg.settings))]
	for _, set := range s.pg.settings[len(kept):] {
		if !set.local && !undone {
			kept = append(kept, set)
		}
	}
	s.pg.settings = kept
	s.pg.begun = len(kept)
}

// setting is the value of a setting in a session, "" if there is none.
func (pg *postgres) setting(s *Session, name string) string {
	for i := len(s.pg.settings) - 1; i >= 0; i-- {
		if s.pg.settings[i].name == name {
			return s.pg.settings[i].value
		}
	}
	return pg.settings[name]
}

// LockTimeout is how long a statement of the session may wait for a lock, by the
// settings; 0: for ever. Whoever schedules calls Expire then.
func (s *Session) LockTimeout() time.Duration {
	switch e := s.srv.eng.(type) {
	case *postgres:
		return pgDuration(e.setting(s, "lock_timeout"))
	case interface {
		lockTimeout(s *Session) time.Duration
	}:
		return e.lockTimeout(s)
	}
	return 0
}

// IdleTimeout is how long the session may sit idle in the transaction that it is
// in, by the settings; 0: for ever, or it is in none. Whoever schedules calls
// ExpireIdle then.
func (s *Session) IdleTimeout() time.Duration {
	switch e := s.srv.eng.(type) {
	case *postgres:
		if s.pg.block && !s.req.running {
			return pgDuration(e.setting(s, "idle_in_transaction_session_timeout"))
		}
	case interface {
		idleTimeout(s *Session) time.Duration
	}:
		return e.idleTimeout(s)
	}
	return 0
}

// ExpireIdle ends the session as the server does whose timeout for idle
// transactions is over.
func (s *Session) ExpireIdle() {
	var fate error
	if s.srv.kind == Postgres {
		fate = &Error{Code: "25P03", Message: "terminating connection due to idle-in-transaction timeout", Fatal: true}
	}
	s.end(fate)
}

// pgUnits are the units of durations in settings, longest first.
var pgUnits = []struct {
	name string
	d    time.Duration
}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}

// pgDuration reads a duration as a setting has it: milliseconds without a unit.
func pgDuration(text string) time.Duration {
	digits := span(text, isDigit)
	n, _ := strconv.ParseInt(text[:digits], 10, 64)
	unit := strings.TrimSpace(text[digits:])
	for _, u := range pgUnits {
		if u.name == unit {
			return time.Duration(n) * u.d
		}
	}
	return time.Duration(n) * time.Millisecond
}

// pgDurationText writes it in the longest unit that loses nothing.
func pgDurationText(d time.Duration) string {
	for _, u := range pgUnits {
		if d >= u.d && d%u.d == 0 {
			return strconv.FormatInt(int64(d/u.d), 10) + u.name
		}
	}
	return "0"
}

// claim waits for whoever changes the row of the key: inserts it, deletes it,
// changes it. A mere lock keeps nobody from finding the key taken.
func (pg *postgres) claim(c *call, r *row) (bool, error) {
	if err := c.awaitChange(r); err != nil {
		return false, err
	}
	taken := r.visible(c.s.tx, 0) != nil
	if !taken && c.s.tx.isolated && r.dirty == nil && r.visible(nil, c.s.tx.seen) != nil {
		// It would see two rows of one key from now on: the deleted one, and its own.
		return false, pg.srv.unknown(c, "in REPEATABLE READ, INSERT of a key that was deleted since")
	}
	if in, ok := c.st.(*insertStatement); ok && in.nothing && taken && c.s.tx.isolated && r.dirty == nil && r.at > c.s.tx.seen {
		return false, errSerialization
	}
	if !taken {
		r.grant(c.s.tx, lockExclusive)
	}
	return taken, nil
}

var errSerialization = &Error{Code: "40001", Message: "could not serialize access due to concurrent update"}

func (pg *postgres) numbered(c *call) { c.s.tx.write() }

func (pg *postgres) lockRow(c *call, r *row) error {
	c.s.tx.write()
	if c.s.tx.outdated(r) && (c.s.wait == nil || !c.s.blocked()) {
		return errSerialization
	}
	return c.lock(r, lockExclusive)
}

func (pg *postgres) locksAll() bool        { return false }
func (pg *postgres) countsFound() bool     { return true }
func (pg *postgres) barges() bool          { return true }
func (pg *postgres) undoFrees() bool       { return true }
func (pg *postgres) snapshot(tx *txn) bool { return tx.isolated }
func (pg *postgres) victim(c []*txn) *txn  { return c[0] } // the last whose timer runs
func (pg *postgres) restart()              { pg.boot = pg.srv.now() }
func (pg *postgres) find(gid string) *txn  { return findPrepared(pg.srv, gid) }
func (pg *postgres) deadlocked() error     { return &Error{Code: "40P01", Message: "deadlock detected"} }

func (pg *postgres) timedOut() error {
	return &Error{Code: "55P03", Message: "canceling statement due to lock timeout"}
}

func (pg *postgres) duplicate(t *table, _ string) error {
	return &Error{Code: "23505", Message: `duplicate key value violates unique constraint "` + t.name + `_pkey"`}
}

func (pg *postgres) mistake(m mistake, detail string) error {
	e := pgMistakes[m]
	e.Message = strings.ReplaceAll(e.Message, "%", detail)
	return &e
}

var pgMistakes = map[mistake]Error{
	mistakeArguments:   {Code: "08P01", Message: "%"},
	mistakeColumn:      {Code: "42703", Message: `column "%" does not exist`},
	mistakeTable:       {Code: "42P01", Message: `relation "%" does not exist`},
	mistakeTableExists: {Code: "42P07", Message: `relation "%" already exists`},
	mistakeType:        {Code: "22P02", Message: `invalid input: %`},
	mistakeDivision:    {Code: "22012", Message: "division by zero"},
	mistakeManyRows:    {Code: "21000", Message: "more than one row returned by a subquery used as an expression"},
	mistakeNull:        {Code: "23502", Message: `null value in column "%" violates not-null constraint`},
	mistakeCheck:       {Code: "23514", Message: `new row for relation "%" violates check constraint`},
	mistakeLong:        {Code: "22001", Message: "value too long for type character varying: %"},
}

// crash loses the numbers of transactions that never reached the log on disk: the
// server gives them out again. (Every forced write takes along what was logged
// before it; what came after the last one is anybody's guess.)
func (pg *postgres) crash() {
	lost := pg.srv.opt.Rand(int(pg.srv.lastNumber-pg.forced) + 1)
	pg.srv.lastNumber -= uint64(lost)
	pg.srv.ends = pg.srv.ends[:len(pg.srv.ends)-lost]
}

// force notes a forced write.
func (pg *postgres) force() { pg.forced = pg.srv.lastNumber }

// findPrepared finds a prepared transaction by its name.
func findPrepared(srv *Server, name string) *txn {
	for _, tx := range srv.prepared {
		if tx.name == name {
			return tx
		}
	}
	return nil
}
