package barrier_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/troth-tx/troth/barrier"
)

// I6: a step and its undoing at the same instant. Either the step came first and is
// undone, or it never happens: the net effect is none.
func TestStepRacesItsUndoing(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		rounds := 150
		if w.Dialect() == barrier.SQLite {
			rounds = 60 // one writer at a time, which sleeps while it waits
		}
		pairs := [][2]barrier.Op{{barrier.Try, barrier.Cancel}, {barrier.Action, barrier.Compensate}, {barrier.Action, barrier.Rollback}}
		var undone, never int
		for round := 0; round < rounds || (undone == 0 || never == 0) && round < 20*rounds; round++ {
			gid := newGID()
			do, undo := step(t, gid, pairs[round%3][0]), step(t, gid, pairs[round%3][1])
			start := make(chan struct{})
			var wg sync.WaitGroup
			for i := range 4 { // each comes twice
				s := do
				if (i+round)%2 == 0 {
					s = undo
				}
				wg.Go(func() {
					<-start
					if err := w.run(t, s); err != nil {
						t.Errorf("round %d: %v: %v", round, s, err)
					}
				})
			}
			close(start)
			wg.Wait()
			got := w.counts(t, gid)
			switch {
			case got[do.Op] == 1 && got[undo.Op] == 1:
				undone++
			case len(got) == 0:
				never++
			default:
				t.Fatalf("round %d: effects %v of %v and its undoing", round, got, do)
			}
		}
		t.Logf("the step was undone %d times, and never happened %d times", undone, never)
		if undone == 0 || never == 0 {
			t.Errorf("no race: undone %d times, never happened %d times", undone, never)
		}
	})
}

// Many repetitions at once, of which some fail in their business: exactly one effect.
func TestRepetitionsAtOnce(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		for range 5 {
			s := step(t, newGID(), barrier.Action)
			var wg sync.WaitGroup
			var failed atomic.Int32
			for i := range 12 {
				wg.Go(func() {
					err := w.Run(t.Context(), w.db, s, w.failing(s, i%3 == 0))
					switch {
					case err == nil:
					case errors.Is(err, errBusiness):
						failed.Add(1)
					default:
						t.Errorf("call %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			must(t, w.run(t, s)) // the server repeats until it is answered
			if got := w.counts(t, s.GID); got[barrier.Action] != 1 {
				t.Fatalf("%d effects after %d failures", got[barrier.Action], failed.Load())
			}
		}
	})
}

// Who gives up waiting has done nothing, and knows nothing: not even if he commits.
func TestEnterGivesUpWaiting(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		if w.Dialect() == barrier.SQLite {
			return // one who waits there waits for the file: he has not begun
		}
		for _, op := range []barrier.Op{barrier.Action, barrier.Compensate} {
			gid := newGID()
			holder, err := w.db.BeginTx(t.Context(), nil)
			must(t, err)
			_, err = w.Enter(t.Context(), holder, step(t, gid, barrier.Action))
			must(t, err)
			conn, err := w.db.Conn(t.Context())
			must(t, err)
			_, err = conn.ExecContext(t.Context(), map[barrier.Dialect]string{
				barrier.PostgreSQL: "SET lock_timeout = 200", // milliseconds
				barrier.MySQL:      "SET innodb_lock_wait_timeout = 1",
			}[w.Dialect()])
			must(t, err)
			tx, err := conn.BeginTx(t.Context(), nil)
			must(t, err)
			if v, err := w.Enter(t.Context(), tx, step(t, gid, op)); err == nil {
				t.Errorf("%v: got %v while the action is under way", op, v)
			}
			_ = tx.Commit() // he should not; PostgreSQL refuses
			must(t, holder.Rollback())
			must(t, w.run(t, step(t, gid, op)))
			want := map[barrier.Op]int{barrier.Action: 1}
			if op == barrier.Compensate { // of nothing
				want = map[barrier.Op]int{}
				must(t, w.run(t, step(t, gid, barrier.Action)))
			}
			if got := w.counts(t, gid); len(got) != len(want) || got[barrier.Action] != want[barrier.Action] {
				t.Errorf("%v: effects %v, want %v", op, got, want)
			}
			must(t, conn.Close())
		}
	})
}
