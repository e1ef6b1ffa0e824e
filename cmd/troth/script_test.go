package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/filelog"
	"github.com/troth-tx/troth/internal/dbtest"
)

// TestMain is the program itself when the test binary is called troth: scripts run
// what is under test, with its exit codes, in a process of its own.
func TestMain(m *testing.M) {
	if strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe") == "troth" {
		main()
	}
	dbtest.Main(m)
}

// TestScript runs testdata/script. A script finds databases of its own in $ATHOS
// and $ARAMIS (PostgreSQL) and $PORTHOS (MariaDB), all with the password $SECRET in
// their addresses, each with a table t that holds one row; and besides the usual
// commands those in scriptCommands.
func TestScript(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "troth")); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		RequireUniqueNames: true,
		Cmds:               scriptCommands,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("TROTH_TIMEOUT", "2m") // the machine may be busy
			return setUpDatabases(env)
		},
	})
}

func setUpDatabases(env *testscript.Env) error {
	t := env.T().(testing.TB)
	secret := "planted-" + strings.ToLower(rand.Text())
	env.Setenv("SECRET", secret)
	pg := dbtest.SharedPostgres(t, 0)
	maria := dbtest.SharedMariaDB(t, 0)
	for name, address := range map[string]string{
		"ATHOS":   withPassword(t, pg.NewDatabase(t), secret),
		"ARAMIS":  withPassword(t, pg.NewDatabase(t), secret),
		"PORTHOS": mariaAddress(t, maria.NewDatabase(t), secret),
	} {
		env.Setenv(name, address)
		for _, statement := range []string{"CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 0)"} {
			if err := execute(t.Context(), address, statement); err != nil {
				return err
			}
		}
	}
	return nil
}

// withPassword puts a password into the address of a server that asks for none.
func withPassword(t testing.TB, dsn, secret string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, has := u.User.Password(); !has {
		u.User = url.UserPassword(u.User.Username(), secret)
	}
	return u.String()
}

// mariaAddress makes a user with a password, and returns its address in our words.
func mariaAddress(t testing.TB, dsn, secret string) string {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	name := "app_" + strings.ToLower(rand.Text()[:8])
	for _, statement := range []string{
		"CREATE USER " + name + "@'%' IDENTIFIED BY '" + secret + "'",
		"GRANT ALL ON *.* TO " + name + "@'%' WITH GRANT OPTION",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.Background(), "DROP USER "+name); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	u := url.URL{Scheme: "mysql", User: url.UserPassword(name, secret), Host: cfg.Addr, Path: "/" + cfg.DBName}
	return u.String()
}

var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// exits CODE COMMAND [ARGUMENT...] wants exactly that exit code.
	"exits": func(ts *testscript.TestScript, _ bool, args []string) {
		want, err := strconv.Atoi(args[0])
		ts.Check(err)
		got := 0
		var exit *exec.ExitError
		if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else {
			ts.Check(err)
		}
		if got != want {
			ts.Fatalf("exit code %d, want %d", got, want)
		}
	},
	"json": scriptJSON,
	// begin VAR HOME prepares nothing: it sets VAR to a new transaction of $TROTH_DOMAIN,
	// and VAR_PLACE to where its decision belongs: HOME.
	"begin": func(ts *testscript.TestScript, _ bool, args []string) {
		gid := troth.NewGID(ts.Getenv("TROTH_DOMAIN"), time.Now())
		ts.Setenv(args[0], string(gid))
		ts.Setenv(args[0]+"_PLACE", strings.ToLower(args[1])+"~"+identity(ts, ts.Getenv(args[1])))
	},
	// prepare VAR DATABASE NUMBER prepares a branch that holds the row of t.
	"prepare": func(ts *testscript.TestScript, _ bool, args []string) {
		xid := xidOf(ts, args[0], args[2])
		prepareBranch(ts, ts.Getenv(args[1]), xid)
	},
	// decide VAR DATABASE commit|abort RESOURCE.NUMBER... records the decision.
	"decide": func(ts *testscript.TestScript, _ bool, args []string) {
		binds := make([]string, 0, len(args))
		for _, b := range args[3:] {
			binds = append(binds, b+"=")
		}
		ts.Check(execute(context.Background(), ts.Getenv(args[1]), fmt.Sprintf(
			"INSERT INTO troth_decision (gid, outcome, branches) VALUES ('%s', '%s', '%s')", ts.Getenv(args[0]), args[2], strings.Join(binds, " "))))
	},
	// block DATABASE starts a session that waits for the row of t, until the script
	// ends or the row is free.
	"block": func(ts *testscript.TestScript, _ bool, args []string) { block(ts, ts.Getenv(args[0])) },
	// silence VAR sets VAR to an address at which somebody takes connections and says
	// nothing.
	"silence": func(ts *testscript.TestScript, _ bool, args []string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { ts.Check(l.Close()) })
		ts.Setenv(args[0], l.Addr().String())
	},
	// sql DATABASE STATEMENT runs a statement; query DATABASE QUERY WANT compares the
	// only value that a query gives.
	"sql": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Check(execute(context.Background(), ts.Getenv(args[0]), args[1]))
	},
	"query": func(ts *testscript.TestScript, _ bool, args []string) {
		got, err := value(context.Background(), ts.Getenv(args[0]), args[1])
		ts.Check(err)
		if got != args[2] {
			ts.Fatalf("%s: %q, want %q", args[1], got, args[2])
		}
	},
	// lesser VAR DATABASE sets VAR to the address of a user of MariaDB who may only read.
	// wrong VAR DATABASE sets VAR to an address with a wrong password.
	"lesser": func(ts *testscript.TestScript, _ bool, args []string) { lesserUser(ts, args[0], ts.Getenv(args[1])) },
	"wrong": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Setenv(args[0], strings.Replace(ts.Getenv(args[1]), ts.Getenv("SECRET"), "not-it", 1))
	},
	// nobody VAR DATABASE sets VAR to an address of PostgreSQL with a role that is not there.
	"nobody": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Setenv(args[0], strings.Replace(ts.Getenv(args[1]), "://postgres:", "://nobody:", 1))
	},
	// expand FILE replaces the variables in a file by their values.
	"expand": func(ts *testscript.TestScript, _ bool, args []string) {
		text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
	},
	// filelog make|lock DIRECTORY makes a decision log, and with lock keeps it open until
	// the script ends, as its program does.
	"filelog": func(ts *testscript.TestScript, _ bool, args []string) {
		log, err := filelog.Open(ts.MkAbs(args[1]))
		ts.Check(err)
		if args[0] == "make" {
			ts.Check(log.Close(context.Background()))
			return
		}
		ts.Defer(func() { ts.Check(log.Close(context.Background())) })
	},
	// secretless FILE... fails if the planted password is in one.
	"secretless": func(ts *testscript.TestScript, _ bool, args []string) {
		for _, file := range args {
			if strings.Contains(ts.ReadFile(file), ts.Getenv("SECRET")) {
				ts.Fatalf("the password is in %s", file)
			}
		}
	},
}

func lesserUser(ts *testscript.TestScript, variable, address string) {
	u, err := url.Parse(address)
	ts.Check(err)
	ctx, name := context.Background(), "clerk_"+strings.ToLower(rand.Text()[:8])
	admin, secret := u.User, ts.Getenv("SECRET")
	for _, statement := range []string{
		"CREATE USER " + name + "@'%' IDENTIFIED BY '" + secret + "'",
		"GRANT SELECT ON " + strings.TrimPrefix(u.Path, "/") + ".* TO " + name + "@'%'",
	} {
		ts.Check(execute(ctx, u.String(), statement))
	}
	u.User = url.UserPassword(name, secret)
	ts.Setenv(variable, u.String())
	u.User = admin
	ts.Defer(func() { ts.Check(execute(ctx, u.String(), "DROP USER "+name)) })
}

func connect(address string) (*sql.DB, error) {
	a, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	return a.open()
}

func execute(ctx context.Context, address, statement string) error {
	db, err := connect(address)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, statement)
	return errors.Join(err, db.Close())
}

func value(ctx context.Context, address, query string) (string, error) {
	db, err := connect(address)
	if err != nil {
		return "", err
	}
	var v string
	err = db.QueryRowContext(ctx, query).Scan(&v)
	return v, errors.Join(err, db.Close())
}

func identity(ts *testscript.TestScript, address string) string {
	id, err := value(context.Background(), address, "SELECT value FROM troth_meta WHERE name = 'identity'")
	ts.Check(err)
	return id
}

func xidOf(ts *testscript.TestScript, variable, number string) troth.XID {
	xid, err := troth.ParseXID("troth:" + ts.Getenv(variable) + ":" + ts.Getenv(variable+"_PLACE") + "." + number)
	ts.Check(err)
	return xid
}

// prepareBranch leaves a branch behind as a program does that dies between its
// vote and the decision.
func prepareBranch(ts *testscript.TestScript, address string, xid troth.XID) {
	db, err := connect(address)
	ts.Check(err)
	defer func() { ts.Check(db.Close()) }()
	ctx := context.Background()
	c, err := db.Conn(ctx)
	ts.Check(err)
	name := fmt.Sprintf("'%s','%s',%d", xid.GTRID(), xid.BQUAL(), troth.FormatID)
	witness := fmt.Sprintf("INSERT INTO troth_witness (gid, branch, home, created_at) VALUES ('%s', %d, '%s', UTC_TIMESTAMP(6))",
		xid.GID, xid.Branch, xid.Place)
	statements := []string{"XA START " + name, "UPDATE t SET v = v + 1 WHERE id = 1", witness, "XA END " + name, "XA PREPARE " + name}
	if strings.HasPrefix(address, "postgres") {
		statements = []string{"BEGIN", "UPDATE t SET v = v + 1 WHERE id = 1", "PREPARE TRANSACTION '" + xid.String() + "'"}
	}
	for _, s := range statements {
		_, err := c.ExecContext(ctx, s)
		ts.Check(err)
	}
	ts.Check(c.Close())
}

// block returns once the server shows that the session waits.
func block(ts *testscript.TestScript, address string) {
	db, err := connect(address)
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	c, err := db.Conn(ctx)
	ts.Check(err)
	ended := make(chan struct{})
	session, waits := "pg_backend_pid()", "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = "
	if !strings.HasPrefix(address, "postgres") {
		session, waits = "connection_id()", "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_mysql_thread_id = "
	}
	if !strings.HasPrefix(address, "postgres") {
		_, err := c.ExecContext(ctx, "SET SESSION innodb_lock_wait_timeout = 3600") // it waits as long as the script runs
		ts.Check(err)
	}
	var id string
	ts.Check(c.QueryRowContext(ctx, "SELECT "+session).Scan(&id))
	go func() {
		defer close(ended)
		_, _ = c.ExecContext(ctx, "UPDATE t SET v = 42 WHERE id = 1") // it ends in one way or the other
	}()
	ts.Defer(func() {
		cancel()
		<-ended
		_ = c.Close() // cancelled
		_ = db.Close()
	})
	ts.Setenv("BLOCKED", id)
	innodbLook.Lock()
	defer innodbLook.Unlock()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		time.Sleep(innodbCache)
		n, err := value(ctx, address, waits+id)
		ts.Check(err)
		if n == "1" {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("session %s does not wait", id)
		}
	}
}

// MariaDB keeps what innodb_trx shows until nobody has looked for 100 ms: scripts that
// look more often, alone or in turns, would see the past for ever.
const innodbCache = 150 * time.Millisecond

var innodbLook sync.Mutex
