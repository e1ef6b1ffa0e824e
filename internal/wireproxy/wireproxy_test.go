package wireproxy_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/wireproxy"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// client is one way to speak to a server.
type client struct {
	driver, params string
	args           bool // values travel as arguments
	multi          bool // several statements in one text
}

var clients = map[string]client{
	"pgx extended":       {driver: "pgx", args: true},
	"pgx extended bare":  {driver: "pgx"},
	"pgx describe":       {driver: "pgx", params: "default_query_exec_mode=describe_exec", args: true},
	"pgx simple":         {driver: "pgx", params: "default_query_exec_mode=simple_protocol", args: true},
	"pgx simple many":    {driver: "pgx", params: "default_query_exec_mode=simple_protocol", multi: true},
	"pq simple":          {driver: "postgres"},
	"pq extended":        {driver: "postgres", args: true},
	"mysql text":         {driver: "mysql"},
	"mysql prepared":     {driver: "mysql", args: true},
	"mysql interpolated": {driver: "mysql", params: "interpolateParams=true", args: true},
	"mysql many":         {driver: "mysql", params: "multiStatements=true", multi: true},
}

// world is a table on a real server, reached through a proxy and directly.
type world struct {
	client
	proxy           *wireproxy.Proxy
	through, direct *sql.DB
}

func newWorld(t *testing.T, c client) *world {
	t.Helper()
	var dsn, addr string
	protocol := wireproxy.Postgres
	if c.driver == "mysql" {
		protocol = wireproxy.MySQL
		server := dbtest.SharedMariaDB(t, 0)
		dsn, addr = server.NewDatabase(t), server.Addr()
	} else {
		server := dbtest.SharedPostgres(t, 0)
		dsn, addr = server.NewDatabase(t), server.Addr()
	}
	p, err := wireproxy.Listen(protocol, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	w := &world{client: c, proxy: p}
	proxied := strings.Replace(dsn, addr, p.Addr(), 1)
	if c.params != "" {
		separator := "?"
		if strings.Contains(proxied, "?") {
			separator = "&"
		}
		proxied += separator + c.params
	}
	w.through, w.direct = openDB(t, c.driver, proxied), openDB(t, c.driver, dsn)
	if _, err := w.direct.ExecContext(t.Context(), "CREATE TABLE item (id INT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	return w
}

func openDB(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// insert adds a row through the proxy, in the client's way, on a connection of its
// own: database/sql would silently try a broken one's statement again.
func (w *world) insert(ctx context.Context, id int) error {
	conn, err := w.through.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return w.insertOn(ctx, conn, id)
}

func (w *world) insertOn(ctx context.Context, conn *sql.Conn, id int) error {
	text, args := fmt.Sprintf("INSERT INTO item VALUES (%d)", id), []any(nil)
	switch {
	case w.multi:
		text = "SELECT 1, 2; " + text + "; SELECT 3"
	case w.args && w.driver == "mysql":
		text, args = "INSERT INTO item VALUES (?)", []any{id}
	case w.args:
		text, args = "INSERT INTO item VALUES ($1)", []any{id}
	}
	_, err := conn.ExecContext(ctx, text, args...)
	return err
}

// has looks from outside.
func (w *world) has(t *testing.T, id int) bool {
	t.Helper()
	var n int
	if err := w.direct.QueryRowContext(t.Context(), fmt.Sprintf("SELECT count(*) FROM item WHERE id = %d", id)).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n == 1
}

// sessions counts the server's sessions that came through the proxy.
func (w *world) sessions(t *testing.T) (n int) {
	t.Helper()
	w.direct.SetMaxOpenConns(1)
	if w.driver == "mysql" {
		return mariaSessions(t, w.direct)
	}
	const query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
	if err := w.direct.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// mariaSessions counts the sessions of a database beside one's own.
// information_schema.processlist would be shorter to ask, and crashes the server (10.11.19)
// while sessions come and go.
func mariaSessions(t *testing.T, direct *sql.DB) (n int) {
	t.Helper()
	var database string
	var own int64
	if err := direct.QueryRowContext(t.Context(), "SELECT database(), connection_id()").Scan(&database, &own); err != nil {
		t.Fatal(err)
	}
	rows, err := direct.QueryContext(t.Context(), "SHOW PROCESSLIST")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id int64
		var of sql.NullString
		var rest sql.RawBytes
		if err := rows.Scan(&id, &rest, &rest, &of, &rest, &rest, &rest, &rest, &rest); err != nil {
			t.Fatal(err)
		}
		if of.String == database && id != own {
			n++
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

func (w *world) awaitSessions(t *testing.T, want int) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		n := w.sessions(t)
		if n == want {
			return
		}
		if time.Since(start) > 2*time.Minute {
			t.Fatalf("the server has %d sessions, want %d", n, want)
		}
	}
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s: not within 2 min", what)
	}
}

func open(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return true
	}
}

const insert = "INSERT INTO item"

// Each action, on each way to speak to a server: what the client hears, and what is
// in the table.
func TestActions(t *testing.T) {
	t.Parallel()
	for name, c := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			// A known statement must not make a difference.
			if err := w.insert(t.Context(), 1); err != nil || !w.has(t, 1) {
				t.Fatalf("through an idle proxy: %v", err)
			}
			t.Run("transparent", w.testTransparent)
			t.Run("cut before", func(t *testing.T) { w.testCut(t, wireproxy.CutBefore, 10, false) })
			t.Run("cut after", func(t *testing.T) { w.testCut(t, wireproxy.CutAfter, 20, true) })
			t.Run("reset", func(t *testing.T) { w.testCut(t, wireproxy.Reset, 30, false) })
			t.Run("hold before", func(t *testing.T) { w.testHold(t, wireproxy.HoldBefore, 40, false) })
			t.Run("hold after", func(t *testing.T) { w.testHold(t, wireproxy.HoldAfter, 50, true) })
			t.Run("strand before", func(t *testing.T) { w.testStrand(t, wireproxy.StrandBefore, 60, false) })
			t.Run("strand after", func(t *testing.T) { w.testStrand(t, wireproxy.StrandAfter, 70, true) })
			t.Run("delay", func(t *testing.T) { w.testDelay(t, 80) })
		})
	}
}

// testCut lets one statement pass and cuts at the second.
func (w *world) testCut(t *testing.T, action wireproxy.Action, id int, executed bool) {
	armed := w.proxy.Add(wireproxy.Rule{Match: insert, Nth: 2, Action: action})
	if err := w.insert(t.Context(), id); err != nil || !open(armed.Done()) {
		t.Fatalf("the first: %v; acted: %v", err, !open(armed.Done()))
	}
	if err := w.insert(t.Context(), id+1); err == nil {
		t.Error("the client was told that the second succeeded")
	}
	await(t, "the rule's action", armed.Done())
	w.awaitSessions(t, 0) // so nothing can arrive later
	if got := w.has(t, id+1); got != executed {
		t.Errorf("the server executed it: %v, want %v", got, executed)
	}
	want := 0
	if executed {
		want = 1
	}
	if armed.Matches() != 2 || armed.Acted() != 1 || armed.Answered() != want {
		t.Errorf("%d matches, acted on %d, %d answered; want 2, 1, %d", armed.Matches(), armed.Acted(), armed.Answered(), want)
	}
	if err := w.insert(t.Context(), id+2); err != nil {
		t.Errorf("the third, after the rule was used up: %v", err)
	}
}

func (w *world) testHold(t *testing.T, action wireproxy.Action, id int, executed bool) {
	armed := w.proxy.Add(wireproxy.Rule{Match: insert, Action: action})
	told := make(chan error, 1)
	go func() { told <- w.insert(context.Background(), id) }()
	await(t, "the rule's action", armed.Done())
	if got := w.has(t, id); got != executed {
		t.Errorf("the server executed it: %v, want %v", got, executed)
	}
	select {
	case err := <-told:
		t.Fatalf("the client was told %v while the rule held", err)
	default:
	}
	armed.Release()
	if err := <-told; err != nil || !w.has(t, id) {
		t.Errorf("after the release: %v, in the table: %v", err, w.has(t, id))
	}
}

func (w *world) testStrand(t *testing.T, action wireproxy.Action, id int, executed bool) {
	w.through.SetMaxIdleConns(0) // no session but the stranded one
	defer w.through.SetMaxIdleConns(2)
	w.awaitSessions(t, 0)
	armed := w.proxy.Add(wireproxy.Rule{Match: insert, Action: action})
	if err := w.insert(t.Context(), id); err == nil {
		t.Error("the client was told that it succeeded")
	}
	await(t, "the rule's action", armed.Done())
	if got := w.has(t, id); got != executed {
		t.Errorf("the server executed it: %v, want %v", got, executed)
	}
	w.awaitSessions(t, 1) // half-open
	armed.Release()
	w.awaitSessions(t, 0)
	if got := w.has(t, id); got != executed {
		t.Errorf("after the release, the server executed it: %v, want %v", got, executed)
	}
}

func (w *world) testDelay(t *testing.T, id int) {
	const delay = 50 * time.Millisecond
	armed := w.proxy.Add(wireproxy.Rule{Match: insert, Action: wireproxy.Delay, Delay: delay, Times: -1})
	for i := range 2 {
		start := time.Now()
		if err := w.insert(t.Context(), id+i); err != nil || time.Since(start) < delay {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	}
	armed.Remove()
	if err := w.insert(t.Context(), id+2); err != nil || armed.Acted() != 2 {
		t.Errorf("%v, and the rule acted %d times", err, armed.Acted())
	}
}

// A server goes on with what a client that is gone has asked for.
func TestCutAfterOutlivesTheClient(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pgx extended", "mysql prepared"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, clients[name])
			lock, err := w.direct.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := lock.ExecContext(t.Context(), "INSERT INTO item VALUES (1)"); err != nil {
				t.Fatal(err)
			}
			armed := w.proxy.Add(wireproxy.Rule{Match: insert, Action: wireproxy.HoldAfter})
			ctx, cancel := context.WithCancel(t.Context())
			told := make(chan error, 1)
			go func() { told <- w.insert(ctx, 1) }()
			for armed.Acted() == 0 { // the statement waits for the lock
				time.Sleep(time.Millisecond)
			}
			if w.driver == "mysql" { // pgx asks the server to stop the statement
				cancel()
				if err := <-told; err == nil {
					t.Error("the cancelled client was told of success")
				}
			}
			if err := lock.Rollback(); err != nil {
				t.Fatal(err)
			}
			await(t, "the server's answer", armed.Done())
			if armed.Answered() != 1 || !w.has(t, 1) {
				t.Errorf("%d answered; in the table: %v", armed.Answered(), w.has(t, 1))
			}
			armed.Release()
			cancel()
		})
	}
}

// testTransparent: what an idle proxy passes is what the server said, in all its
// forms, and after all that the proxy still knows where an answer ends.
func (w *world) testTransparent(t *testing.T) {
	const first, rounds = 1000, 10
	conn, err := w.through.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	before := w.proxy.Stats()
	big := strings.Repeat("x", 300_000)
	for i := range rounds {
		var got string
		if err := conn.QueryRowContext(t.Context(), "SELECT '"+big+"'").Scan(&got); err != nil || got != big {
			t.Fatalf("a long value: %v, %d bytes", err, len(got))
		}
		if _, err := conn.ExecContext(t.Context(), "SELECT no_such_thing"); err == nil {
			t.Fatal("an error was lost")
		}
		if err := w.insertOn(t.Context(), conn, first+i); err != nil {
			t.Fatal(err)
		}
		if err := w.insertOn(t.Context(), conn, first+i); err == nil {
			t.Fatal("a duplicate key passed")
		}
	}
	rows, err := conn.QueryContext(t.Context(), fmt.Sprintf("SELECT id FROM item WHERE id >= %d ORDER BY id", first))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	n := 0
	for ; rows.Next(); n++ {
		var id int
		if err := rows.Scan(&id); err != nil || id != first+n {
			t.Fatalf("row %d is %d, %v", n, id, err)
		}
	}
	if err := rows.Err(); err != nil || n != rounds {
		t.Fatalf("%d rows, %v", n, err)
	}
	// pgx and MySQL's driver find what does not exist when they prepare it.
	if s := w.proxy.Stats(); s.Statements-before.Statements < 3*rounds+1 || s.Acted != before.Acted || s.Open < 1 {
		t.Errorf("%+v, and %+v after at least %d statements", before, s, 3*rounds+1)
	}
	armed := w.proxy.Add(wireproxy.Rule{Match: insert, Action: wireproxy.CutAfter})
	if err := w.insertOn(t.Context(), conn, first+rounds); err == nil {
		t.Error("the answer arrived")
	}
	await(t, "the cut", armed.Done())
	if armed.Answered() != 1 || !w.has(t, first+rounds) {
		t.Errorf("%d answered; in the table: %v", armed.Answered(), w.has(t, first+rounds))
	}
}

func TestWholeConnections(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pgx extended", "mysql prepared"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, clients[name])
			for cut, f := range map[string]func(){"cut": w.proxy.CutAll, "reset": w.proxy.ResetAll} {
				conn, err := w.through.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				f()
				w.awaitSessions(t, 0)
				if err := conn.PingContext(t.Context()); err == nil {
					t.Errorf("a connection outlived %s", cut)
				}
				_ = conn.Close()
			}
			w.proxy.Refuse(true)
			if err := w.through.PingContext(t.Context()); err == nil {
				t.Error("a refused connection works")
			}
			w.proxy.Refuse(false)

			conn, err := w.through.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			w.proxy.Blackhole(true)
			told := make(chan error, 1)
			go func() { told <- w.insertOn(context.Background(), conn, 1) }()
			short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := w.insert(short, 2); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a new connection into the hole: %v", err)
			}
			if w.has(t, 1) || len(told) > 0 {
				t.Error("something came through the hole")
			}
			w.proxy.Blackhole(false)
			if err := <-told; err != nil || !w.has(t, 1) {
				t.Errorf("after the hole: %v", err)
			}
		})
	}
}

// Close ends everything, whatever a rule or a hole holds.
func TestCloseReleasesAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, clients["pgx extended"])
	held := w.proxy.Add(wireproxy.Rule{Match: insert, Action: wireproxy.HoldAfter})
	told := make(chan error, 1)
	go func() { told <- w.insert(context.Background(), 1) }()
	await(t, "the hold", held.Done())
	stranded := w.proxy.Add(wireproxy.Rule{Match: insert, Action: wireproxy.StrandBefore})
	if err := w.insert(t.Context(), 2); err == nil {
		t.Error("a stranded statement succeeded")
	}
	await(t, "the strand", stranded.Done())
	w.proxy.Blackhole(true)
	w.proxy.Close()
	w.proxy.Close()
	if err := <-told; err == nil {
		t.Error("a held answer arrived through a closed proxy")
	}
	if _, err := net.Dial("tcp", w.proxy.Addr()); err == nil {
		t.Error("a closed proxy listens")
	}
}

// Bytes that are no message of the protocol end the connection, not the proxy.
func TestNonsense(t *testing.T) {
	t.Parallel()
	for _, c := range []client{clients["pgx extended"], clients["mysql text"]} {
		w := newWorld(t, c)
		conn, err := net.Dial("tcp", w.proxy.Addr())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, strings.Repeat("\xff\xfe\x00\x01nonsense", 100))
		if c.driver == "mysql" { // it takes this for the start of a long packet
			_ = conn.(*net.TCPConn).CloseWrite()
		}
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		if err := w.insert(t.Context(), 1); err != nil {
			t.Error(err)
		}
	}
}

func TestUnknownProtocol(t *testing.T) {
	t.Parallel()
	if p, err := wireproxy.Listen(0, "127.0.0.1:1"); err == nil {
		p.Close()
		t.Error("no error")
	}
}
