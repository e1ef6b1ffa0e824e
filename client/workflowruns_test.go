package client

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"
)

// Errors that nobody asks for do not pile up.
func TestUnheardErrorsAreBounded(t *testing.T) {
	t.Parallel()
	rs := newRuns(time.Minute, 8)
	for i := range unheardMax + 100 {
		r, err := rs.resume(t.Context(), strconv.Itoa(i), func(context.Context) error { return errors.New("broken") })
		if err != nil {
			t.Fatal(err)
		}
		<-r.done
	}
	if len(rs.byGID) != unheardMax || rs.unheard != unheardMax || rs.going != 0 {
		t.Errorf("%d runs are kept, %d counted, %d under way; want %d, %[4]d and none", len(rs.byGID), rs.unheard, rs.going, unheardMax)
	}
	last := strconv.Itoa(unheardMax + 99)
	leave, err := rs.enter(t.Context(), last) // a caller's run begins afresh
	if err != nil {
		t.Fatal(err)
	}
	leave(nil)
	if rs.byGID[last] != nil || rs.unheard != unheardMax-1 {
		t.Errorf("%d runs are counted, want %d", rs.unheard, unheardMax-1)
	}
}
