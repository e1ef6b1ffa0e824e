//go:build !dtmtest

package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troth-tx/troth/store"
)

// A sender is being asked while its submission arrives, late. That was confirmed, and
// so no answer to the question, which was put before, may take it back.
func TestSubmitBeatsTheQuestionUnderWay(t *testing.T) {
	t.Parallel()
	for _, says := range []Answer{Success, Failure, Ongoing, Unknown} {
		p := &participants{answer: func(c Call, _ int) (Answer, time.Duration) {
			if c.Op == store.Query {
				return says, 2 * time.Second
			}
			return Success, 0
		}}
		bubble(t, p, func(t *testing.T, e *Engine) {
			r := Request{GID: "m", Pattern: store.Message, QueryPrepared: "query", Steps: steps("a")}
			if err := e.Prepare(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(36 * time.Second) // it is being asked
			if p.count("query") != 1 {
				t.Fatalf("calls: %v", p.seen())
			}
			if err := e.Submit(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			requireState(t, e, "m", store.Succeeded)
			if p.count("a") != 1 || p.count("query") != 1 {
				t.Errorf("calls after the answer %v: %v", says, p.seen())
			}
		})
	}
}

// A TCC or XA that nobody prepared here has no branches to confirm: whoever submits it
// asks the wrong server, or too late, and must not be told that it succeeded.
func TestSubmitWithoutPrepare(t *testing.T) {
	t.Parallel()
	for _, pattern := range []store.Pattern{store.TCC, store.XA} {
		bubble(t, &participants{}, func(t *testing.T, e *Engine) {
			if err := e.Submit(t.Context(), Request{GID: "t", Pattern: pattern}); !errors.Is(err, ErrNotFound) {
				t.Errorf("submit %v: %v", pattern, err)
			}
			if got, err := e.Get(t.Context(), "t"); !errors.Is(err, ErrNotFound) {
				t.Errorf("it left %v (%v)", got, err)
			}
		})
	}
}
