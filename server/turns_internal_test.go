package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A principal with many requests is worked on a few at a time, in order; others do not wait
// for it.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(2, time.Hour)
		var order []int
		var ends []func()
		for i := range 5 {
			go func() {
				if end, ok := turns.take(t.Context(), "alice"); ok {
					order, ends = append(order, i), append(ends, end)
				}
			}()
			synctest.Wait()
		}
		require := func(n int) {
			t.Helper()
			synctest.Wait()
			if len(order) != n {
				t.Fatalf("turns of %v, want %d", order, n)
			}
			for i, got := range order {
				if got != i {
					t.Errorf("turns of %v: out of order", order)
				}
			}
		}
		require(2)
		endOfBob, ok := turns.take(t.Context(), "bob")
		if !ok {
			t.Error("another waits")
		}
		ends[0]()
		require(3)
		ends[1]()
		require(4)
		ends[2]()
		require(5)
		ends[3]()
		ends[4]()
		endOfBob()
		if len(turns.byName) != 0 {
			t.Errorf("it remembers %d who are gone", len(turns.byName))
		}
	})
}

// A turn that takes long ends by itself: who waits for a result keeps nobody waiting.
func TestTurnsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1, time.Second)
		begin := time.Now()
		first, _ := turns.take(t.Context(), "alice")
		second, ok := turns.take(t.Context(), "alice")
		if took := time.Since(begin); !ok || took != time.Second {
			t.Errorf("the second turn came after %v", took)
		}
		first() // it has ended
		third, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, ok := turns.take(third, "alice"); ok {
			t.Error("two at a time")
		}
		second()
		fourth, ok := turns.take(t.Context(), "alice")
		if !ok {
			t.Error("one who gave up keeps the turn")
		}
		fourth()
		synctest.Wait()
		if len(turns.byName) != 0 {
			t.Errorf("it remembers %d who are gone", len(turns.byName))
		}
	})
}
