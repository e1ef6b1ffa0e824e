package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/faultpoint"
)

// engine is what is known about the server and the way to it.
type engine struct {
	maria   bool
	version string
	multi   bool // the connection takes several statements in one request
	binlog  bool // the binary log is on, see troth.OnePhaseReturns
}

// A thread is a session as the server knows it. Thread ids begin anew when the
// server does, so the start of the server belongs to the name.
type thread struct {
	id   uint64
	boot int64 // when the server started, in seconds of its own clock
}

// bootSlack allows for the server's uptime and clock being read in whole seconds.
const bootSlack = 3

func (t thread) sameServerRun(boot int64) bool {
	return t.boot-bootSlack <= boot && boot <= t.boot+bootSlack
}

// session is the thread in the name of the branch that it prepares: "<id>-<boot>",
// in base 36. Whoever finds the branch knows from it which session may hold it. It
// is a durable format.
func (t thread) session() string {
	return strconv.FormatUint(t.id, 36) + "-" + strconv.FormatInt(t.boot, 36)
}

// parseSession reads what session wrote; false if s is anything else.
func parseSession(s string) (thread, bool) {
	id, boot, _ := strings.Cut(s, "-")
	var t thread
	var errID, errBoot error
	t.id, errID = strconv.ParseUint(id, 36, 64)
	t.boot, errBoot = strconv.ParseInt(boot, 36, 64)
	if errID != nil || errBoot != nil || t.session() != s {
		return thread{}, false
	}
	return t, true
}

// bare is the name of a branch without its session: what the transaction manager
// calls it.
func bare(x troth.XID) troth.XID {
	x.Session = ""
	return x
}

// evidence is what a branch record says of a prepared branch: which session holds
// it, so that another process can wait for that session's end, and in which schema
// its witness is, for the server's one list of branches does not tell.
type evidence struct {
	thread thread
	schema uint32 // a hash of the schema's name
}

// String is a durable format: "<session>-<boot>-<schema>", decimal, decimal, and 8
// hexadecimal digits; at most 40 bytes.
func (e evidence) String() string {
	return fmt.Sprintf("%d-%d-%08x", e.thread.id, e.thread.boot, e.schema)
}

// parseEvidence reads what String wrote; false if s is anything else.
func parseEvidence(s string) (evidence, bool) {
	var e evidence
	if n, err := fmt.Sscanf(s, "%d-%d-%08x", &e.thread.id, &e.thread.boot, &e.schema); n != 3 || err != nil || e.String() != s {
		return evidence{}, false
	}
	return e, true
}

func schemaHash(name string) uint32 { return crc32.ChecksumIEEE([]byte(name)) }

// selectBoot is an expression: when the server started.
func (e engine) selectBoot() string {
	status := "performance_schema.global_status"
	if e.maria {
		status = "information_schema.global_status"
	}
	return "CAST(UNIX_TIMESTAMP() - (SELECT variable_value FROM " + status + " WHERE variable_name = 'Uptime') AS SIGNED)"
}

// Bounds of what a Resource remembers. Forgetting costs a round trip, or a KILL
// that cannot be made; never safety.
const (
	sessionsMax = 4096
	flightsMax  = 65536
)

// memory keeps what was learned about physical sessions, so that it is learned
// once for each and not once for each transaction, and which session works for
// which branch.
type memory struct {
	mu       sync.Mutex
	sessions map[driver.Conn]thread
	flights  map[troth.XID]thread // by bare name
}

func newMemory() *memory {
	return &memory{sessions: make(map[driver.Conn]thread), flights: make(map[troth.XID]thread)}
}

func (m *memory) session(dc driver.Conn) (thread, bool) {
	if !reflect.TypeOf(dc).Comparable() { // a wrapper around the driver may be anything
		return thread{}, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.sessions[dc]
	return t, ok
}

func (m *memory) learn(dc driver.Conn, t thread) {
	if !reflect.TypeOf(dc).Comparable() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// Closed connections are not told to us: drop the dead before some other.
	if len(m.sessions) >= sessionsMax {
		evict(m.sessions, func(c driver.Conn) bool {
			v, ok := c.(driver.Validator)
			return ok && !v.IsValid()
		})
	}
	m.sessions[dc] = t
}

// flight returns the session that works, or worked, for a branch of this process.
func (m *memory) flight(x troth.XID) (thread, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.flights[bare(x)]
	return t, ok
}

func (m *memory) takeOff(x troth.XID, t thread) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.flights) >= flightsMax {
		evict(m.flights, func(troth.XID) bool { return false })
	}
	m.flights[bare(x)] = t
}

func (m *memory) land(x troth.XID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.flights, bare(x))
}

// evict drops the entries that are dead, or any one if none is.
func evict[K comparable, V any](m map[K]V, dead func(K) bool) {
	size := len(m)
	for k := range m {
		if dead(k) {
			delete(m, k)
		}
	}
	if len(m) < size {
		return
	}
	for k := range m {
		delete(m, k)
		return
	}
}

// readySession prepares a physical session for branches, once: the idle limit
// (R5), its thread id, and that it is in autocommit mode, without which XA START
// is refused with the puzzling error 1400.
func (r *Resource) readySession(ctx context.Context, o *opened, conn *sql.Conn) (thread, error) {
	var known thread
	var ok bool
	err := conn.Raw(func(dc any) error {
		c, isConn := dc.(driver.Conn)
		if isConn {
			known, ok = r.memory.session(c)
		}
		return nil
	})
	if err != nil || ok {
		return known, err
	}
	if _, err := conn.ExecContext(ctx, idleLimit(o.engine, o.cfg.LifeMax)); err != nil {
		return thread{}, fmt.Errorf("limit how long the session may idle: %w", err)
	}
	var t thread
	var autocommit int
	err = conn.QueryRowContext(ctx, "SELECT CONNECTION_ID(), @@SESSION.autocommit, "+o.engine.selectBoot()).Scan(&t.id, &autocommit, &t.boot)
	if err != nil {
		return thread{}, fmt.Errorf("ask for the session's id: %w", err)
	}
	if autocommit != 1 {
		return thread{}, errors.New("the session has autocommit = 0, which XA does not allow: remove autocommit from the DSN and from init_connect")
	}
	err = conn.Raw(func(dc any) error {
		if c, ok := dc.(driver.Conn); ok {
			r.memory.learn(c, t)
		}
		return nil
	})
	return t, err
}

// exec runs statements that return no rows on a driver connection: in one round
// trip if the server takes them together. Then the first error ends the request,
// and which statement it came from is not told.
func (e engine) exec(ctx context.Context, dc driver.Conn, statements ...string) error {
	execer, ok := dc.(driver.ExecerContext)
	if !ok {
		return fmt.Errorf("mysql: the driver connection %T cannot execute statements: use github.com/go-sql-driver/mysql", dc)
	}
	if e.multi && len(statements) > 1 {
		statements = []string{strings.Join(statements, "; ")}
	}
	for _, s := range statements {
		if _, err := execer.ExecContext(ctx, s, nil); err != nil {
			return err
		}
	}
	return nil
}

// takesMultiStatements asks whether the DSN has multiStatements.
func takesMultiStatements(ctx context.Context, conn *sql.Conn) (bool, error) {
	rows, err := conn.QueryContext(ctx, "SELECT 1; SELECT 2")
	if isCode(err, codeSyntax) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = rows.Close() }()
	for rows.NextResultSet() {
	}
	if err := rows.Err(); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return true, nil
}

// process is a line of the server's list of sessions.
type process struct {
	id   uint64
	info string // the statement that it runs
}

// processes lists the server's sessions; without the PROCESS privilege those of
// the same user. It does not read information_schema.processlist: that crashes
// MariaDB (10.11.19: signal 11 in ha_maria::drop_table) within seconds while
// sessions come and go.
func processes(ctx context.Context, conn *sql.Conn) ([]process, error) {
	rows, err := conn.QueryContext(ctx, "SHOW PROCESSLIST")
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to its end, or the error is Err's
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var p process
	var info sql.NullString
	dest := make([]any, len(columns)) // how many there are differs between the servers
	for i, name := range columns {
		switch strings.ToLower(name) {
		case "id":
			dest[i] = &p.id
		case "info":
			dest[i] = &info
		default:
			dest[i] = new(sql.RawBytes)
		}
	}
	var list []process
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		p.info = info.String
		list = append(list, p)
	}
	return list, rows.Err()
}

// sessionGone reports whether a session has left the server's list.
func sessionGone(ctx context.Context, conn *sql.Conn, e engine, t thread) (bool, error) {
	var boot int64
	if err := conn.QueryRowContext(ctx, "SELECT "+e.selectBoot()).Scan(&boot); err != nil {
		return false, fmt.Errorf("ask when the server started: %w", err)
	}
	if !t.sameServerRun(boot) {
		return true, nil
	}
	list, err := processes(ctx, conn)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(list, func(p process) bool { return p.id == t.id }), nil
}

// endSession ends a session and waits until it has left the server's list. Only
// then is it certain that it does not act any more, and may others end its branch.
func endSession(ctx context.Context, conn *sql.Conn, e engine, t thread) error {
	gone, err := sessionGone(ctx, conn, e, t)
	if err != nil || gone {
		return err
	}
	faultpoint.Hit("recover.before-kill")
	if _, err := conn.ExecContext(ctx, killSession(t.id)); err != nil && !isCode(err, codeNoSuchThread) {
		return hinted(fmt.Errorf("end session %d, which still holds the branch: %w", t.id, err))
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		gone, err := sessionGone(ctx, conn, e, t)
		if err != nil || gone {
			return err
		}
		if !sleep(ctx, pause) {
			return fmt.Errorf("session %d was told to end and still runs: %w", t.id, context.Cause(ctx))
		}
	}
}

// sleep reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
