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

// Shared tests two stores on one database, as two engines have them: of what both do at
// the same time one wins, and neither fails.
func Shared(t *testing.T, a, b store.Store) {
	stores := [2]store.Store{a, b}
	t.Run("OneCreator", func(t *testing.T) {
		for round := range 10 {
			var created atomic.Int64
			together(crowd, func(i int) {
				for j := range 4 { // several gids, which the two take in different orders
					gid := fmt.Sprintf("new-%d-%d", round, (i+j)%4)
					err := stores[i%2].Create(t.Context(), transaction(gid))
					if err == nil {
						created.Add(1)
					} else if !errors.Is(err, store.ErrExists) {
						t.Errorf("Create = %v, want nil or ErrExists", err)
					}
				}
			})
			if created.Load() != 4 {
				t.Errorf("%d were created, want 4", created.Load())
			}
		}
	})
	t.Run("OneWinnerPerVersion", func(t *testing.T) {
		const gids, rounds = 8, 10
		for g := range gids {
			mustCreate(t, a, transaction(fmt.Sprint("shared-", g)))
		}
		var wins atomic.Int64
		together(crowd, func(i int) {
			for n := 0; n < gids*rounds; n++ {
				x, err := stores[i%2].Get(t.Context(), fmt.Sprint("shared-", (i+n)%gids))
				if err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				if x.Version > rounds {
					continue
				}
				switch err := stores[i%2].Save(t.Context(), x, len(x.Branches)); {
				case err == nil:
					wins.Add(1)
				case !errors.Is(err, store.ErrConflict):
					t.Errorf("Save = %v, want nil or ErrConflict", err)
				}
			}
		})
		total := int64(0)
		for g := range gids {
			total += mustGet(t, b, fmt.Sprint("shared-", g)).Version - 1
		}
		if wins.Load() != total {
			t.Errorf("%d won, and the versions have gone up by %d", wins.Load(), total)
		}
	})
	t.Run("ClaimOnce", func(t *testing.T) {
		var mu sync.Mutex
		times := make(map[string]int)
		count := func(found []*store.Transaction) {
			mu.Lock()
			defer mu.Unlock()
			for _, x := range found {
				times[x.GID]++
			}
		}
		together(8, func(i int) {
			for {
				found, err := stores[i%2].Claim(t.Context(), epoch.Add(time.Hour), time.Hour, 3)
				if err != nil {
					t.Errorf("Claim: %v", err)
				}
				if count(found); len(found) == 0 {
					return
				}
			}
		})
		rest, err := b.Claim(context.WithoutCancel(t.Context()), epoch.Add(time.Hour), time.Hour, 1000)
		if err != nil {
			t.Fatal(err)
		}
		count(rest)
		if len(times) != 48 { // what the tests above made
			t.Errorf("%d were handed out, want 48", len(times))
		}
		for gid, n := range times {
			if n != 1 {
				t.Errorf("%q was handed out %d times", gid, n)
			}
		}
	})
}

// A Freezer is a database that a test may stop for a while.
type Freezer interface {
	Freeze() error
	Thaw() error
}

// Frozen tests what callers hear while the database does not answer, that all goes on
// when it does, and that Close need not wait for it. It closes the store.
func Frozen(t *testing.T, s store.Store, server Freezer) {
	ctx := t.Context()
	x := transaction("frozen")
	mustCreate(t, s, x)
	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	together(8, func(i int) {
		soon, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		var err error
		if i == 0 {
			err = s.Save(soon, x.Clone(), 2)
		} else {
			err = s.Create(soon, transaction(fmt.Sprint("frozen-", i)))
		}
		if !errors.Is(err, context.DeadlineExceeded) || isSentinel(err) {
			t.Errorf("a change while nothing answers = %v, want the error of its ctx", err)
		}
	})
	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, transaction("thawed"))
	if y := mustGet(t, s, x.GID); y.Version != 1 && y.Version != 2 {
		t.Errorf("it has the version %d, want 1 or 2", y.Version)
	} else {
		mustSave(t, s, y, 2)
	}
	for i := 1; i < 8; i++ {
		if err := s.Create(ctx, transaction(fmt.Sprint("frozen-", i))); err != nil && !errors.Is(err, store.ErrExists) {
			t.Errorf("Create again = %v, want nil or ErrExists", err)
		}
	}

	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Thaw(); err != nil {
			t.Error(err)
		}
	}()
	heard := make(chan error, 1)
	go func() { heard <- s.Create(ctx, transaction("at the end")) }()
	soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := s.Close(soon); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close = %v, want the error of its ctx", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("Close took %v", took)
	}
	if err := <-heard; err == nil {
		t.Error("a change was confirmed while nothing answered")
	}
}
