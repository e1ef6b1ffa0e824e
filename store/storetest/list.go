package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

func testList(t *testing.T, s store.Store) {
	var all []*store.Transaction
	owners := []string{"", "shop", "shop2", "SHOP"}
	for i := range 120 {
		x := transaction(fmt.Sprintf("list_%d%%", i))
		x.Owner, x.Pattern = owners[i%4], store.Pattern(1+i%5)
		x.Created = epoch.Add(time.Duration(i*7%120) * time.Second)
		x.Attempts = i % 2
		mustCreate(t, s, x)
		if state := store.State(1 + i%3%5 + i%2); state.Over() {
			finish(x, state, x.Created)
		} else {
			x.State = state
		}
		if i%10 == 0 {
			finish(x, store.Failed, x.Created)
		}
		mustSave(t, s, x, 2)
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b *store.Transaction) int { return b.Created.Compare(a.Created) })
	at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }
	for name, f := range map[string]store.Filter{
		"everything":      {},
		"a state":         {States: []store.State{store.Submitted}},
		"succeeded":       {States: []store.State{store.Succeeded}},
		"states":          {States: []store.State{store.Prepared, store.Failed, store.Succeeded}},
		"a pattern":       {Pattern: store.TCC},
		"an owner":        {Owner: "shop"},
		"no such owner":   {Owner: "sho"},
		"stuck":           {Stuck: true},
		"stuck in states": {Stuck: true, States: []store.State{store.Submitted, store.Failed}},
		"stuck and over":  {Stuck: true, States: []store.State{store.Failed}},
		"a prefix":        {GIDPrefix: "list_1"},
		"a wildcard":      {GIDPrefix: "list%"},
		"another":         {GIDPrefix: "list__"},
		"from":            {CreatedFrom: at(100)},
		"until":           {CreatedUntil: at(20)},
		"between":         {CreatedFrom: at(30).Add(1), CreatedUntil: at(60).Add(1)},
		"all together": {
			States: []store.State{store.Submitted, store.Aborting}, Pattern: store.Saga, Owner: "shop2",
			GIDPrefix: "list_", CreatedFrom: at(10), CreatedUntil: at(110), Stuck: false,
		},
	} {
		var want []string
		for _, x := range all {
			if matches(f, x) {
				want = append(want, x.GID)
			}
		}
		for _, limit := range []int{0, 1, 7, len(want), store.ListLimitMax} {
			f.Limit = limit
			if limit == 0 && len(want) == 0 || limit > 0 {
				requireList(t, s, name, f, want)
			}
		}
	}
	if _, _, err := s.List(t.Context(), store.Filter{Cursor: "no cursor"}); !errors.Is(err, store.ErrCursor) {
		t.Errorf("List with a cursor that is none: %v, want ErrCursor", err)
	}
	if _, _, err := s.List(t.Context(), store.Filter{Limit: store.ListLimitMax + 1}); err == nil {
		t.Error("List accepts a limit that is too high")
	}
	if page, next, err := s.List(t.Context(), store.Filter{}); err != nil || len(page) != store.ListLimitDefault || next == "" {
		t.Errorf("List without a limit = %d, %q, %v, want %d and a cursor", len(page), next, err, store.ListLimitDefault)
	}
}

// matches says what a filter means, once more.
func matches(f store.Filter, x *store.Transaction) bool {
	switch {
	case len(f.States) > 0 && !slices.Contains(f.States, x.State):
	case f.Pattern != 0 && x.Pattern != f.Pattern:
	case f.Owner != "" && x.Owner != f.Owner:
	case len(x.GID) < len(f.GIDPrefix) || x.GID[:len(f.GIDPrefix)] != f.GIDPrefix:
	case !f.CreatedFrom.IsZero() && x.Created.Before(f.CreatedFrom):
	case !f.CreatedUntil.IsZero() && !x.Created.Before(f.CreatedUntil):
	case f.Stuck && (x.State.Over() || x.Attempts == 0):
	default:
		return true
	}
	return false
}

func requireList(t *testing.T, s store.Store, name string, f store.Filter, want []string) {
	t.Helper()
	var got []string
	for range len(want) + 2 {
		page, next, err := s.List(t.Context(), f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if limit := max(f.Limit, 1); f.Limit > 0 && len(page) > limit {
			t.Fatalf("%s: a page of %d, want at most %d", name, len(page), limit)
		}
		for _, x := range page {
			got = append(got, x.GID)
		}
		if f.Cursor = next; next == "" {
			break
		}
	}
	if f.Cursor != "" || !slices.Equal(got, want) {
		t.Errorf("%s, in pages of %d: %q, want %q", name, f.Limit, got, want)
	}
}

// Who pages through the list sees each transaction that was there exactly once,
// whatever comes and goes meanwhile; equal times included.
func testPages(t *testing.T, s store.Store) {
	const n = 200
	want := make(map[string]bool)
	for i := range n {
		x := transaction(fmt.Sprintf("old-%d", i))
		x.Created = epoch.Add(time.Duration(i/50) * time.Second)
		mustCreate(t, s, x)
		want[x.GID] = true
	}
	gone := transaction("gone") // a page may end with it
	gone.Created = epoch.Add(time.Minute)
	mustCreate(t, s, gone)
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			x := transaction(fmt.Sprintf("new-%d", i))
			x.Created = epoch.Add(time.Hour)
			if err := s.Create(t.Context(), x); err != nil {
				t.Errorf("Create: %v", err)
			}
		}
	})
	defer others.Wait()
	defer close(stop)
	f := store.Filter{Limit: 7, CreatedUntil: epoch.Add(2 * time.Minute)}
	page, next, err := s.List(t.Context(), store.Filter{Limit: 1, CreatedUntil: f.CreatedUntil})
	if err != nil || len(page) != 1 || page[0].GID != "gone" {
		t.Fatalf("List = %v, %v, want the newest", page, err)
	}
	finish(gone, store.Succeeded, epoch)
	mustSave(t, s, gone, 2)
	if n, err := s.Purge(t.Context(), epoch.Add(time.Second), 1); err != nil || n != 1 {
		t.Fatalf("Purge = %d, %v, want 1", n, err)
	}
	for f.Cursor = next; f.Cursor != ""; f.Cursor = next {
		if page, next, err = s.List(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		for _, x := range page {
			if !want[x.GID] {
				t.Fatalf("%q came twice, or should not have come", x.GID)
			}
			delete(want, x.GID)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d of %d did not come", len(want), n)
	}
}
