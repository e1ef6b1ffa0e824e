package simdb

import (
	"errors"
	"slices"
	"time"
)

// A Session is one connection to a server, as the server sees it.
type Session struct {
	srv   *Server
	id    uint64
	born  time.Time
	alive bool
	fate  error // what the next request hears, after the server ended the session

	tx   *txn  // open; nil if there is none
	wait *wait // what the statement waits for; nil if none does
	req  request
	last string // the text of the last request
	was  time.Time

	pg     pgSession
	maria  mariaSession
	sqlite sqliteSession
}

// A Result is the answer to one statement that succeeded.
type Result struct {
	Tag      string // as PostgreSQL says it: "INSERT 0 1", "PREPARE TRANSACTION"
	Columns  []string
	Rows     [][]any // nil, bool, int64, float64, string or time.Time
	Affected int64   // rows changed; for SELECT, rows found
}

// A request is a text under way.
type request struct {
	list    []statement
	i       int // the statement that runs
	args    []any
	act     activity // of that statement, once it has begun
	call    call
	results []Result
	running bool
}

// ID is the server's process or thread number.
func (s *Session) ID() uint64 { return s.id }

// Alive reports whether the server has the session. The client may not know yet
// that it has not.
func (s *Session) Alive() bool { return s.alive }

// Waits reports whether a statement of the session waits for a lock: Exec or
// Resume has returned ErrWait, and Resume is due.
func (s *Session) Waits() bool { return s.req.running }

// Ready reports whether Resume would go on: what a statement waited for is there,
// the wait timed out, or the session was ended meanwhile.
func (s *Session) Ready() bool { return s.req.running && !s.blocked() }

// Exec runs a text of one or several statements, as the server does that got it in
// one request. It returns the results of those that ran, also with an error.
//
// The error is ErrWait if a statement waits for a lock; an *Error if the server
// refused one; ErrGone if the session has ended; an *UnknownError if the simulation
// does not know the text.
func (s *Session) Exec(text string) ([]Result, error) { return s.ExecArgs(text, nil) }

// ExecArgs is Exec for a text with placeholders.
func (s *Session) ExecArgs(text string, args []any) ([]Result, error) {
	if err := s.gone(); err != nil {
		return nil, err
	}
	if s.req.running {
		panic("simdb: a session was given a statement while another one waits")
	}
	s.last, s.was = text, s.srv.now()
	list, err := s.srv.read(text)
	if err != nil {
		return nil, err
	}
	s.req = request{list: list, args: args, running: true}
	return s.run()
}

// Resume goes on with the statement that waits. It returns what Exec would have.
func (s *Session) Resume() ([]Result, error) {
	if err := s.gone(); err != nil {
		return nil, err
	}
	if !s.req.running {
		panic("simdb: a session was resumed that does not wait")
	}
	if s.blocked() {
		return nil, ErrWait
	}
	return s.run()
}

// Expire ends the wait of the session as the server's lock timeout does: Resume
// then returns that error. It does nothing to a session that does not wait, or
// that has what it waited for.
func (s *Session) Expire() {
	if s.blocked() {
		s.wait.doom = s.srv.eng.timedOut()
	}
}

// Cancel ends the wait of the session as a request of the client to cancel the
// statement does. It does nothing to a session that does not wait.
func (s *Session) Cancel() {
	if !s.blocked() {
		return
	}
	switch s.srv.kind {
	case Postgres:
		s.wait.doom = &Error{Code: "57014", Message: "canceling statement due to user request"}
	case MariaDB:
		s.wait.doom = &Error{Code: "1317", State: "70100", Message: "Query execution was interrupted"}
	case SQLite:
		s.wait.doom = &Error{Code: "9", Message: "interrupted"}
	}
}

// Close ends the session: the client did, or the server noticed that it is gone.
// The open transaction is rolled back.
func (s *Session) Close() {
	s.end(nil)
	s.fate, s.req = nil, request{}
}

// Terminate ends the session as an administrator does. The client hears of it with
// its next request, or as the answer to the statement that waits.
func (s *Session) Terminate() { s.end(s.srv.terminated()) }

// end takes the session from the server. fate is what the client hears; nil: that
// its connection is broken.
func (s *Session) end(fate error) {
	if !s.alive {
		return
	}
	s.alive = false
	s.fate = fate
	s.stopWaiting()
	s.req = request{running: s.req.running} // until the client hears of it
	i := slices.Index(s.srv.sessions, s)
	s.srv.sessions = slices.Delete(s.srv.sessions, i, i+1)
	s.srv.eng.leave(s)
}

func (srv *Server) terminated() error {
	if srv.kind == Postgres {
		return &Error{Code: "57P01", Message: "terminating connection due to administrator command", Fatal: true}
	}
	return nil
}

// gone is the error of a request to a session that has ended.
func (s *Session) gone() error {
	if s.alive {
		return nil
	}
	s.req = request{}
	if err := s.fate; err != nil {
		s.fate = nil
		return err
	}
	return ErrGone
}

// run goes on with the request.
func (s *Session) run() ([]Result, error) {
	r := &s.req
	var err error
	for r.i < len(r.list) {
		var res Result
		if res, err = s.step(); err == errBlocked { //nolint:errorlint // never wrapped
			return nil, ErrWait
		}
		if !s.alive { // it ended itself
			return nil, s.gone()
		}
		if err != nil {
			break
		}
		r.results = append(r.results, res)
		r.i++
		r.act, r.call = nil, call{}
	}
	err = s.srv.eng.finish(s, err)
	results := r.results
	s.req = request{}
	s.was = s.srv.now()
	return results, err
}

// step runs the statement of the request that is due, until its end or until it
// must wait.
func (s *Session) step() (Result, error) {
	r := &s.req
	var res Result
	var err error
	switch {
	case s.wait != nil && s.wait.doom != nil:
		err = s.wait.doom
	case r.act != nil:
		res, err = r.act.step(&r.call)
	default:
		if r.call.s == nil {
			r.call = call{s: s, args: r.args, st: r.list[r.i]}
		}
		if err = s.srv.eng.admit(&r.call); err == nil {
			r.act, err = r.call.st.start(&r.call)
		}
		if err == nil {
			res, err = r.act.step(&r.call)
		}
	}
	if err == errBlocked { //nolint:errorlint // never wrapped
		return res, err
	}
	s.stopWaiting()
	if !s.alive {
		return res, nil
	}
	return res, s.srv.eng.conclude(&r.call, err)
}

// alone reports whether the statement that runs is the only one of its request.
func (s *Session) alone() bool { return len(s.req.list) == 1 }

// A call is one execution of a statement.
type call struct {
	s    *Session
	args []any
	st   statement
	mark mark // where the transaction was when the statement began, for the engine

	ranged bool // the scan does not name its keys (MariaDB)

	lingered bool
}

func (c *call) eng() engine { return c.s.srv.eng }

// A statement is a text, read. It is immutable: the same one is run again and
// again.
type statement interface {
	// start evaluates what the statement reads at its beginning.
	start(c *call) (activity, error)
}

// An activity is a statement under way.
type activity interface {
	// step goes on, to the statement's end or until it must wait (errBlocked).
	step(c *call) (Result, error)
}

// An action is a statement that never waits.
type action func(c *call) (Result, error)

func (f action) start(*call) (activity, error) { return f, nil }
func (f action) step(c *call) (Result, error)  { return f(c) }

// asError is the server's answer in err, nil if it is none.
func asError(err error) *Error {
	var e *Error
	errors.As(err, &e)
	return e
}
