package barrier_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/barrier"
)

func message(t *testing.T, gid string) barrier.Step {
	t.Helper()
	s, err := barrier.ForMessage(gid)
	must(t, err)
	return s
}

func TestQueryAfterTheLocalTransaction(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		s := message(t, newGID())
		must(t, w.run(t, s))
		for range 3 {
			committed, err := w.QueryPrepared(t.Context(), w.db, s)
			must(t, err)
			if !committed {
				t.Fatal("the local transaction is denied")
			}
		}
		err := w.run(t, s)
		requireIs(t, err, barrier.ErrDuplicated)
		if errors.Is(err, barrier.ErrRuledOut) {
			t.Errorf("%v: it ran", err)
		}
		if got := w.counts(t, s.GID); got[barrier.Message] != 1 {
			t.Errorf("effects %v", got)
		}
	})
}

func TestQueryBeforeTheLocalTransaction(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		s := message(t, newGID())
		for range 3 {
			committed, err := w.QueryPrepared(t.Context(), w.db, s)
			must(t, err)
			if committed {
				t.Fatal("there is no local transaction")
			}
		}
		err := w.run(t, s)
		requireIs(t, err, barrier.ErrRuledOut)
		requireIs(t, err, barrier.ErrDuplicated)
		if got := w.counts(t, s.GID); len(got) != 0 {
			t.Errorf("effects %v after the query said no", got)
		}
		if got := w.reasons(t, s.GID); got != "00/msg/01=rollback" {
			t.Errorf("rows %q", got)
		}
	})
}

// A query that comes while the local transaction is under way waits for how it ends.
func TestQueryWaitsForTheLocalTransaction(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		failed := errors.New("business")
		for _, outcome := range []error{nil, failed} {
			s := message(t, newGID())
			entered := make(chan struct{})
			answer := make(chan bool)
			go func() {
				<-entered
				committed, err := w.QueryPrepared(t.Context(), w.db, s)
				if err != nil {
					t.Error(err)
				}
				answer <- committed
			}()
			err := w.Run(t.Context(), w.db, s, func(ctx context.Context, tx *sql.Tx) error {
				close(entered)
				select {
				case <-answer:
					t.Error("the query was answered while nothing was known")
				case <-time.After(50 * time.Millisecond): // gives a wrong answer the time to come
				}
				return errors.Join(w.insert(ctx, tx, s, 1), outcome)
			})
			if !errors.Is(err, outcome) {
				t.Errorf("got %v, want %v", err, outcome)
			}
			if committed := <-answer; committed != (outcome == nil) {
				t.Errorf("local transaction ended with %v, the query says committed %v", outcome, committed)
			}
		}
	})
}

// I15: local transaction and queries at the same instant. Never both a no and a commit,
// never a yes without one, and all answers are the same.
func TestLocalTransactionRacesQueries(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		rounds := 150
		if w.Dialect() == barrier.SQLite {
			rounds = 60 // one writer at a time, which sleeps while it waits
		}
		var first, ruledOut int
		for round := 0; round < rounds || (first == 0 || ruledOut == 0) && round < 20*rounds; round++ {
			s := message(t, newGID())
			start := make(chan struct{})
			var wg sync.WaitGroup
			var yes, no atomic.Int32
			var local error
			wg.Go(func() {
				<-start
				local = w.run(t, s)
			})
			for range 2 {
				wg.Go(func() {
					<-start
					time.Sleep(time.Duration(round%4) * 300 * time.Microsecond) // either is to be first often
					committed, err := w.QueryPrepared(t.Context(), w.db, s)
					switch {
					case err != nil:
						t.Errorf("query: %v", err)
					case committed:
						yes.Add(1)
					default:
						no.Add(1)
					}
				})
			}
			close(start)
			wg.Wait()
			effects := w.counts(t, s.GID)[barrier.Message]
			switch {
			case local == nil && effects == 1 && no.Load() == 0:
				first++
			case errors.Is(local, barrier.ErrRuledOut) && effects == 0 && yes.Load() == 0:
				ruledOut++
			default:
				t.Fatalf("round %d: local transaction %v, %d effects, %d times yes, %d times no", round, local, effects, yes.Load(), no.Load())
			}
		}
		t.Logf("the local transaction was first %d times, a query %d times", first, ruledOut)
		if first == 0 || ruledOut == 0 {
			t.Errorf("no race: the local transaction was first %d times, a query %d times", first, ruledOut)
		}
	})
}
