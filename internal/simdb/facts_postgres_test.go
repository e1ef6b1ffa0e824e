package simdb

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth/internal/dbtest"
)

// both runs lines "session: text -> answer" on the simulation and on a real server:
// both must answer so. "session -> answer" is the answer of one that waited.
func both(t *testing.T, server *dbtest.Postgres, maxPrepared int, lines ...string) {
	t.Helper()
	real := newRealPostgres(t, server, server.NewDatabase(t))
	defer real.close()
	real.reset(differentialTable...)
	sim := newScript(t, Postgres, Options{MaxPrepared: maxPrepared})
	for _, text := range differentialTable {
		sim.run("a: " + text + " -> " + map[bool]string{true: "CREATE TABLE", false: "INSERT 0 3"}[strings.HasPrefix(text, "CREATE")])
	}
	answers := map[string]string{}
	for _, line := range lines {
		do, want, _ := strings.Cut(line, " -> ")
		name, text, given := strings.Cut(do, ": ")
		if given {
			delete(answers, name)
			real.start(name, text)
			more, _ := real.settle()
			for n, a := range more {
				answers[n] = a
			}
		}
		got, ok := answers[name]
		if !ok {
			got = "waits"
		}
		if got != want {
			t.Fatalf("%s\n   PostgreSQL: %s\nwant of both: %s", do, got, want)
		}
		sim.run(line)
	}
}

func TestPostgresFacts(t *testing.T) {
	t.Parallel()
	const table = "UPDATE t SET v = 0 WHERE id = 1"
	long := strings.Repeat("x", 200)
	facts := []struct {
		name  string
		lines []string
	}{
		{"F1 a failed block is rolled back without an error", []string{
			"a: BEGIN; " + table + " -> BEGIN | UPDATE 1",
			"a: SELECT 1 / 0 -> error 22012",
			"a: " + table + " -> error 25P02",
			"a: PREPARE TRANSACTION 'x' -> ROLLBACK",
			"a: SELECT gid FROM pg_prepared_xacts WHERE database = current_database() -> SELECT 0",
			"a: BEGIN -> BEGIN",
			"a: SELECT 1 / 0 -> error 22012",
			"a: COMMIT -> ROLLBACK",
			"a: PREPARE TRANSACTION 'x' -> ROLLBACK",
			"a: SELECT v FROM t WHERE id = 1 -> SELECT 1 10",
		}},
		{"F2 codes", []string{
			"a: BEGIN; PREPARE TRANSACTION 'x' -> BEGIN | PREPARE TRANSACTION",
			"a: BEGIN -> BEGIN",
			"a: " + table + " -> UPDATE 1",
			"a: PREPARE TRANSACTION 'x' -> error 42710",
			"a: " + table + " -> UPDATE 1", // outside of a block: the session is idle again
			"a: BEGIN; PREPARE TRANSACTION '" + long + "' -> BEGIN | error 22023",
			"a: BEGIN; PREPARE TRANSACTION '" + long[1:] + "' -> BEGIN | PREPARE TRANSACTION",
			"a: ROLLBACK PREPARED '" + long[1:] + "' -> ROLLBACK PREPARED",
			"a: BEGIN -> BEGIN",
			"a: COMMIT PREPARED 'x' -> error 25001",
			"a: ROLLBACK -> ROLLBACK",
			"a: COMMIT PREPARED 'x'; COMMIT PREPARED 'x' -> error 25001",
			"a: COMMIT PREPARED 'x' -> COMMIT PREPARED",
			"a: COMMIT PREPARED 'x' -> error 42704",
			"a: ROLLBACK PREPARED 'x' -> error 42704",
		}},
		{"the whole in one request", []string{
			"a: " + table + "; PREPARE TRANSACTION 'x' -> UPDATE 1 | PREPARE TRANSACTION",
			"a: SAVEPOINT s -> error 25P01",
			"a: SAVEPOINT troth_guard; RELEASE troth_guard; COMMIT -> error 25P01",
			"b: " + table + " -> waits",
			"c: " + table + " -> waits",
			"a: ROLLBACK PREPARED 'x' -> ROLLBACK PREPARED",
			"b -> UPDATE 1",
			"c -> UPDATE 1",
		}},
		{"a prepared transaction keeps keys and rows", []string{
			"a: BEGIN; INSERT INTO t (id, v) VALUES (7, 7); DELETE FROM t WHERE id = 2; PREPARE TRANSACTION 'x' -> BEGIN | INSERT 0 1 | DELETE 1 | PREPARE TRANSACTION",
			"b: INSERT INTO t (id, v) VALUES (7, 8) ON CONFLICT (id) DO NOTHING -> waits",
			"c: INSERT INTO t (id, v) VALUES (2, 8) -> waits",
			"d: SELECT id FROM t WHERE id = 2 -> SELECT 1 2",
			"d: COMMIT PREPARED 'x' -> COMMIT PREPARED",
			"b -> INSERT 0 0",
			"c -> INSERT 0 1",
		}},
		{"a decision is read before the wait", []string{ // the floor of a shared register: F1 of package decisiontable
			"a: BEGIN; INSERT INTO t (id, v) VALUES (7, 7) -> BEGIN | INSERT 0 1",
			"b: INSERT INTO t (id, v) SELECT 7, 8 WHERE NOT EXISTS (SELECT 1 FROM t WHERE id = 9) ON CONFLICT (id) DO NOTHING -> waits",
			"c: INSERT INTO t (id, v) VALUES (9, 9) -> INSERT 0 1",
			"a: ROLLBACK -> ROLLBACK",
			"b -> INSERT 0 1",
		}},
		{"savepoints free what was locked behind them", []string{
			"a: BEGIN; SAVEPOINT s; " + table + " -> BEGIN | SAVEPOINT | UPDATE 1",
			"b: " + table + " -> waits",
			"a: ROLLBACK TO s -> ROLLBACK",
			"b -> UPDATE 1",
			"a: SELECT pg_current_xact_id_if_assigned() IS NULL -> SELECT 1 false",
			"a: SELECT 1 / 0 -> error 22012",
			"a: RELEASE s -> error 25P02",
			"a: ROLLBACK TO nobody -> error 3B001",
			"a: ROLLBACK TO s -> ROLLBACK",
			"a: COMMIT -> COMMIT",
		}},
		{"a failed statement frees all locks at once", []string{
			"a: BEGIN; " + table + " -> BEGIN | UPDATE 1",
			"b: " + table + " -> waits",
			"a: SELECT 1 / 0 -> error 22012",
			"b -> UPDATE 1",
			"a: COMMIT -> ROLLBACK",
		}},
		{"what has no number", []string{
			"a: BEGIN; SELECT v FROM t; UPDATE t SET v = 0 WHERE id = 99 -> BEGIN | SELECT 3 10 20 30 | UPDATE 0",
			"a: SELECT pg_current_xact_id_if_assigned() IS NULL -> SELECT 1 true",
			"a: SELECT v FROM t WHERE id = 1 FOR UPDATE -> SELECT 1 10",
			"a: SELECT pg_current_xact_id_if_assigned() IS NULL -> SELECT 1 false",
		}},
		{"settings", []string{
			"a: BEGIN; SET LOCAL lock_timeout = 50 -> BEGIN | SET",
			"a: SELECT current_setting('lock_timeout') -> SELECT 1 50ms",
			"a: COMMIT -> COMMIT",
			"a: SELECT current_setting('lock_timeout') -> SELECT 1 0",
			"a: SELECT set_config('lock_timeout', '70ms', true) -> SELECT 1 70ms",
			"a: SELECT current_setting('lock_timeout') -> SELECT 1 0",
			"a: SET no_such_thing = 1 -> error 42704",
		}},
	}
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) { // one by one: the names of prepared transactions are the server's
			both(t, dbtest.SharedPostgres(t, 0), 200, f.lines...)
		})
	}
}

// F2: no slot is left, or there are none at all.
func TestPostgresSlots(t *testing.T) {
	t.Parallel()
	for slots, lines := range map[int][]string{
		1: {
			"a: BEGIN; PREPARE TRANSACTION 'x' -> BEGIN | PREPARE TRANSACTION",
			"a: BEGIN; PREPARE TRANSACTION 'y' -> BEGIN | error 53200",
			"a: ROLLBACK PREPARED 'x' -> ROLLBACK PREPARED",
			"a: BEGIN; PREPARE TRANSACTION 'y' -> BEGIN | PREPARE TRANSACTION",
		},
		-1: {"a: BEGIN; PREPARE TRANSACTION 'x' -> BEGIN | error 55000"},
	} {
		t.Run(fmt.Sprint(slots), func(t *testing.T) {
			t.Parallel()
			server, err := dbtest.StartPostgres(t.Context(), dbtest.PostgresConfig{
				Settings: map[string]string{"max_prepared_transactions": fmt.Sprint(max(slots, 0))},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := server.Close(); err != nil {
					t.Error(err)
				}
			})
			both(t, server, slots, lines...)
		})
	}
}

// F3: of two sessions that end one transaction, one wins; the other is told that
// it is busy, or gone. The simulation is busy while the winner lingers.
func TestPostgresF3Busy(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 0)
	real := newRealPostgres(t, server, server.NewDatabase(t))
	defer real.close()
	real.reset(differentialTable...)
	counts := map[string]int{}
	for i := range 100 {
		gid := fmt.Sprintf("'f3-%d'", i)
		real.ask("BEGIN; PREPARE TRANSACTION " + gid)
		real.start("a", "COMMIT PREPARED "+gid)
		real.start("b", "COMMIT PREPARED "+gid)
		answers, _ := real.settle()
		counts[answers["a"]]++
		counts[answers["b"]]++
	}
	if counts["COMMIT PREPARED"] != 100 || counts["error 55000"]+counts["error 42704"] != 100 {
		t.Errorf("PostgreSQL answered %v", counts)
	}

	for busy, want := range map[bool]string{false: "error 42704", true: "error 55000"} {
		sim := newScript(t, Postgres, Options{Linger: func(e Event) bool { return busy && e.Kind == CommitPrepared }})
		sim.run("a: BEGIN; PREPARE TRANSACTION 'x' -> BEGIN | PREPARE TRANSACTION")
		if busy {
			sim.run("a: COMMIT PREPARED 'x' -> waits", "b: COMMIT PREPARED 'x' -> "+want, "a -> COMMIT PREPARED")
		} else {
			sim.run("a: COMMIT PREPARED 'x' -> COMMIT PREPARED", "b: COMMIT PREPARED 'x' -> "+want)
		}
	}
}

// F4: the server remembers how every transaction ended, over a crash, too; but the
// number of one that had not reached the disk is forgotten, and given out again.
func TestPostgresF4Status(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 2) // it is killed
	server.MustOwn(t)
	real := newRealPostgres(t, server, server.NewDatabase(t))
	defer real.close()
	real.reset(differentialTable...)
	statuses := func(exec func(session, text string) string, crash func()) string {
		numberOf := func(session string, id int) string {
			a := exec(session, fmt.Sprintf("BEGIN; UPDATE t SET v = 0 WHERE id = %d; SELECT pg_current_xact_id_if_assigned()", id))
			return a[strings.LastIndex(a, " ")+1:]
		}
		committed, prepared := numberOf("a", 1), numberOf("b", 2)
		open, ended := numberOf("c", 3), ""
		exec("a", "COMMIT")
		exec("b", "PREPARE TRANSACTION 'f4'")
		ended = numberOf("a", 1)
		exec("a", "ROLLBACK")
		var out []string
		look := func() {
			for _, n := range []string{committed, ended, prepared, open} {
				out = append(out, exec("d", "SELECT pg_xact_status('"+n+"'::xid8)"))
			}
			out = append(out, exec("d", "SELECT pg_xact_status('99999999'::xid8)"))
		}
		look()
		crash()
		look()
		exec("d", "COMMIT PREPARED 'f4'")
		look()
		return strings.Join(out, "\n")
	}
	got := statuses(func(session, text string) string {
		real.start(session, text)
		answers, _ := real.settle()
		return answers[session]
	}, real.crash)
	simulated := func(lost int) string {
		sim := newScript(t, Postgres, Options{Rand: func(n int) int { return min(lost, n-1) }})
		for _, text := range differentialTable {
			_, _ = sim.session("a").Exec(text)
		}
		return statuses(func(session, text string) string { return answer(sim.session(session).Exec(text)) }, func() {
			sim.srv.Kill()
			sim.srv.Restart()
		})
	}
	want := simulated(0)
	if got != want && got != simulated(1) {
		t.Errorf("PostgreSQL says\n%s\nthe simulation\n%s\nor\n%s", got, want, simulated(1))
	}
	if !strings.Contains(want, "in progress") || !strings.Contains(want, "aborted") || !strings.Contains(want, "committed") {
		t.Errorf("the test went nowhere: %s", want)
	}
}

// What ends a session from outside, and what its client hears.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	sc := account(t, Options{})
	sc.run(
		"a: BEGIN; UPDATE account SET balance = 0 WHERE id = 1 -> BEGIN | UPDATE 1",
		"b: UPDATE account SET balance = 1 WHERE id = 1 -> waits",
		"c: UPDATE account SET balance = 2 WHERE id = 1 -> waits",
	)
	b, c := sc.sessions["b"], sc.sessions["c"]
	b.Expire()
	sc.run("b -> error 55P03")
	c.Terminate()
	if !c.Ready() {
		t.Error("a terminated session does not know it")
	}
	sc.run("c -> error 57P01")
	if _, err := c.Exec("SELECT 1"); !errors.Is(err, ErrGone) {
		t.Errorf("a dead session answers %v", err)
	}
	sc.sessions["a"].ExpireIdle()
	if _, err := sc.sessions["a"].Exec("SELECT 1"); err == nil || asError(err).Code != "25P03" {
		t.Errorf("an expired session answers %v", err)
	}
	sc.run("d: SELECT balance FROM account WHERE id = 1 -> SELECT 1 100")
	sc.srv.Kill()
	if _, err := sc.srv.Connect(); !errors.Is(err, ErrDown) {
		t.Errorf("Connect to a dead server: %v", err)
	}
	sc.srv.Restart()
	sc.run("e: SELECT balance FROM account WHERE id = 1 -> SELECT 1 100")
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	sc := account(t, Options{})
	sc.run("a: BEGIN; SET LOCAL idle_in_transaction_session_timeout = 1500; SELECT set_config('lock_timeout', '5000ms', true) -> BEGIN | SET | SELECT 1 5s")
	if s := sc.sessions["a"]; s.IdleTimeout() != 1500*time.Millisecond || s.LockTimeout() != 5*time.Second {
		t.Errorf("timeouts are %v, %v", s.IdleTimeout(), s.LockTimeout())
	}
	sc.run("a: COMMIT -> COMMIT")
	if s := sc.sessions["a"]; s.IdleTimeout() != 0 || s.LockTimeout() != 0 {
		t.Errorf("timeouts outlive their transaction: %v, %v", s.IdleTimeout(), s.LockTimeout())
	}
}

// A text that is not understood is refused before any of it is done.
func TestUnknownTexts(t *testing.T) {
	t.Parallel()
	sc := account(t, Options{})
	for _, text := range []string{
		"UPDATE account SET balance = 0; VACUUM", "SELECT * FROM account a JOIN account b ON a.id = b.id", "SELECT f(1)",
		"BEGIN ISOLATION LEVEL SERIALIZABLE", "INSERT INTO account (id, balance) VALUES (9, 9) RETURNING id", "SELECT 'open",
	} {
		var unknown *UnknownError
		if _, err := sc.session("a").Exec(text); !errors.As(err, &unknown) || unknown.Text != text {
			t.Errorf("%s: %v", text, err)
		}
	}
	if got := len(sc.srv.Refused()); got != 6 {
		t.Errorf("%d texts were refused", got)
	}
	sc.run("a: SELECT sum(balance) FROM account -> SELECT 1 200")
}

// A crash forgets the number of a transaction of which nothing had reached the
// disk, and the next one that writes gets it. So "committed" may be said of another
// transaction than the one that is asked about.
func TestPostgresGivesNumbersOutAgain(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 3) // it is killed
	server.MustOwn(t)
	real := newRealPostgres(t, server, server.NewDatabase(t))
	defer real.close()
	real.reset(differentialTable...)
	const writes = "BEGIN; UPDATE t SET v = 0 WHERE id = 1; SELECT pg_current_xact_id_if_assigned()"
	again := func(exec func(text string) string, crash func()) bool {
		before := exec(writes)
		crash()
		after := exec(writes)
		exec("COMMIT")
		return before == after
	}
	sim := newScript(t, Postgres, Options{Rand: func(n int) int { return n - 1 }})
	for _, text := range differentialTable {
		_, _ = sim.session("a").Exec(text)
	}
	if !again(func(text string) string { return answer(sim.session("a").Exec(text)) }, func() { sim.srv.Kill(); sim.srv.Restart() }) {
		t.Error("the simulation gave out another number")
	}
	for range 5 { // the server may happen to write its log just in time
		if again(func(text string) string {
			real.start("a", text)
			answers, _ := real.settle()
			return answers["a"]
		}, real.crash) {
			return
		}
	}
	t.Error("PostgreSQL gave out another number each time: the simulation is too harsh")
}
