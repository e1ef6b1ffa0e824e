package barrier_test

import (
	"database/sql"
	"fmt"
	"sync"
	"testing"

	"github.com/troth-tx/troth/barrier"
)

// At every isolation level that a database has, an action and its undoing that come at
// once, twice each, are both done once or both not at all; and a message's local
// transaction is what two queries say of it.
func TestEveryIsolationLevel(t *testing.T) {
	levels := map[string][]sql.IsolationLevel{
		"postgres": {sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable},
		"mariadb":  {sql.LevelReadUncommitted, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable},
	}
	t.Parallel()
	for _, e := range engines {
		for _, level := range levels[e.name] {
			t.Run(e.name+"/"+level.String(), func(t *testing.T) {
				t.Parallel()
				w := e.open(t)
				table, err := barrier.NewTable(w.Dialect(), &barrier.Config{TxOptions: &sql.TxOptions{Isolation: level}})
				must(t, err)
				w.Table = table
				for range 15 {
					w.raceUndoing(t, newGID())
					w.raceQueries(t, newGID())
				}
			})
		}
	}
}

func (w *world) raceUndoing(t *testing.T, gid string) {
	t.Helper()
	var all sync.WaitGroup
	for _, op := range []barrier.Op{barrier.Action, barrier.Compensate, barrier.Action, barrier.Compensate} {
		s, err := barrier.NewStep("saga", gid, "01", op)
		must(t, err)
		all.Go(func() {
			for range 20 { // as a server does
				if err = w.Run(t.Context(), w.db, s, w.effect(s, 1)); err == nil {
					return
				}
			}
			t.Error(err)
		})
	}
	all.Wait()
	done, undone := w.effects(t, gid, barrier.Action), w.effects(t, gid, barrier.Compensate)
	if done != undone || done > 1 {
		t.Errorf("%s: done %d times, undone %d times", gid, done, undone)
	}
}

func (w *world) raceQueries(t *testing.T, gid string) {
	t.Helper()
	s, err := barrier.ForMessage(gid)
	must(t, err)
	var all sync.WaitGroup
	all.Go(func() { _ = w.Run(t.Context(), w.db, s, w.effect(s, 1)) }) // the queries tell
	answers := make([]bool, 2)
	for i := range answers {
		all.Go(func() {
			var err error
			for range 20 {
				if answers[i], err = w.QueryPrepared(t.Context(), w.db, s); err == nil {
					return
				}
			}
			t.Error(err)
		})
	}
	all.Wait()
	if n := w.effects(t, gid, barrier.Message); answers[0] != answers[1] || answers[0] != (n == 1) || n > 1 {
		t.Errorf("%s: done %d times, the queries say %v", gid, n, answers)
	}
}

// effects is how often an operation was done.
func (w *world) effects(t *testing.T, gid string, op barrier.Op) (n int) {
	t.Helper()
	must(t, w.db.QueryRowContext(t.Context(), fmt.Sprintf("SELECT count(*) FROM effect WHERE gid = '%s' AND op = '%s'", gid, op)).Scan(&n))
	return n
}
