package rivals

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
)

const (
	start  = 1000 // in each account
	amount = 100  // that a transfer moves
)

// A database is one of a pair. name, driver and dsn are all that another process
// needs.
type database struct {
	name, driver, dsn string // dsn goes through the wire
	dialect           dialect
	patience          string // makes a session wait for locks %d seconds at most
	direct            *sql.DB
	server            server
}

// A server is what traps do to a database server.
type server interface {
	Addr() string
	Kill() error
	Restart(ctx context.Context) error
}

// A pair says on which engines, and on which servers of this package's tests, so
// that pairs can run in parallel.
type pair struct {
	name    string
	drivers [2]string
	servers [2]int
}

var pairs = []pair{
	{"PostgreSQL + PostgreSQL", [2]string{"pgx", "pgx"}, [2]int{0, 1}},
	{"PostgreSQL + MariaDB", [2]string{"pgx", "mysql"}, [2]int{2, 0}},
}

// world is a pair of accounts, athos' and porthos', and the wire to them.
type world struct {
	dbs  [2]*database
	wire *wire
}

func newWorld(t *testing.T, p pair) *world {
	t.Helper()
	w := &world{}
	var targets [2]string
	for i, name := range []string{"athos", "porthos"} {
		w.dbs[i] = newDatabase(t, name, p.drivers[i], p.servers[i])
		targets[i] = w.dbs[i].server.Addr()
	}
	w.wire = newWire(t, targets)
	for i, d := range w.dbs {
		d.dsn = d.via(t, w.wire.lines[i].Addr().String())
	}
	return w
}

// newDatabase makes a database with an account, and a receipt that is there already.
func newDatabase(t *testing.T, name, driver string, i int) *database {
	t.Helper()
	d := &database{name: name, driver: driver}
	if driver == "mysql" {
		s := dbtest.SharedMariaDB(t, i)
		s.MustOwn(t)
		d.server, d.dsn, d.dialect = s, s.NewDatabase(t), mariaDialect
		d.patience = "SET SESSION innodb_lock_wait_timeout = %d"
	} else {
		s := dbtest.SharedPostgres(t, i)
		s.MustOwn(t)
		d.server, d.dsn, d.dialect = s, s.NewDatabase(t), postgresDialect
		d.patience = "SET lock_timeout = '%ds'"
	}
	var err error
	if d.direct, err = sql.Open(driver, d.dsn); err != nil {
		t.Fatal(err)
	}
	d.direct.SetMaxIdleConns(0) // its server may be killed: no session of before may be asked
	t.Cleanup(func() { _ = d.direct.Close() })
	for _, text := range []string{
		"CREATE TABLE account (id INT PRIMARY KEY, balance INT NOT NULL)",
		"CREATE TABLE receipt (id INT PRIMARY KEY)",
		fmt.Sprintf("INSERT INTO account VALUES (1, %d)", start),
		"INSERT INTO receipt VALUES (1)",
	} {
		if _, err := d.direct.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// via is the database's DSN by way of another address.
func (d *database) via(t *testing.T, addr string) string {
	t.Helper()
	if d.driver == "mysql" {
		cfg, err := mysql.ParseDSN(d.dsn)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Net, cfg.Addr = "tcp", addr
		return cfg.FormatDSN()
	}
	u, err := url.Parse(d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		t.Fatal(err)
	}
	u.Host = addr
	return u.String()
}

// A finding is what is the case after a trap, seen from outside.
type finding struct {
	paid, received int // how much athos has less, and porthos more
	inDoubt        int // prepared branches that nobody ended
	locked         bool
}

func (w *world) look(t *testing.T) finding {
	t.Helper()
	return finding{
		paid: start - w.dbs[0].balance(t), received: w.dbs[1].balance(t) - start,
		inDoubt: w.dbs[0].prepared(t) + w.dbs[1].prepared(t),
		locked:  w.dbs[0].locked(t) || w.dbs[1].locked(t),
	}
}

func (d *database) balance(t *testing.T) (n int) {
	t.Helper()
	if err := d.direct.QueryRowContext(t.Context(), "SELECT balance FROM account WHERE id = 1").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// prepared counts branches in doubt; in MariaDB those of the whole server, which no
// other test uses.
func (d *database) prepared(t *testing.T) (n int) {
	t.Helper()
	query := "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
	if d.driver == "mysql" {
		query = "XA RECOVER"
	}
	rows, err := d.direct.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// locked reports whether others cannot change the account. What is prepared keeps it
// locked; a session that has lost its program does not, but a busy server may need a while
// to find out.
func (d *database) locked(t *testing.T) bool {
	t.Helper()
	seconds := 60
	if d.prepared(t) > 0 {
		seconds = 1
	}
	c, err := d.direct.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.ExecContext(t.Context(), fmt.Sprintf(d.patience, seconds)); err != nil {
		t.Fatal(err)
	}
	_, err = c.ExecContext(t.Context(), "UPDATE account SET balance = balance WHERE id = 1")
	return err != nil
}

// settleWithin is how long after a trap a contender that can recover may need.
const settleWithin = 2 * time.Minute

// settle lets a fresh process of the contender clean up, until nothing is in doubt
// or it has had its time; one without means to recover is not waited for.
func (w *world) settle(t *testing.T, c contender) {
	t.Helper()
	b := w.open(t, c)
	began := time.Now()
	for w.dbs[0].prepared(t)+w.dbs[1].prepared(t) > 0 && time.Since(began) < settleWithin && c.recovers() {
		if err := b.recover(t.Context()); err != nil {
			t.Logf("recovery: %v", err)
		}
		time.Sleep(50 * time.Millisecond) // the databases tell nobody when a branch has ended
	}
	if c.recovers() {
		t.Logf("nothing in doubt %v after the restart", time.Since(began).Round(100*time.Millisecond))
	}
}

func (c contender) recovers() bool { return c.name == "troth" || c.name == "twophase" }

func (w *world) open(t *testing.T, c contender) bank {
	t.Helper()
	b, err := c.open(t.Context(), w.dbs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Logf("close: %v", err)
		}
	})
	return b
}

// told is what an answer of a transfer says to a program.
type told string

const (
	saysPaid     told = "paid"
	saysNotPaid  told = "rolled back"
	saysUnknown  told = "unknown, ask"
	saysError    told = "an error"
	saysFailed   told = "commit failed" // which admits that some may have committed
	saysNothing  told = "killed"
	saysWaitPaid told = "paid, finishing"
)

func read(err error) told {
	switch {
	case err == nil:
		return saysPaid
	case errors.Is(err, troth.ErrPending):
		return saysWaitPaid
	case errors.Is(err, troth.ErrRolledBack):
		return saysNotPaid
	case errors.Is(err, troth.ErrUndecided):
		return saysUnknown
	case errors.Is(err, errCommitFailed):
		return saysFailed
	}
	return saysError
}
