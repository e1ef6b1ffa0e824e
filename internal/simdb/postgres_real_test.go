package simdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/troth-tx/troth/internal/dbtest"
)

// realPostgres runs texts on sessions of a real server, and knows which of them
// wait for a lock. No session detects deadlocks: they are found from outside, so
// that it does not depend on timers who is told of them.
type realPostgres struct {
	t        testing.TB
	server   *dbtest.Postgres
	dsn      string
	control  *pgconn.PgConn
	sessions map[string]*realSession
}

type realSession struct {
	conn    *pgconn.PgConn
	pid     uint32
	answers chan string // of the text that runs; nil if none does
}

const realPatience = 2 * time.Minute // a step that takes longer has failed

func newRealPostgres(t testing.TB, server *dbtest.Postgres, dsn string) *realPostgres {
	t.Helper()
	p := &realPostgres{t: t, server: server, dsn: dsn, sessions: map[string]*realSession{}}
	p.control = p.connect()
	return p
}

func (p *realPostgres) connect() *pgconn.PgConn {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), realPatience)
	defer cancel()
	conn, err := pgconn.Connect(ctx, p.dsn+"&deadlock_timeout=1h")
	if err != nil {
		p.t.Fatalf("connect to PostgreSQL: %v", err)
	}
	return conn
}

// reset begins anew: no sessions, nothing prepared, the table with its rows.
func (p *realPostgres) reset(texts ...string) {
	p.t.Helper()
	p.closeAll()
	for _, gid := range p.prepared() {
		p.ask("ROLLBACK PREPARED '" + gid + "'")
	}
	p.ask("DROP TABLE IF EXISTS t")
	for _, text := range texts {
		p.ask(text)
	}
}

// ask runs a text on a session of the harness, which must succeed, and returns the
// first column.
func (p *realPostgres) ask(text string) []string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), realPatience)
	defer cancel()
	results, err := p.control.Exec(ctx, text).ReadAll()
	if err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
	var column []string
	for _, r := range results {
		for _, row := range r.Rows {
			column = append(column, string(row[0]))
		}
	}
	return column
}

func (p *realPostgres) prepared() []string {
	return p.ask("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid")
}

// start sends a text on a session, made at its first use.
func (p *realPostgres) start(name, text string) {
	s := p.sessions[name]
	if s == nil {
		s = &realSession{conn: p.connect()}
		s.pid = s.conn.PID()
		p.sessions[name] = s
	}
	s.answers = make(chan string, 1)
	go func(s *realSession, to chan<- string) { to <- realAnswer(s.conn, text) }(s, s.answers)
}

// realAnswer runs a text and writes its answer down as [answer] does.
func realAnswer(conn *pgconn.PgConn, text string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 3*realPatience)
	defer cancel()
	var parts []string
	results := conn.Exec(ctx, text)
	var failed error
	for results.NextResult() {
		r := results.ResultReader()
		var rows []string
		for r.NextRow() {
			var row []string
			for _, v := range r.Values() {
				row = append(row, realValue(v))
			}
			rows = append(rows, strings.Join(row, " "))
		}
		tag, err := r.Close()
		if err != nil {
			failed = err
			break
		}
		parts = append(parts, strings.Join(append([]string{tag.String()}, rows...), " "))
	}
	if err := results.Close(); failed == nil {
		failed = err
	}
	var e *pgconn.PgError
	switch {
	case errors.As(failed, &e):
		parts = append(parts, "error "+e.Code)
	case failed != nil:
		parts = append(parts, "gone")
	}
	return strings.Join(parts, " | ")
}

func realValue(v []byte) string {
	switch {
	case v == nil:
		return "<nil>"
	case string(v) == "t":
		return "true"
	case string(v) == "f":
		return "false"
	}
	return string(v)
}

// settle waits until every session has answered or waits for a lock, and returns
// the new answers, and who is in a deadlock.
func (p *realPostgres) settle() (answers map[string]string, deadlock []string) {
	p.t.Helper()
	answers = map[string]string{}
	steady := 0
	for begin := time.Now(); ; {
		var running []string
		for name, s := range p.sessions {
			if s.answers == nil {
				continue
			}
			select {
			case a := <-s.answers:
				answers[name] = a
				s.answers = nil
				steady = 0
			default:
				running = append(running, name)
			}
		}
		if len(running) == 0 {
			return answers, nil
		}
		// A session that waits has others that block it. One that was let go goes
		// on by and by, and may then let others go: so look several times.
		blocked, cycle := p.blocked(running)
		if blocked {
			steady++
		} else {
			steady = 0
		}
		if steady > len(running) {
			return answers, cycle
		}
		if time.Since(begin) > realPatience {
			p.t.Fatalf("sessions %v neither answer nor wait for a lock", running)
		}
		if len(answers) == 0 && !blocked {
			p.await(running)
		}
	}
}

// await waits a moment for an answer, without burning the processor.
func (p *realPostgres) await(running []string) {
	select {
	case a := <-p.sessions[running[0]].answers:
		p.sessions[running[0]].answers <- a // it has room for one
	case <-time.After(time.Millisecond):
	}
}

// blocked reports whether all of the sessions wait for a lock, and who of them
// waits for himself.
func (p *realPostgres) blocked(names []string) (all bool, cycle []string) {
	p.t.Helper()
	waits := map[string][]string{}
	name := map[string]string{}
	for n, s := range p.sessions {
		name[fmt.Sprint(s.pid)] = n
	}
	for _, n := range names {
		list := p.ask(fmt.Sprintf("SELECT unnest(pg_blocking_pids(%d))", p.sessions[n].pid))
		if len(list) == 0 {
			return false, nil
		}
		for _, pid := range list {
			waits[n] = append(waits[n], name[pid])
		}
	}
	for _, n := range names {
		reached := slices.Clone(waits[n])
		for i := 0; i < len(reached); i++ {
			for _, next := range waits[reached[i]] {
				if !slices.Contains(reached, next) {
					reached = append(reached, next)
				}
			}
		}
		if slices.Contains(reached, n) {
			cycle = append(cycle, n)
		}
	}
	slices.Sort(cycle)
	return true, cycle
}

// cancel ends the statement of a session; terminate the session, and waits for its
// end.
func (p *realPostgres) cancel(name string) {
	p.ask(fmt.Sprintf("SELECT pg_cancel_backend(%d)", p.sessions[name].pid))
}

func (p *realPostgres) terminate(name string) {
	s := p.sessions[name]
	if s == nil {
		return
	}
	p.ask(fmt.Sprintf("SELECT pg_terminate_backend(%d, 10000)", s.pid))
	p.drop(name)
}

// drop forgets a session that has ended.
func (p *realPostgres) drop(name string) {
	s := p.sessions[name]
	delete(p.sessions, name)
	if s.answers != nil {
		<-s.answers
	}
	ctx, cancel := context.WithTimeout(context.Background(), realPatience)
	defer cancel()
	_ = s.conn.Close(ctx) // the server has ended it
}

func (p *realPostgres) closeAll() {
	for name := range p.sessions {
		p.terminate(name)
	}
}

// crash is kill -9 and restart.
func (p *realPostgres) crash() {
	p.t.Helper()
	ctx := context.Background()
	if err := p.server.Kill(); err != nil {
		p.t.Fatal(err)
	}
	for name := range p.sessions {
		p.drop(name)
	}
	_ = p.control.Close(ctx) // it is broken
	if err := p.server.Restart(ctx); err != nil {
		p.t.Fatal(err)
	}
	p.control = p.connect()
}

func (p *realPostgres) close() {
	p.reset()
	_ = p.control.Close(context.Background()) // nothing is left to do on it
}

// rows is the whole table.
func (p *realPostgres) rows() string {
	p.t.Helper()
	return strings.Join(p.ask("SELECT id || '=' || v FROM t ORDER BY id"), " ")
}

func simRows(srv *Server) string {
	var list []string
	for _, row := range srv.Rows("t") {
		list = append(list, strconv.FormatInt(row[0].(int64), 10)+"="+strconv.FormatInt(row[1].(int64), 10))
	}
	return strings.Join(list, " ")
}
