package simdb

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/troth-tx/troth/internal/dbtest"
)

// TestDifferentialMariaDB gives random steps to the simulation and to a real server
// and demands the same answers, the same waits and the same end. rapid prints the
// command that repeats a failure; -rapid.checks says how many runs there are.
//
// No run is set aside. Two things are chance on the server:
//
//   - When it purges what is deleted, and with it gaps. A snapshot keeps it from that,
//     and steps of their own have it purge all. They come when no transaction may have
//     written anything: others keep the server from telling when it has purged. So what
//     a purge does to locks is drawn for shared ones only; a crash that would purge
//     while something is prepared is not drawn.
//   - In which order sessions go on that waited for the same event, and what a crash
//     brings back of what was not forced to disk: see reconsider.
//
// The statements name keys, as troth's own do when they lock: ranges are not drawn.
func TestDifferentialMariaDB(t *testing.T) {
	t.Parallel()
	real := newMariaReal(t, dbtest.SharedMariaDB(t, mariaRandomServer))
	seen := map[string]int{} // answers
	runs, runsMax, failing := 0, differentialRuns(), false
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; runs > runsMax && !failing {
			return
		}
		failing = true // until it has ended well: rapid then repeats it
		p := newMariaPair(rt, real)
		seed := rapid.Uint64().Draw(rt, "seed")
		for i, keep := range rapid.SliceOfN(rapid.Bool(), 60, 200).Draw(rt, "steps") {
			if !keep {
				continue
			}
			if line := p.draw(mariaDice{rand.New(rand.NewPCG(seed, uint64(i)))}); line != "" { //nolint:gosec // to be repeated
				p.step(line)
			}
		}
		p.count(seen)
		if p.changed > 0 {
			seen["reordered"]++
		}
		p.compareState()
		failing = false
		seen["compared"]++
	})
	real.t = t
	t.Logf("answers: %v", seen)
	if t.Failed() {
		return
	}
	for _, answer := range []string{"waits", "error 1062", "error 1397", "error 1399", "error 1440"} {
		if seen["compared"] >= 20 && seen[answer] == 0 {
			t.Errorf("no step was answered with %q: the test compares less than it should", answer)
		}
	}
}

// A mariaDice chooses a step evenly. rapid's own draws prefer small numbers, so that
// the sessions would rarely meet; here it chooses the dice, and which steps to leave
// out, which is what it needs to shrink a failure.
type mariaDice struct{ *rand.Rand }

func (d mariaDice) of(list ...string) string { return list[d.IntN(len(list))] }

func (d mariaDice) xid() string { return d.of("'a'", "'b','1'", "'c','2',7") }

// there is the id of a row that the table has from the beginning, the first rather
// than the others; maybe is one that it may have.
func (d mariaDice) there() string { return d.of("1", "1", "1", "2", "2", "3", "5") }
func (d mariaDice) maybe() string { return d.of("11", "11", "12", "13") }

// draw chooses the next step: mostly one that makes sense in the state that a
// session is in. It is empty if the session waits.
func (p *mariaPair) draw(d mariaDice) string {
	n := 1 + d.IntN(4)
	s := p.sim.sessions[n]
	dice := d.IntN(200)
	switch {
	case dice == 0 && (p.sim.purges() || len(p.sim.srv.eng.(*maria).marks) == 0):
		return "crash"
	case dice < 4 && p.sim.purges():
		return "purge"
	case dice < 8:
		return fmt.Sprintf("kill %d", n)
	case s != nil && s.Waits():
		return "" // nor does a real server notice that the client hangs up
	case dice < 12:
		return fmt.Sprintf("close %d", n)
	case dice < 32:
		return fmt.Sprintf("%d %s", n, d.any())
	}
	return fmt.Sprintf("%d %s", n, d.sensible(s))
}

func (d mariaDice) sensible(s *Session) string {
	if s == nil || s.maria.branch == nil && !s.maria.begun {
		return d.first()
	}
	b := s.maria.branch
	if b == nil {
		if d.IntN(5) == 0 {
			return d.of("COMMIT", "ROLLBACK")
		}
		return d.work()
	}
	x := b.xid.String()
	switch b.state {
	case branchActive:
		if d.IntN(4) == 0 {
			return "XA END " + x
		}
		return d.work()
	case branchIdle:
		return d.of("XA PREPARE "+x, "XA PREPARE "+x, "XA COMMIT "+x+" ONE PHASE", "XA ROLLBACK "+x)
	case branchPrepared:
		return d.of("XA COMMIT "+x, "XA ROLLBACK "+x, "XA RECOVER", "SELECT 1")
	case branchRollbackOnly:
	}
	return d.of("XA COMMIT "+x, "XA ROLLBACK "+x, "XA END "+x, "SELECT * FROM t")
}

// first is a statement for a session without a transaction.
func (d mariaDice) first() string {
	switch d.IntN(10) {
	case 0, 1, 2, 3:
		return "XA START " + d.xid()
	case 4, 5:
		return "BEGIN"
	case 6:
		return "XA COMMIT " + d.xid()
	case 7:
		return "XA ROLLBACK " + d.xid()
	}
	return d.work()
}

// work is a statement on rows, or a savepoint.
func (d mariaDice) work() string {
	switch d.IntN(20) {
	case 0, 1, 2, 3:
		return "UPDATE t SET v = v + 1 WHERE id = " + d.there()
	case 4:
		return "UPDATE t SET v = v WHERE id = " + d.there()
	case 5, 6, 7:
		return "INSERT INTO t (id, v) VALUES (" + d.maybe() + ", 7)"
	case 8:
		return "INSERT INTO t (id, v) VALUES (" + d.maybe() + ", 7), (" + d.there() + ", 7)"
	case 9:
		return "SELECT v FROM t WHERE id = " + d.there() + " FOR UPDATE"
	case 10:
		return "SELECT v FROM t WHERE id = " + d.there() + " LOCK IN SHARE MODE"
	case 11:
		return "SELECT * FROM t"
	case 12:
		return "SELECT v FROM t WHERE id = " + d.there()
	case 13:
		return "UPDATE t SET v = v + 1 WHERE id = " + d.maybe()
	case 14:
		return "DELETE FROM t WHERE id = " + d.of(d.maybe(), d.maybe(), d.there())
	case 15, 16:
		return "SAVEPOINT " + d.of("x", "y")
	case 17:
		return "ROLLBACK TO SAVEPOINT " + d.of("x", "y")
	case 18:
		return "RELEASE SAVEPOINT " + d.of("x", "y")
	}
	return "INSERT INTO t (id, v) VALUES (" + d.there() + ", 1)"
}

// any is any statement, whatever the state.
func (d mariaDice) any() string {
	x := d.xid()
	return d.of(
		"XA START "+x, "XA END "+x, "XA PREPARE "+x, "XA COMMIT "+x, "XA COMMIT "+x+" ONE PHASE", "XA ROLLBACK "+x,
		"XA RECOVER", "BEGIN", "COMMIT", "ROLLBACK", "SELECT 1", "SELECT * FROM t", "SAVEPOINT x", "ROLLBACK TO SAVEPOINT x",
		"SET autocommit = 0", "SET autocommit = 1", "SET innodb_lock_wait_timeout = 0", "SET innodb_lock_wait_timeout = 1000",
		"SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
		"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "CREATE TABLE IF NOT EXISTS t (id INT)",
	)
}
