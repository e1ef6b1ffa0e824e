package simdb

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Kind is a kind of database server.
type Kind uint8

// The kinds.
const (
	Postgres Kind = 1 + iota
	MariaDB
	SQLite
)

func (k Kind) String() string {
	switch k {
	case Postgres:
		return "PostgreSQL"
	case MariaDB:
		return "MariaDB"
	case SQLite:
		return "SQLite"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Options configure a Server. The zero value is a server with a clock that stands
// still, without a binary log, that prepares up to 64 transactions.
type Options struct {
	Name string // of the server, for messages and its identity

	// Now is the server's clock. nil: it stands still.
	Now func() time.Time

	// Rand makes the choices that real servers make at random. nil: always 0.
	Rand func(n int) int

	// On hears of every transaction that takes effect, in that very instant. It must
	// not use the server's sessions; Rows and Prepared are fine.
	On func(Event)

	// Linger has a statement pause at the brink of an event if it returns true, as
	// a forced write does: nothing has happened yet, others may run, and the
	// statement answers ErrWait although it is Ready at once. nil: none does.
	Linger func(Event) bool

	Binlog      bool // MariaDB: log_bin is on
	MaxPrepared int  // PostgreSQL: max_prepared_transactions; 0 is 64, less than 0 is none
	MaxSessions int  // 0 is 100
}

// An Event is the instant at which a transaction takes effect.
type Event struct {
	Kind    EventKind
	Session uint64 // whose statement it was; 0: nobody's, the server itself did it
	Name    string // of the prepared transaction, as the server writes it; "" if it has none
}

// An EventKind says what happened to a transaction.
type EventKind uint8

// The kinds of events. Transactions that neither changed nor locked anything have
// none, unless they are prepared.
const (
	Committed        EventKind = 1 + iota // in one phase
	RolledBack                            // before it was prepared, by whomever
	PreparedKind                          // it is prepared
	CommitPrepared                        // a prepared one is committed
	RollbackPrepared                      // a prepared one is rolled back
	Resurrected                           // a crash brought back a prepared one that was rolled back (MariaDB)
	LocksLost                             // a prepared one lost its locks (MariaDB)
)

func (k EventKind) String() string {
	return [...]string{"none", "committed", "rolled back", "prepared", "commit prepared", "rollback prepared", "resurrected", "locks lost"}[k]
}

var (
	// ErrWait says that the statement waits for a lock, and nothing was answered:
	// call Resume.
	ErrWait = errors.New("simdb: the statement waits for a lock")

	// ErrGone says that the session has ended, so that a client finds its connection
	// broken: what became of the statement is not told.
	ErrGone = errors.New("simdb: the session is gone")

	// ErrDown is Connect's error while the server is down.
	ErrDown = errors.New("simdb: the server is down")
)

// A Server is one simulated database server. It is used by one caller at a time.
type Server struct {
	kind Kind
	opt  Options
	eng  engine
	up   bool

	tables   map[string]*table
	sessions []*Session // alive, oldest first

	// yield is for tests: whether others that can go on do so now, between two rows of
	// a statement. nil: no.
	yield func() bool

	// pick is for tests: which of n goes first where that is chance on a real server.
	// nil: the first.
	pick     func(n int) int
	prepared []*txn // in the order in which they were prepared
	lastID   uint64 // of a session

	commits    uint64 // a clock for snapshots, ticking with every commit
	snapshots  int    // held by transactions
	lastNumber uint64 // of a transaction
	ends       []ending

	texts   map[string][]statement // read before
	refused []string
}

// New makes a server without tables, and starts it.
func New(kind Kind, opt Options) *Server {
	if opt.Now == nil {
		opt.Now = func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
	}
	if opt.Rand == nil {
		opt.Rand = func(int) int { return 0 }
	}
	if opt.On == nil {
		opt.On = func(Event) {}
	}
	if opt.MaxSessions == 0 {
		opt.MaxSessions = 100
	}
	if opt.MaxPrepared == 0 {
		opt.MaxPrepared = 64
	}
	s := &Server{
		kind: kind, opt: opt, up: true, lastID: 100, commits: 1, lastNumber: firstNumber - 1,
		tables: map[string]*table{}, texts: map[string][]statement{},
	}
	switch kind {
	case Postgres:
		s.eng = newPostgres(s)
	case MariaDB:
		s.eng = newMaria(s)
	case SQLite:
		s.eng = newSQLite(s)
	}
	return s
}

func (srv *Server) now() time.Time { return srv.opt.Now() }

// Up reports whether the server runs.
func (srv *Server) Up() bool { return srv.up }

// Connect begins a session. The error is ErrDown, or an *Error if there are too
// many sessions.
func (srv *Server) Connect() (*Session, error) {
	if !srv.up {
		return nil, ErrDown
	}
	if len(srv.sessions) >= srv.opt.MaxSessions {
		return nil, srv.tooMany()
	}
	srv.lastID++
	s := &Session{srv: srv, id: srv.lastID, born: srv.now(), alive: true}
	srv.sessions = append(srv.sessions, s)
	return s, nil
}

func (srv *Server) tooMany() *Error {
	if srv.kind == MariaDB {
		return &Error{Code: "1040", State: "08004", Message: "Too many connections", Fatal: true}
	}
	return &Error{Code: "53300", Message: "sorry, too many clients already", Fatal: true}
}

// Kill is kill -9: all sessions die at once, and what is not durable is lost.
func (srv *Server) Kill() {
	srv.up = false // engines tell by it that no session ends in an orderly way
	for len(srv.sessions) > 0 {
		srv.sessions[0].end(nil)
	}
	srv.eng.crash()
}

// Restart starts the server after Kill. It does nothing to one that runs.
func (srv *Server) Restart() {
	if !srv.up {
		srv.up = true
		srv.eng.restart()
	}
}

// Rows lists the committed rows of a table in the order of its primary key,
// whatever is locked; nil if there is no such table. The values are the caller's
// to read, not to change.
func (srv *Server) Rows(name string) [][]any {
	t := srv.tables[name]
	if t == nil {
		return nil
	}
	var list [][]any
	for _, r := range t.sorted {
		if r.was != nil {
			list = append(list, r.was)
		}
	}
	return list
}

// Columns names the columns of a table in the order of Rows.
func (srv *Server) Columns(name string) []string {
	if t := srv.tables[name]; t != nil {
		return slices.Clone(t.names)
	}
	return nil
}

// Prepared lists the names of the prepared transactions, as the server writes
// them, oldest first.
func (srv *Server) Prepared() []string {
	list := make([]string, len(srv.prepared))
	for i, tx := range srv.prepared {
		list[i] = tx.name
	}
	return list
}

// Sessions lists the sessions that are alive, oldest first.
func (srv *Server) Sessions() []*Session { return slices.Clone(srv.sessions) }

// Session finds a session that is alive by its ID, nil if there is none.
func (srv *Server) Session(id uint64) *Session {
	for _, s := range srv.sessions {
		if s.id == id {
			return s
		}
	}
	return nil
}

// Refused lists the texts that the simulation did not know. A run that has any
// proves nothing.
func (srv *Server) Refused() []string { return srv.refused }

func (srv *Server) tell(kind EventKind, by *Session, name string) {
	e := Event{Kind: kind, Name: name}
	if by != nil {
		e.Session = by.id
	}
	srv.opt.On(e)
}

// textsMax bounds how many texts are remembered. Texts with a branch's name in them
// come only once or twice, so all are forgotten when there are many.
const textsMax = 512

// read parses a text, or remembers it.
func (srv *Server) read(text string) ([]statement, error) {
	if list, ok := srv.texts[text]; ok {
		return list, nil
	}
	list, err := parse(srv.kind, srv.eng, text)
	var unknown *UnknownError
	switch {
	case errors.As(err, &unknown):
		srv.refused = append(srv.refused, text)
		return nil, err
	case err != nil:
		return nil, err
	}
	if len(srv.texts) >= textsMax {
		clear(srv.texts)
	}
	srv.texts[strings.Clone(text)] = list
	return list, nil
}

// find is a table that statements may name.
func (srv *Server) find(n tableName) *table {
	if n.schema != "" && n.schema != srv.eng.schema() {
		return nil
	}
	return srv.tables[n.name]
}
