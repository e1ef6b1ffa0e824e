package simdb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/troth-tx/troth/internal/dbtest"
)

// longEnough is for what a real server does soon on an idle machine.
const longEnough = 2 * time.Minute

// A mariaReal runs the steps of a test on a real MariaDB server. Nobody else may use
// that server meanwhile: whether a statement waits is read off a counter that
// belongs to the whole server.
type mariaReal struct {
	t        failer
	ctx      context.Context //nolint:containedctx // the test's own
	server   *dbtest.MariaDB
	database string
	outside  *mysqlSession
	keeper   *mysqlSession // its snapshot keeps purge from what the test deletes
	sessions map[int]*mysqlSession
}

// A failer is what a *testing.T and a *rapid.T have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// A mysqlSession is one connection of the driver, without the pool of database/sql
// above it: what the pool would repeat or reset is not of interest here.
type mysqlSession struct {
	conn    driver.Conn
	id      uint64
	pending chan string // the answer of the statement under way; nil if there is none
}

func newMariaReal(t testing.TB, server *dbtest.MariaDB) *mariaReal {
	t.Helper()
	server.MustOwn(t)
	ctx, cancel := context.WithCancel(context.Background())
	r := &mariaReal{t: t, ctx: ctx, server: server, sessions: make(map[int]*mysqlSession)}
	r.database = mariaDatabaseOf(t, server.NewDatabase(t))
	t.Cleanup(func() { r.close(); cancel() })
	r.outside, r.keeper = r.dial(), r.dial()
	return r
}

func mariaDatabaseOf(t testing.TB, dsn string) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.DBName
}

func (r *mariaReal) dial() *mysqlSession {
	r.t.Helper()
	cfg, err := mysql.ParseDSN(r.server.DSN(r.database))
	if err != nil {
		r.t.Fatal(err)
	}
	cfg.Logger = &mysql.NopLogger{} // broken connections are what the tests are about
	cfg.MultiStatements, cfg.InterpolateParams = true, true
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	conn, err := connector.Connect(r.ctx)
	if err != nil {
		r.t.Fatalf("connect: %v", err)
	}
	s := &mysqlSession{conn: conn}
	answer := s.run(r.ctx, "SELECT CONNECTION_ID()")
	if s.id, err = strconv.ParseUint(strings.TrimPrefix(answer, "rows "), 10, 64); err != nil {
		r.t.Fatalf("ask for the connection's id: %s", answer)
	}
	return s
}

func (r *mariaReal) session(n int) *mysqlSession {
	r.t.Helper()
	s := r.sessions[n]
	if s == nil {
		s = r.dial()
		r.sessions[n] = s
	}
	return s
}

// exec sends a statement. answer tells what came of it.
func (r *mariaReal) exec(n int, text string) {
	r.t.Helper()
	s := r.session(n)
	if s.pending != nil {
		r.t.Fatalf("session %d still waits", n)
	}
	pending := make(chan string, 1)
	s.pending = pending
	go func() { pending <- s.run(r.ctx, text) }()
}

// answer returns what a statement came to; "waits" if that takes longer than
// patience.
func (r *mariaReal) answer(n int, patience time.Duration) string {
	s := r.sessions[n]
	select {
	case answer := <-s.pending:
		s.pending = nil
		return answer
	case <-time.After(patience):
		return "waits"
	}
}

// settle waits until every statement has its answer or waits for a lock, and returns
// the new answers, and who waits. Nothing happens on the server then.
func (r *mariaReal) settle() (answers map[int]string, waiting []int) {
	r.t.Helper()
	answers = map[int]string{}
	for deadline := time.Now().Add(longEnough); time.Now().Before(deadline); {
		before := r.pending(answers, time.Millisecond)
		if len(before) == 0 {
			return answers, nil
		}
		waits := r.lockWaits()
		if after := r.pending(answers, 0); waits == len(before) && waits == len(after) { // nobody else can have waited then
			return answers, after
		}
	}
	r.t.Fatalf("statements neither wait for locks nor are answered: %v", r.pending(answers, 0))
	return nil, nil
}

// expire waits until a statement that waits for a lock has waited for too long.
func (r *mariaReal) expire(n int) {
	s := r.sessions[n]
	answer := <-s.pending
	s.pending <- answer
}

// pending collects the answers that are there, or come before patience ends, and lists
// the sessions whose statements have none.
func (r *mariaReal) pending(answers map[int]string, patience time.Duration) []int {
	var list []int
	late := time.Now().Add(patience)
	for _, n := range slices.Sorted(maps.Keys(r.sessions)) {
		if r.sessions[n].pending == nil {
			continue
		}
		if answer := r.answer(n, time.Until(late)); answer != "waits" {
			answers[n] = answer
		} else {
			list = append(list, n)
		}
	}
	return list
}

// lockWaits is how many transactions wait for a lock at this instant.
func (r *mariaReal) lockWaits() int {
	r.t.Helper()
	answer := r.outside.run(r.ctx, "SHOW ENGINE INNODB STATUS")
	if !strings.HasPrefix(answer, "rows InnoDB") {
		r.t.Fatalf("ask who waits: %s", answer)
	}
	return strings.Count(answer, "TRX HAS BEEN WAITING")
}

// purge has the server purge all that is deleted, and keeps it from what will be.
// Transactions that have written anything keep it from being told, so there must be
// none, nor any snapshot.
func (r *mariaReal) purge() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, longEnough)
	defer cancel()
	for _, text := range []string{"COMMIT", "SET GLOBAL innodb_max_purge_lag_wait = 0"} {
		if got := r.keeper.run(ctx, text); got != "ok 0" {
			r.t.Fatalf("%s: %s", text, got)
		}
	}
	r.keep()
}

// keep keeps the server from purging what is deleted from now on: whether a record is
// still there, and has a gap, would be chance otherwise.
func (r *mariaReal) keep() {
	r.t.Helper()
	if got := r.keeper.run(r.ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT"); got != "ok 0" {
		r.t.Fatalf("take a snapshot: %s", got)
	}
}

// endSession ends a session, by hanging up or by KILL, and returns when the server
// has none of it.
func (r *mariaReal) endSession(n int, kill bool) {
	r.t.Helper()
	s := r.sessions[n]
	if s == nil {
		return
	}
	delete(r.sessions, n)
	if kill {
		answer := r.outside.run(r.ctx, "KILL "+strconv.FormatUint(s.id, 10))
		if strings.HasPrefix(answer, "error") && answer != "error 1094" { // it may have ended itself
			r.t.Fatalf("KILL of session %d: %s", n, answer)
		}
	}
	if s.pending != nil {
		<-s.pending
	}
	_ = s.conn.Close()
	for deadline := time.Now().Add(longEnough); slices.Contains(r.processes(), s.id); {
		if time.Now().After(deadline) {
			r.t.Fatalf("session %d does not end", n)
		}
		time.Sleep(500 * time.Microsecond) // there is no signal to wait for
	}
}

func (r *mariaReal) processes() []uint64 {
	r.t.Helper()
	answer := r.outside.run(r.ctx, "SHOW PROCESSLIST")
	var ids []uint64
	for line := range strings.SplitSeq(strings.TrimPrefix(answer, "rows "), "; ") {
		id, _, _ := strings.Cut(line, "|")
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			r.t.Fatalf("SHOW PROCESSLIST: %s", answer)
		}
		ids = append(ids, n)
	}
	return ids
}

// crash kills the server and starts it again; no session survives.
func (r *mariaReal) crash() {
	r.t.Helper()
	if err := r.server.Kill(); err != nil {
		r.t.Fatalf("kill the server: %v", err)
	}
	for n, s := range r.sessions {
		if s.pending != nil {
			<-s.pending
		}
		_ = s.conn.Close()
		delete(r.sessions, n)
	}
	_, _ = r.outside.conn.Close(), r.keeper.conn.Close()
	if err := r.server.Restart(r.ctx); err != nil {
		r.t.Fatalf("restart the server: %v", err)
	}
	r.outside, r.keeper = r.dial(), r.dial()
	r.recovered()
	if len(r.recover()) > 0 {
		r.keep() // it does not purge: the test has deleted nothing, then
	} else {
		r.purge()
	}
}

// recovered waits until the restarted server has rolled back what was not prepared.
func (r *mariaReal) recovered() {
	r.t.Helper()
	const open = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = 0"
	for deadline := time.Now().Add(longEnough); ; time.Sleep(20 * time.Millisecond) { // the server asks itself every 100 ms
		got := r.outside.run(r.ctx, open)
		if got == "rows "+strconv.Itoa(len(r.recover())) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("not rolled back: %s", got)
		}
	}
}

// reset ends all sessions and branches and makes table t anew.
func (r *mariaReal) reset() {
	r.t.Helper()
	for n := range r.sessions {
		r.endSession(n, true)
	}
	for _, x := range r.recover() {
		r.outside.run(r.ctx, "XA ROLLBACK "+x)
	}
	r.keeper.run(r.ctx, "COMMIT")
	r.outside.run(r.ctx, "DROP TABLE IF EXISTS t")
	r.outside.run(r.ctx, "SET GLOBAL innodb_purge_rseg_truncate_frequency = 1") // what is purged leaves the history at once
	r.outside.run(r.ctx, "SET GLOBAL innodb_lock_wait_timeout = 1000")          // no test is that slow
	for _, text := range mariaRows {
		if got := r.outside.run(r.ctx, text); strings.HasPrefix(got, "error") {
			r.t.Fatalf("%s: %s", text, got)
		}
	}
	r.keep()
}

func (r *mariaReal) close() {
	for n := range r.sessions {
		r.endSession(n, true)
	}
	_, _ = r.outside.conn.Close(), r.keeper.conn.Close()
}

// run runs one text and writes its answer down: "ok 2" with the rows affected,
// "rows a|b; c|d", "error 1062", or "lost" for a connection that broke.
func (s *mysqlSession) run(ctx context.Context, text string) string {
	if !mariaAsks(text) {
		res, err := s.conn.(driver.ExecerContext).ExecContext(ctx, text, nil)
		if err != nil {
			return realMariaError(err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return realMariaError(err)
		}
		return "ok " + strconv.FormatInt(n, 10)
	}
	rows, err := s.conn.(driver.QueryerContext).QueryContext(ctx, text, nil)
	if err != nil {
		return realMariaError(err)
	}
	defer func() { _ = rows.Close() }() // read to its end
	var lines []string
	for dest := make([]driver.Value, len(rows.Columns())); ; {
		err := rows.Next(dest)
		if errors.Is(err, io.EOF) {
			if strings.HasPrefix(text, "XA RECOVER") {
				slices.Sort(lines) // the server has no order there
			}
			return "rows " + strings.Join(lines, "; ")
		}
		if err != nil {
			return realMariaError(err)
		}
		var cells []string
		for _, v := range dest {
			if b, ok := v.([]byte); ok {
				v = string(b)
			}
			cells = append(cells, fmt.Sprint(v))
		}
		lines = append(lines, strings.Join(cells, "|"))
	}
}

// mariaAsks reports whether a text answers with rows.
func mariaAsks(text string) bool {
	first, _, _ := strings.Cut(strings.ToUpper(text), " ")
	return first == "SELECT" || first == "SHOW" || strings.HasPrefix(strings.ToUpper(text), "XA RECOVER")
}

func realMariaError(err error) string {
	var answer *mysql.MySQLError
	if errors.As(err, &answer) {
		return "error " + strconv.Itoa(int(answer.Number))
	}
	return "lost"
}
