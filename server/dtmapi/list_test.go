package dtmapi_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// sparing fails the test if somebody lists many transactions at a time: each comes
// with its payloads.
type sparing struct {
	store.Store
	t *testing.T
}

func (s sparing) List(ctx context.Context, f store.Filter) ([]*store.Transaction, string, error) {
	if f.Limit < 1 || f.Limit > 50 {
		s.t.Errorf("%d transactions are listed at a time", f.Limit)
	}
	return s.Store.List(ctx, f)
}

func TestListsAreSparing(t *testing.T) {
	t.Parallel()
	w := newWorldOver(t, sparing{memory.New(), t}, later())
	const n = 41
	for i := range n {
		w.prepared("tcc", fmt.Sprint("t", i))
	}
	for limit, want := range map[string]int{"1000": n, fmt.Sprint(n - 1): n - 1, "10": 10, "3": 3} {
		p := parse[page](w, w.get("all", "limit", limit))
		if len(p.Transactions) != want || (p.Next == "") != (want == n) {
			t.Errorf("limit %s: %d, next %q, want %d", limit, len(p.Transactions), p.Next, want)
		}
		if p.Next != "" {
			rest := parse[page](w, w.get("all", "limit", "1000", "position", p.Next))
			if len(rest.Transactions) != n-want || rest.Next != "" {
				t.Errorf("after limit %s: %d, want %d", limit, len(rest.Transactions), n-want)
			}
		}
	}
	if a := w.get("resetCronTime", "timeout", "0", "limit", "1000"); a.body != fmt.Sprintf(`{"has_remaining":false,"succeed_count":%d}`, n) && a.body != fmt.Sprintf(`{"succeed_count":%d,"has_remaining":false}`, n) {
		t.Errorf("resetCronTime: %+v", a)
	}
}
