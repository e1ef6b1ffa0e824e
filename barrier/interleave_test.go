package barrier_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/internal/dbtest"
)

// TestAllInterleavings runs {action, compensate, action again, compensate again}, each as
// a transaction that enters at one moment and commits or rolls back at another, in every
// order in which the eight moments can come, on a real PostgreSQL, and holds what comes
// out against a model: a set of rows and a rule.
//
// Where a transaction waits for another, its end is put off until it has entered; which
// one of several that wait comes next is the database's choice, and the model follows.
func TestAllInterleavings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, barrier.PostgreSQL, "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t), "")
	control := w.db
	var conns []*sql.Conn
	var pids []string
	for range 4 {
		conn, err := control.Conn(t.Context())
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = conn.ExecContext(t.Context(), "SET synchronous_commit = off") // nothing crashes here
		must(t, err)
		var pid int
		must(t, conn.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
		conns, pids = append(conns, conn), append(pids, strconv.Itoa(pid))
	}
	blocked := "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid IN (" + strings.Join(pids, ", ") + ")"
	seen := map[string]int{}
	schedules := schedules()
	for i, order := range schedules {
		r := rand.New(rand.NewPCG(uint64(i), 0))
		for _, rollbacks := range []int{0, 1 + r.IntN(15)} { // none, and a mask of some
			s := &schedule{w: w, conns: conns, blocked: blocked, gid: newGID(), rollbacks: rollbacks}
			s.run(t, order)
			if t.Failed() {
				t.Fatalf("order %v, rolled back: %04b", order, rollbacks)
			}
			seen[s.outcome()]++
		}
	}
	t.Logf("%d schedules, of which each ran twice; outcomes: %v", len(schedules), seen)
	for _, want := range []string{"done, undone", "never"} {
		if seen[want] == 0 {
			t.Errorf("no schedule ended with %q", want)
		}
	}
}

// schedules returns the orders of the moments: each of 0 to 3 twice, first to enter and
// then to end. Of orders that differ only in which of two equal calls is called the
// first there is one.
func schedules() (all [][]int) {
	var extend func(prefix []int, count [4]int)
	extend = func(prefix []int, count [4]int) {
		if len(prefix) == 8 {
			all = append(all, append([]int(nil), prefix...))
			return
		}
		for i := range 4 {
			if count[i] == 2 || i >= 2 && count[i] == 0 && count[i-2] == 0 {
				continue
			}
			next := count
			next[i]++
			extend(append(prefix, i), next)
		}
	}
	extend(nil, [4]int{})
	return all
}

var calls = [4]barrier.Op{barrier.Action, barrier.Compensate, barrier.Action, barrier.Compensate}

type schedule struct {
	w         *world
	conns     []*sql.Conn
	blocked   string // how many of conns wait for a lock
	gid       string
	rollbacks int // a bit for each call that is rolled back

	// The model: what is committed.
	rows    map[barrier.Op]barrier.Op // row and who wrote it
	effects map[barrier.Op]int

	entering [4]chan entered // nil if it is not under way
	verdicts [4]barrier.Verdict
	due      [4]bool // its end came while it waited
}

type entered struct {
	verdict barrier.Verdict
	err     error
}

func (s *schedule) run(t *testing.T, order []int) {
	s.rows, s.effects = map[barrier.Op]barrier.Op{}, map[barrier.Op]int{}
	var begun [4]bool
	for _, i := range order {
		if !begun[i] {
			begun[i] = true
			s.enter(t, i)
			s.settle(t)
			continue
		}
		s.due[i] = true
		s.endDue(t)
	}
	s.endDue(t)
	got := s.w.counts(t, s.gid)
	for _, op := range calls {
		if got[op] != s.effects[op] {
			t.Errorf("%v took effect %d times, in the model %d times", op, got[op], s.effects[op])
		}
	}
	switch done, undone := got[barrier.Action], got[barrier.Compensate]; {
	case done > 1 || undone > done:
		t.Errorf("effects %v", got)
	case s.rows[barrier.Compensate] != "" && done != undone:
		t.Errorf("a compensation was committed, and a net effect is left: %v", got)
	}
}

// enter begins call i and lets it enter, which may have to wait.
func (s *schedule) enter(t *testing.T, i int) {
	conn, done := s.conns[i], make(chan entered, 1)
	_, err := conn.ExecContext(t.Context(), "BEGIN")
	must(t, err)
	s.entering[i] = done
	call := step(t, s.gid, calls[i])
	go func() {
		var e entered
		e.verdict, e.err = s.w.Enter(t.Context(), conn, call)
		if e.err == nil && e.verdict == barrier.Proceed {
			e.err = s.w.insert(t.Context(), conn, call, i)
		}
		done <- e
	}()
}

// settle returns when each call that is entering has entered or waits for a lock.
func (s *schedule) settle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		waiting := 0
		for i, done := range s.entering {
			if done == nil {
				continue
			}
			select {
			case e := <-done:
				must(t, e.err)
				s.entering[i], s.verdicts[i] = nil, e.verdict
			default:
				waiting++
			}
		}
		if waiting == 0 {
			return
		}
		var blocked int
		must(t, s.w.db.QueryRowContext(ctx, s.blocked).Scan(&blocked))
		if blocked == waiting && s.allBusy() {
			return
		}
	}
}

// allBusy reports whether none has entered since it was looked at.
func (s *schedule) allBusy() bool {
	for _, done := range s.entering {
		if len(done) > 0 {
			return false
		}
	}
	return true
}

// endDue ends the calls whose end has come and that have entered, until there is none.
func (s *schedule) endDue(t *testing.T) {
	t.Helper()
	for again := true; again; {
		again = false
		for i := range s.due {
			if s.due[i] && s.entering[i] == nil {
				s.due[i] = false
				s.end(t, i)
				s.settle(t)
				again = true
			}
		}
	}
}

// end commits or rolls back call i, in the database and in the model.
func (s *schedule) end(t *testing.T, i int) {
	t.Helper()
	if s.rollbacks&(1<<i) != 0 {
		_, err := s.conns[i].ExecContext(t.Context(), "ROLLBACK")
		must(t, err)
		return
	}
	_, err := s.conns[i].ExecContext(t.Context(), "COMMIT")
	must(t, err)
	op := calls[i]
	want := barrier.Proceed
	switch by := s.rows[op]; {
	case by == op:
		want = barrier.Repeat
	case by != "":
		want = barrier.Late
	case op == barrier.Compensate && s.rows[barrier.Action] == "":
		want = barrier.Empty
	}
	if s.verdicts[i] != want {
		t.Errorf("call %d (%v) was told %v, in the model %v", i, op, s.verdicts[i], want)
	}
	switch want {
	case barrier.Proceed:
		s.rows[op] = op
		s.effects[op]++
	case barrier.Empty:
		s.rows[op], s.rows[barrier.Action] = op, op
	case barrier.Repeat, barrier.Late:
	}
}

func (s *schedule) outcome() string {
	switch {
	case s.effects[barrier.Action] == 1 && s.effects[barrier.Compensate] == 1:
		return "done, undone"
	case s.effects[barrier.Action] == 1:
		return "done"
	case len(s.effects) == 0:
		return "never"
	}
	return fmt.Sprint(s.effects)
}
