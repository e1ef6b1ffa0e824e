//go:build !dtmtest

package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// Branches that come one by one, or by a topic, make no transaction that nobody could
// have in memory: whoever opened the store again would die of it, again and again.
func TestBranchesAreBounded(t *testing.T) {
	t.Parallel()
	s := memory.New()
	e, err := Open(t.Context(), s, Config{Caller: &participants{}, Limits: Limits{StepsMax: 3, PayloadsMax: 100}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	for _, c := range []struct {
		gid         string
		size, takes int
	}{{"many", 1, 6}, {"large", 90, 2}} {
		if err := e.Prepare(t.Context(), Request{GID: c.gid, Pattern: store.TCC}); err != nil {
			t.Fatal(err)
		}
		for i := range c.takes + 1 {
			err := e.Register(t.Context(), c.gid, newBranch(fmt.Sprint(i), store.Confirm, "a", make([]byte, c.size)))
			if (err == nil) != (i < c.takes) || err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: branch %d: %v", c.gid, i, err)
			}
		}
		if got := requireState(t, e, c.gid, store.Prepared); len(got.Branches) != c.takes {
			t.Errorf("%s: %d branches, want %d", c.gid, len(got.Branches), c.takes)
		}
	}
	long := newBranch("1", store.Confirm, strings.Repeat("a", 200), nil)
	if err := e.Prepare(t.Context(), Request{GID: "long", Pattern: store.TCC}); err != nil {
		t.Fatal(err)
	}
	if err := e.Register(t.Context(), "long", long); !errors.Is(err, ErrInvalid) {
		t.Errorf("an address of 200 bytes: %v", err)
	}
	for i := range 4 {
		if err := s.Subscribe(t.Context(), "news", store.Subscriber{URL: fmt.Sprint("a", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		steps []Step
		fine  bool
	}{
		{[]Step{{Action: "topic://news"}}, true},
		{[]Step{{Action: "topic://news", Payload: make([]byte, 51)}}, false},
		{[]Step{{Action: "topic://news"}, {Action: "topic://news"}}, false},
	} {
		err := e.Submit(t.Context(), Request{GID: "fan", Pattern: store.Message, Steps: c.steps})
		if (err == nil) != c.fine || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%d steps: %v", len(c.steps), err)
		}
	}
}

// Large transactions that wait for somebody are not kept in memory.
func TestLargeOnesAreNotKept(t *testing.T) {
	t.Parallel()
	e := open(t, memory.New(), &participants{})
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	for gid, size := range map[string]int{"large": keptMax + 1, "small": 1} {
		r := Request{GID: gid, Pattern: store.Message, QueryPrepared: "q", Steps: []Step{{Action: "a", Payload: make([]byte, size)}}}
		if err := e.Prepare(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	e.mu.Lock()
	large, small := e.drivers["large"], e.drivers["small"]
	e.mu.Unlock()
	if large != nil || small == nil {
		t.Errorf("large is kept: %v, small: %v", large != nil, small != nil)
	}
	if err := e.Submit(t.Context(), Request{GID: "large", Pattern: store.Message, Options: store.Options{Wait: true}}); err != nil {
		t.Fatal(err)
	}
	requireState(t, e, "large", store.Succeeded)
}
