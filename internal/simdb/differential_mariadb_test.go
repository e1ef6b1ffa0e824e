package simdb

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/troth-tx/troth/internal/dbtest"
)

// TestDifferentialMariaDB gives random steps to the simulation and to a real server
// and demands the same answers, the same waits and the same end. rapid prints the
// command that repeats a failure; -rapid.checks says how many runs there are.
func TestDifferentialMariaDB(t *testing.T) {
	t.Parallel()
	real := newMariaReal(t, dbtest.SharedMariaDB(t, mariaRandomServer))
	seen := map[string]int{} // answers
	rapid.Check(t, func(rt *rapid.T) {
		p := newMariaPair(rt, real)
		n := rapid.IntRange(5, 40).Draw(rt, "steps")
		for range n {
			if line := p.draw(rt); line != "" {
				p.step(line)
			}
		}
		p.compareState()
		p.count(seen)
	})
	real.t = t
	t.Logf("answers: %v", seen)
}

var mariaXIDs = []string{"'a'", "'b','1'", "'c','2',7"}

// draw chooses the next step: mostly one that makes sense in the state that a
// session is in.
func (p *mariaPair) draw(rt *rapid.T) string {
	n := rapid.IntRange(1, 4).Draw(rt, "session")
	s := p.sim.sessions[n]
	switch rapid.IntRange(0, 99).Draw(rt, "kind") {
	case 0:
		return "crash"
	case 1, 2:
		return fmt.Sprintf("kill %d", n)
	case 3, 4:
		return fmt.Sprintf("close %d", n)
	case 5, 6, 7, 8, 9, 10, 11, 12:
		return p.statement(s, n, mariaAny(rt))
	}
	if s == nil {
		return p.statement(s, n, mariaFirst(rt))
	}
	b := s.maria.branch
	switch {
	case b == nil && !s.maria.begun:
		return p.statement(s, n, mariaFirst(rt))
	case b == nil:
		return p.statement(s, n, rapid.OneOf(rapid.Custom(mariaWork), rapid.Custom(mariaWork), rapid.SampledFrom([]string{"COMMIT", "ROLLBACK"})).Draw(rt, "text"))
	case b.state == branchActive:
		return p.statement(s, n, rapid.OneOf(rapid.Custom(mariaWork), rapid.Custom(mariaWork), rapid.Just("XA END "+b.xid.String())).Draw(rt, "text"))
	case b.state == branchIdle:
		return p.statement(s, n, rapid.SampledFrom([]string{"XA PREPARE %s", "XA PREPARE %s", "XA COMMIT %s ONE PHASE", "XA ROLLBACK %s"}).Draw(rt, "text"), b.xid)
	case b.state == branchPrepared:
		return p.statement(s, n, rapid.SampledFrom([]string{"XA COMMIT %s", "XA ROLLBACK %s", "XA RECOVER"}).Draw(rt, "text"), b.xid)
	}
	return p.statement(s, n, rapid.SampledFrom([]string{"XA COMMIT %s", "XA ROLLBACK %s", "XA END %s"}).Draw(rt, "text"), b.xid)
}

// statement makes a step of a text; none if the session waits.
func (p *mariaPair) statement(s *Session, n int, text string, xids ...xid) string {
	if s != nil && s.Waits() {
		return ""
	}
	if len(xids) > 0 && strings.Contains(text, "%s") {
		text = fmt.Sprintf(text, xids[0])
	}
	return fmt.Sprintf("%d %s", n, text)
}

// mariaFirst is a statement for a session without a transaction.
func mariaFirst(rt *rapid.T) string {
	x := rapid.SampledFrom(mariaXIDs).Draw(rt, "xid")
	switch rapid.IntRange(0, 9).Draw(rt, "first") {
	case 0, 1, 2, 3:
		return "XA START " + x
	case 4, 5:
		return "BEGIN"
	case 6:
		return "XA COMMIT " + x
	case 7:
		return "XA ROLLBACK " + x
	}
	return mariaWork(rt)
}

// mariaWork is a statement on rows, or a savepoint.
func mariaWork(rt *rapid.T) string {
	there := rapid.SampledFrom([]int{1, 2, 3, 5}).Draw(rt, "id")
	maybe := rapid.SampledFrom([]int{11, 12, 13}).Draw(rt, "id")
	switch rapid.IntRange(0, 19).Draw(rt, "work") {
	case 0, 1, 2, 3:
		return fmt.Sprintf("UPDATE t SET v = v + 1 WHERE id = %d", there)
	case 4:
		return fmt.Sprintf("UPDATE t SET v = v WHERE id = %d", there)
	case 5, 6, 7:
		return fmt.Sprintf("INSERT INTO t (id, v) VALUES (%d, 7)", maybe)
	case 8:
		return fmt.Sprintf("INSERT INTO t (id, v) VALUES (%d, 7), (%d, 7)", maybe, there)
	case 9:
		return fmt.Sprintf("SELECT v FROM t WHERE id = %d FOR UPDATE", there)
	case 10:
		return fmt.Sprintf("SELECT v FROM t WHERE id = %d LOCK IN SHARE MODE", there)
	case 11, 12:
		return "SELECT * FROM t"
	case 13:
		return fmt.Sprintf("SELECT v FROM t WHERE id = %d", there)
	case 14:
		return fmt.Sprintf("UPDATE t SET v = v + 1 WHERE id = %d", maybe)
	case 15:
		return fmt.Sprintf("DELETE FROM t WHERE id = %d", maybe)
	case 16:
		return "SAVEPOINT " + rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "savepoint")
	case 17:
		return "ROLLBACK TO SAVEPOINT " + rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "savepoint")
	case 18:
		return "RELEASE SAVEPOINT " + rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "savepoint")
	}
	return "INSERT INTO t (id, v) VALUES (1, 1)"
}

// mariaAny is any statement, whatever the state.
func mariaAny(rt *rapid.T) string {
	x := rapid.SampledFrom(mariaXIDs).Draw(rt, "xid")
	return rapid.SampledFrom([]string{
		"XA START " + x, "XA END " + x, "XA PREPARE " + x, "XA COMMIT " + x, "XA COMMIT " + x + " ONE PHASE", "XA ROLLBACK " + x,
		"XA RECOVER", "BEGIN", "COMMIT", "ROLLBACK", "SELECT 1", "SELECT * FROM t", "SAVEPOINT x", "ROLLBACK TO SAVEPOINT x",
		"SET autocommit = 0", "SET autocommit = 1", "SET innodb_lock_wait_timeout = 0", "SET innodb_lock_wait_timeout = 50",
		"SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
		"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "CREATE TABLE IF NOT EXISTS t (id INT)",
	}).Draw(rt, "any")
}
