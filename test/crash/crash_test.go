// Package crash kills a program at every named point of the commit protocol, with
// SIGKILL, on real databases, and looks from outside whether any money was lost.
package crash

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/mistake"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// settleWithin is how long after its restart a program may need until nothing is
// in doubt; one that makes a mistake often never gets there.
var settleWithin = map[bool]time.Duration{false: time.Minute, true: 10 * time.Second}[mistake.Enabled]

// database is one database of a pair, seen from outside.
type database struct {
	spec   string // as the child wants it
	db     *sql.DB
	server server // nil for SQLite
}

// server is what the tests do to a database server.
type server interface {
	Addr() string
	Kill() error
	Restart(ctx context.Context) error
}

func openDatabase(t *testing.T, kind string, i int) database {
	t.Helper()
	var dsn, driver string
	var server server
	switch kind {
	case "postgres":
		pg := dbtest.SharedPostgres(t, i)
		dsn, driver, server = pg.NewDatabase(t), "pgx", pg
	case "mysql":
		maria := dbtest.SharedMariaDB(t, i)
		dsn, driver, server = maria.NewDatabase(t), "mysql", maria
	case "sqlite":
		dsn, driver = "file:"+filepath.Join(t.TempDir(), "bank.db")+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(60000)&_pragma=synchronous(FULL)", "sqlite"
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxIdleConns(0) // its server will be killed: no session of before may be asked
	t.Cleanup(func() { _ = db.Close() })
	for _, s := range []string{
		"CREATE TABLE account (id INT PRIMARY KEY, balance INT NOT NULL)",
		"CREATE TABLE journal (gid VARCHAR(64) PRIMARY KEY, amount INT NOT NULL)",
		"INSERT INTO account VALUES (1, 1000)",
	} {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	return database{spec: kind + "=" + dsn, db: db, server: server}
}

// world is a pair of databases, a register, and what clients were told.
type world struct {
	a, b     database
	register string
	told     map[string]string // gid -> the last thing that its program said
}

func newWorld(t *testing.T, kindA, kindB, register string) *world {
	t.Helper()
	w := &world{a: openDatabase(t, kindA, 0), b: openDatabase(t, kindB, 1), told: make(map[string]string)}
	switch register {
	case "home":
		w.register = "home"
	case "file":
		w.register = "file:" + filepath.Join(t.TempDir(), "log")
	case "sql":
		w.register = "postgres=" + dbtest.SharedPostgres(t, 0).NewDatabase(t)
	}
	return w
}

// child runs the program; fault is TROTH_FAULT. It reports whether it was killed.
func (w *world) child(t *testing.T, fault string, args ...string) (killed bool) {
	t.Helper()
	return w.start(t, fault, args...).wait(t)
}

// process is a running child.
type process struct {
	w              *world
	cmd            *exec.Cmd
	fault          string
	stdout, stderr bytes.Buffer
	ended          chan struct{}
	err            error
}

func (w *world) start(t *testing.T, fault string, args ...string) *process {
	t.Helper()
	p := &process{w: w, fault: fault, ended: make(chan struct{})}
	p.cmd = exec.Command(childBinary(t), append([]string{"-a", w.a.spec, "-b", w.b.spec, "-register", w.register}, args...)...)
	p.cmd.Env = append(os.Environ(), "TROTH_FAULT="+fault)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p
}

// wait waits for the program's end, and reports whether it was killed.
func (p *process) wait(t *testing.T) (killed bool) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(4 * time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.ended
		t.Fatalf("child %v with %q did not end\n%s%s", p.cmd.Args[1:], p.fault, p.stdout.String(), p.stderr.String())
	}
	for line := range strings.Lines(p.stdout.String()) {
		if word, gid, ok := strings.Cut(strings.TrimSpace(line), " "); ok && word != "settled" {
			p.w.told[gid] = word
		}
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if p.err != nil {
		t.Fatalf("child %v with %q: %v\n%s%s", p.cmd.Args[1:], p.fault, p.err, p.stdout.String(), p.stderr.String())
	}
	return false
}

// frozen waits until the program has stopped itself at its fault point; false: it
// ended without coming there.
func (p *process) frozen(t *testing.T) bool {
	t.Helper()
	stat := fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid)
	for start := time.Now(); time.Since(start) < 4*time.Minute; time.Sleep(2 * time.Millisecond) {
		select {
		case <-p.ended:
			return false
		default:
		}
		text, err := os.ReadFile(stat)
		if i := bytes.LastIndexByte(text, ')'); err == nil && i >= 0 && len(text) > i+2 && text[i+2] == 'T' {
			return true
		}
	}
	t.Fatalf("child with %q neither stopped nor ended", p.fault)
	return false
}

func (p *process) thaw(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// check looks at the databases from outside: I1, I2, I3, I5.
func (w *world) check(t *testing.T) {
	t.Helper()
	ja, jb := w.journal(t, w.a), w.journal(t, w.b)
	for gid, amount := range ja {
		if jb[gid] != -amount {
			t.Errorf("I1: %s is in athos and not in porthos", gid)
		}
	}
	for gid := range jb {
		if _, ok := ja[gid]; !ok {
			t.Errorf("I1: %s is in porthos and not in athos", gid)
		}
	}
	for gid, word := range w.told {
		_, done := ja[gid]
		if word == "committed" && !done {
			t.Errorf("I2: %s was reported committed and is nowhere", gid)
		}
		if word == "aborted" && done {
			t.Errorf("I3: %s was reported aborted and is there", gid)
		}
	}
	for _, d := range []database{w.a, w.b} {
		var balance, sum int
		if err := d.db.QueryRowContext(t.Context(), "SELECT balance, (SELECT coalesce(sum(amount), 0) FROM journal) FROM account").Scan(&balance, &sum); err != nil {
			t.Fatal(err)
		}
		if balance != 1000+sum {
			t.Errorf("I5: the balance is %d, the journal says %d", balance, 1000+sum)
		}
	}
}

func (w *world) journal(t *testing.T, d database) map[string]int {
	t.Helper()
	rows, err := d.db.QueryContext(t.Context(), "SELECT gid, amount FROM journal")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	out := make(map[string]int)
	for rows.Next() {
		var gid string
		var amount int
		if err := rows.Scan(&gid, &amount); err != nil {
			t.Fatal(err)
		}
		out[gid] = amount
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// childBinary builds the program once, with the fault points in it.
func childBinary(t *testing.T) string {
	t.Helper()
	build.once.Do(func() {
		name, tags := "crash-child", "faultpoint"
		if mistake.Enabled {
			name, tags = "crash-child-mistaken", "faultpoint mistake"
		}
		build.path, build.err = filepath.Abs("../../bin/" + name) // kept: the next build is quick
		if build.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-tags", tags, "-o", build.path, "./child").CombinedOutput()
		if err != nil {
			build.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if build.err != nil {
		t.Fatal(build.err)
	}
	return build.path
}

var build struct {
	once sync.Once
	path string
	err  error
}

// hit records which points killed a child, over all worlds.
var hit struct {
	sync.Mutex
	points map[string]bool
}

func markHit(point string) {
	hit.Lock()
	defer hit.Unlock()
	if hit.points == nil {
		hit.points = make(map[string]bool)
	}
	hit.points[point] = true
}

// TestKillAtEveryPoint kills the program once at the first and once at the second
// hit of every point, on every pair of databases with every register; then kills
// the program that recovers at every point of recovery; then lets one finish, and
// looks.
func TestKillAtEveryPoint(t *testing.T) {
	points := swept
	pairs := [][2]string{{"postgres", "postgres"}, {"postgres", "mysql"}, {"sqlite", "mysql"}}
	for _, pair := range pairs {
		for _, register := range []string{"home", "file", "sql"} {
			t.Run(pair[0]+"+"+pair[1]+"/"+register, func(t *testing.T) {
				w := newWorld(t, pair[0], pair[1], register)
				w.requireTransfers(t)
				for _, point := range points {
					for n := 1; n <= 2; n++ {
						if !w.child(t, fmt.Sprintf("%s:%d:kill", point, n)) {
							continue // this pair and register never come there
						}
						markHit(point)
						w.crashRecovery(t, point, n)
						w.child(t, "", "-settle", settleWithin.String(), "-keep", "-1s")
						w.check(t)
						if t.Failed() {
							t.Fatalf("after a kill at hit %d of %s", n, point)
						}
					}
				}
			})
		}
	}
	if t.Failed() {
		return
	}
	for _, point := range points {
		if !hit.points[point] && point != "ask.answered" { // that needs a lost answer: see TestServerKilledAtEveryPoint
			t.Errorf("no run was killed at %s; hit: %v", point, slices.Sorted(maps.Keys(hit.points)))
		}
	}
}

// recoveryPoints are in the order in which recovery passes them: killed at one,
// the next child still has the later ones before it.
var recoveryPoints = []string{
	"recover.listed", "recover.before-decide", "recover.after-decide", "recover.before-finish", "recover.after-finish",
	"forget.before", "forget.after",
}

// TestServerKilledAtEveryPoint freezes the program at every point, kills one of
// its databases with SIGKILL, starts that again and lets the program go on: it must
// say nothing that is not true, and another must finish what it leaves.
func TestServerKilledAtEveryPoint(t *testing.T) {
	points := swept
	for _, pair := range [][2]string{{"postgres", "postgres"}, {"postgres", "mysql"}, {"sqlite", "mysql"}} {
		for _, register := range []string{"home", "file"} {
			t.Run(pair[0]+"+"+pair[1]+"/"+register, func(t *testing.T) {
				w := newWorld(t, pair[0], pair[1], register)
				w.requireTransfers(t)
				for _, point := range points {
					for _, victim := range []database{w.a, w.b} {
						if victim.server == nil || strings.HasPrefix(point, "recover.") || strings.HasPrefix(point, "forget.") {
							continue
						}
						w.killServer(t, point, victim.server)
						if t.Failed() {
							t.Fatalf("after the kill of a server at %s", point)
						}
					}
				}
			})
		}
	}
}

func (w *world) killServer(t *testing.T, point string, victim server) {
	t.Helper()
	p := w.start(t, point+":1:freeze")
	if p.frozen(t) {
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := victim.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.thaw(t)
	}
	p.wait(t)
	w.child(t, "", "-settle", settleWithin.String())
	w.check(t)
}

// TestZombie freezes the program at every point, lets another recover all that it
// holds, and wakes it: what it then says must be what the other did (R5).
func TestZombie(t *testing.T) {
	points := swept
	for _, pair := range [][2]string{{"postgres", "postgres"}, {"postgres", "mysql"}, {"mysql", "mysql"}} {
		for _, register := range []string{"home", "sql"} {
			t.Run(pair[0]+"+"+pair[1]+"/"+register, func(t *testing.T) {
				w := newWorld(t, pair[0], pair[1], register)
				w.requireTransfers(t)
				for _, point := range points {
					p := w.start(t, point+":1:freeze")
					if p.frozen(t) {
						w.child(t, "", "-settle", settleWithin.String())
						p.thaw(t)
					}
					p.wait(t)
					w.child(t, "", "-settle", settleWithin.String())
					w.check(t)
					if t.Failed() {
						t.Fatalf("after a sleep at %s", point)
					}
				}
			})
		}
	}
}

// requireTransfers runs the program without a fault: what follows means nothing
// if it does no work.
func (w *world) requireTransfers(t *testing.T) {
	t.Helper()
	w.child(t, "")
	words := slices.Sorted(maps.Values(w.told))
	if got := strings.Join(words, " "); got != "aborted committed committed" {
		t.Fatalf("three transfers, the last rolled back by the program, ended as %q", got)
	}
	w.check(t)
}

// crashRecovery kills recovering programs, one at each point of recovery, after
// the crashes that leave the most to do: just before the decision and just after.
func (w *world) crashRecovery(t *testing.T, point string, n int) {
	t.Helper()
	if n > 1 || !strings.HasPrefix(point, "decide.") {
		return
	}
	for _, p := range recoveryPoints {
		if w.child(t, p+":1:kill", "-settle", settleWithin.String()) {
			markHit(p)
		}
	}
}

// swept are the points at which these tests stop the program, on every pair of
// databases with every register. That every other point is reached too is shown by
// TestEveryPointIsReached; stopping there is left to the torture of real databases.
var swept = []string{
	"poll.answered", "prepare.before", "prepare.answered",
	"decide.before", "decide.after", "ask.answered", "report.before",
	"commit.before", "commit.answered", "acks.complete", "rollback.before", "rollback.answered",
	"recover.listed", "recover.before-decide", "recover.after-decide", "recover.before-finish", "recover.after-finish",
	"forget.before", "forget.after",
}
