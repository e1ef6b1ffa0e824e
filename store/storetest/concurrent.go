package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

const crowd = 64

// together runs f in as many goroutines at once.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	wg.Wait()
}

func testOneWinner(t *testing.T, s store.Store) {
	x := transaction("contended")
	mustCreate(t, s, x)
	const rounds = 20
	var wins [crowd]int64
	var last atomic.Int64
	together(crowd, func(i int) {
		for {
			y, err := s.Get(t.Context(), x.GID)
			if err != nil {
				t.Errorf("Get: %v", err)
				return
			}
			if y.Version > rounds {
				return
			}
			y.Attempts, y.Reason = int(y.Version), fmt.Sprint(i)
			added := len(y.Branches)
			y.Branches = append(y.Branches, store.Branch{ID: fmt.Sprintf("%d-%d", i, y.Version), Op: store.Action, State: store.BranchPrepared})
			switch err := s.Save(t.Context(), y, added); {
			case err == nil:
				wins[i]++
				last.Store(max(last.Load(), y.Version))
			case !errors.Is(err, store.ErrConflict):
				t.Errorf("Save = %v, want nil or ErrConflict", err)
				return
			}
		}
	})
	total := int64(0)
	for _, n := range wins {
		total += n
	}
	y := mustGet(t, s, x.GID)
	if total != y.Version-1 || int(total) != len(y.Branches)-2 {
		t.Errorf("%d won, and the store has version %d and %d branches more", total, y.Version, len(y.Branches)-2)
	}
	for i, b := range y.Branches[2:] {
		var who, version int
		if _, err := fmt.Sscanf(b.ID, "%d-%d", &who, &version); err != nil || version != i+1 {
			t.Errorf("branch %d was added as %q, want by the version before", i, b.ID)
		}
	}
}

func testOneCreator(t *testing.T, s store.Store) {
	for round := range 10 {
		gid := fmt.Sprint("one-", round)
		var winner atomic.Pointer[store.Transaction]
		together(crowd, func(i int) {
			x := transaction(gid)
			x.Attempts = i
			switch err := s.Create(t.Context(), x); {
			case err == nil && !winner.CompareAndSwap(nil, x):
				t.Errorf("two have created %q", gid)
			case err != nil && !errors.Is(err, store.ErrExists):
				t.Errorf("Create = %v, want nil or ErrExists", err)
			}
		})
		if winner.Load() == nil {
			t.Fatalf("nobody has created %q", gid)
		}
		requireStored(t, s, winner.Load())
	}
}

func testManyAtOnce(t *testing.T, s store.Store) {
	together(crowd, func(i int) {
		for j := range 10 {
			x := transaction(fmt.Sprintf("many-%d-%d", i, j))
			x.Data = x.GID
			if err := s.Create(t.Context(), x); err != nil {
				t.Errorf("Create: %v", err)
				return
			}
			for range 3 {
				x.Attempts++
				x.Branches[1].Error = fmt.Sprint(x.GID, x.Attempts)
				if err := s.Save(t.Context(), x, 2); err != nil {
					t.Errorf("Save: %v", err)
					return
				}
			}
			if y, err := s.Get(t.Context(), x.GID); err != nil {
				t.Errorf("Get: %v", err)
			} else if diff := differ(y, x); diff != "" {
				t.Errorf("%q: %s", x.GID, diff)
			}
		}
	})
}

// The change of a caller who goes is there or is not; those of others are not harmed.
func testCallersWhoLeave(t *testing.T, s store.Store) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Create(over, transaction("never")); err == nil || isSentinel(err) {
		t.Errorf("Create with a ctx that is over = %v, want its error", err)
	}
	if _, err := s.Get(t.Context(), "never"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it was created: %v", err)
	}
	if _, err := s.Get(over, "never"); err == nil || isSentinel(err) {
		t.Errorf("Get with a ctx that is over = %v, want its error", err)
	}
	together(crowd, func(i int) {
		for j := range 5 {
			ctx, cancel := t.Context(), func() {}
			if i%2 == 0 {
				ctx, cancel = context.WithTimeout(t.Context(), time.Duration(i*j)*20*time.Microsecond)
			}
			x := transaction(fmt.Sprintf("leave-%d-%d", i, j))
			err := s.Create(ctx, x)
			cancel()
			if err != nil {
				if i%2 != 0 || isSentinel(err) {
					t.Errorf("Create = %v", err)
				}
				x.Version = 0
				continue
			}
			if y, err := s.Get(t.Context(), x.GID); err != nil {
				t.Errorf("Get of what was confirmed: %v", err)
			} else if diff := differ(y, x); diff != "" {
				t.Errorf("%q: %s", x.GID, diff)
			}
		}
	})
}

func isSentinel(err error) bool {
	return errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound) ||
		errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrClosed)
}

func testClose(t *testing.T, s store.Store) {
	x := transaction("a")
	mustCreate(t, s, x)
	for range 2 {
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	for name, f := range map[string]func() error{
		"Create":       func() error { return s.Create(ctx, transaction("b")) },
		"Save":         func() error { return s.Save(ctx, x, 2) },
		"Get":          func() error { _, err := s.Get(ctx, "a"); return err },
		"Claim":        func() error { _, err := s.Claim(ctx, epoch, time.Second, 1); return err },
		"NextDue":      func() error { _, err := s.NextDue(ctx); return err },
		"List":         func() error { _, _, err := s.List(ctx, store.Filter{}); return err },
		"Purge":        func() error { _, err := s.Purge(ctx, epoch, 1); return err },
		"Topic":        func() error { _, err := s.Topic(ctx, "t"); return err },
		"TopicVersion": func() error { _, err := s.TopicVersion(ctx, "t"); return err },
		"AllTopics":    func() error { _, err := s.AllTopics(ctx, "", 1); return err },
		"Subscribe":    func() error { return s.Subscribe(ctx, "t", store.Subscriber{URL: "http://x"}) },
		"Unsubscribe":  func() error { return s.Unsubscribe(ctx, "t", "http://x") },
		"DeleteTopic":  func() error { return s.DeleteTopic(ctx, "t") },
		"Record":       func() error { return s.Record(ctx, store.AuditEntry{Action: "a"}) },
		"Entries":      func() error { _, err := s.Entries(ctx, 0, 1); return err },
	} {
		if err := f(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("%s after Close = %v, want ErrClosed", name, err)
		}
	}
}

// Whoever comes before Close is served, whoever comes after hears of it.
func testCloseWaits(t *testing.T, s store.Store) {
	var served atomic.Int64
	some := make(chan struct{})
	var once sync.Once
	together(crowd+1, func(i int) {
		if i == crowd {
			<-some
			if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Errorf("Close: %v", err)
			}
			return
		}
		for j := 0; ; j++ {
			err := s.Create(t.Context(), transaction(fmt.Sprintf("close-%d-%d", i, j)))
			if errors.Is(err, store.ErrClosed) {
				return
			}
			if err != nil {
				t.Errorf("Create while Close waits = %v, want nil or ErrClosed", err)
				return
			}
			if served.Add(1) == crowd {
				once.Do(func() { close(some) })
			}
		}
	})
}
