package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

func testClaim(t *testing.T, s store.Store) {
	ctx := t.Context()
	if next, err := s.NextDue(ctx); err != nil || !next.IsZero() {
		t.Errorf("NextDue of an empty store = %v, %v, want none", next, err)
	}
	for i := range 10 {
		x := transaction(fmt.Sprint(i))
		x.Due = epoch.Add(time.Duration(10-i) * time.Second) // the last one first
		if i == 5 {
			x.Due = time.Time{}
		}
		mustCreate(t, s, x)
	}
	if next, err := s.NextDue(ctx); err != nil || !next.Equal(epoch.Add(time.Second)) {
		t.Errorf("NextDue = %v, %v, want %v", next, err, epoch.Add(time.Second))
	}
	claim := func(now time.Time, limit int, want ...string) {
		t.Helper()
		got, err := s.Claim(ctx, now, time.Minute, limit)
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range got {
			if i >= len(want) || x.GID != want[i] {
				t.Fatalf("Claim has %q at %d, want %q", x.GID, i, want)
			}
			if !x.Leased || !x.Due.Equal(now.Add(time.Minute)) || x.Version != 2 {
				t.Errorf("%q is leased %v until %v, version %d", x.GID, x.Leased, x.Due, x.Version)
			}
			requireStored(t, s, x)
		}
		if len(got) != len(want) {
			t.Fatalf("Claim has %d, want %q", len(got), want)
		}
	}
	claim(epoch, 10)
	claim(epoch.Add(3*time.Second), 10, "9", "8", "7") // what is due now is due
	claim(epoch.Add(3*time.Second), 10)
	claim(epoch.Add(20*time.Second), 2, "6", "4")
	claim(epoch.Add(20*time.Second), 0)
	claim(epoch.Add(20*time.Second), 100, "3", "2", "1", "0")
	if next, err := s.NextDue(ctx); err != nil || !next.Equal(epoch.Add(63*time.Second)) {
		t.Errorf("NextDue = %v, %v, want %v", next, err, epoch.Add(63*time.Second))
	}
	again, err := s.Claim(ctx, epoch.Add(63*time.Second), time.Minute, 100)
	if err != nil || len(again) != 3 {
		t.Errorf("Claim after a lease has ended = %d, %v, want 3", len(again), err)
	}
}

func testClaimOnce(t *testing.T, s store.Store) {
	const n = 300
	together(crowd, func(i int) {
		for j := i; j < n; j += crowd {
			x := transaction(fmt.Sprint("c", j))
			x.Due = epoch.Add(time.Duration(j) * time.Millisecond)
			if err := s.Create(t.Context(), x); err != nil {
				t.Errorf("Create: %v", err)
			}
		}
	})
	var mu sync.Mutex
	times := make(map[string]int)
	together(16, func(int) {
		for {
			got, err := s.Claim(t.Context(), epoch.Add(time.Minute), time.Hour, 7)
			if err != nil {
				t.Errorf("Claim: %v", err)
				return
			}
			mu.Lock()
			for _, x := range got {
				times[x.GID]++
			}
			done := len(times) == n
			mu.Unlock()
			if done || len(got) == 0 {
				return
			}
		}
	})
	// A claimer may have found nothing while others held the rest; what they gave back
	// is claimed here.
	rest, err := s.Claim(t.Context(), epoch.Add(time.Minute), time.Hour, n)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range rest {
		times[x.GID]++
	}
	if len(times) != n {
		t.Errorf("%d of %d were handed out", len(times), n)
	}
	for gid, n := range times {
		if n != 1 {
			t.Errorf("%q was handed out %d times", gid, n)
		}
	}
}

func testClaimVersion(t *testing.T, s store.Store) {
	x := transaction("a")
	mustCreate(t, s, x)
	claimed, err := s.Claim(t.Context(), epoch.Add(time.Hour), time.Minute, 1)
	if err != nil || len(claimed) != 1 {
		t.Fatalf("Claim = %d, %v, want one", len(claimed), err)
	}
	if err := s.Save(t.Context(), x, 2); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Save of what was claimed meanwhile = %v, want ErrConflict", err)
	}
	mustSave(t, s, claimed[0], 2)
	requireStored(t, s, claimed[0])
}

// Who knows a transaction that was purged does not change another that has its GID and
// version: not by a change alone, nor by one among many.
func testAnother(t *testing.T, s store.Store) {
	gids := []string{"a", "b", "c"}
	var stale []*store.Transaction
	for _, gid := range gids {
		x := transaction(gid)
		mustCreate(t, s, x)
		stale = append(stale, x.Clone())
		finish(x, store.Failed, epoch)
		mustSave(t, s, x, 2)
	}
	if n, err := s.Purge(t.Context(), epoch.Add(time.Hour), 10); err != nil || n != len(gids) {
		t.Fatalf("Purge = %d, %v", n, err)
	}
	for _, gid := range gids {
		x := transaction(gid)
		x.Created = epoch.Add(time.Microsecond)
		mustCreate(t, s, x)
	}
	refused := func(x *store.Transaction) {
		x.Reason = "of the one that was purged"
		if err := s.Save(t.Context(), x, 2); !errors.Is(err, store.ErrConflict) {
			t.Errorf("Save of one that was purged, over another of its GID = %v, want ErrConflict", err)
		}
	}
	refused(stale[0])
	together(40, func(i int) {
		if i < len(stale) {
			refused(stale[i])
		} else if err := s.Create(t.Context(), transaction(fmt.Sprint("beside-", i))); err != nil {
			t.Errorf("Create beside it: %v", err)
		}
	})
	for _, gid := range gids {
		x := transaction(gid)
		x.Created, x.Version = epoch.Add(time.Microsecond), 1
		requireStored(t, s, x)
	}
}

func testPurge(t *testing.T, s store.Store) {
	ctx := t.Context()
	for i := range 40 {
		x := transaction(fmt.Sprint("p", i))
		x.Created = epoch.Add(-1000 * time.Hour)
		mustCreate(t, s, x)
		x.Branches = append(x.Branches, store.Branch{ID: "02", Op: store.Action, State: store.BranchPrepared})
		switch {
		case i < 10:
			finish(x, store.Succeeded, epoch.Add(time.Duration(i)*time.Second))
		case i < 20:
			finish(x, store.Failed, epoch.Add(time.Duration(i)*time.Second))
		}
		mustSave(t, s, x, 2)
	}
	purge := func(before time.Time, limit, want int) {
		t.Helper()
		if n, err := s.Purge(ctx, before, limit); err != nil || n != want {
			t.Fatalf("Purge = %d, %v, want %d", n, err, want)
		}
	}
	purge(epoch, 100, 0) // the first ended at epoch, not before
	purge(epoch.Add(1), 100, 1)
	purge(epoch.Add(15*time.Second), 0, 0)
	purge(epoch.Add(15*time.Second), 5, 5)
	purge(epoch.Add(15*time.Second), 100, 9)
	purge(epoch.Add(1000*time.Hour), 100, 5)
	purge(epoch.Add(1000*time.Hour), 100, 0)
	if _, err := s.Get(ctx, "p3"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of what was purged = %v, want ErrNotFound", err)
	}
	if err := s.Save(ctx, transaction("p3"), 2); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Save of what was purged = %v, want ErrNotFound", err)
	}
	for i := 20; i < 40; i++ {
		if x := mustGet(t, s, fmt.Sprint("p", i)); len(x.Branches) != 3 {
			t.Errorf("%q has %d branches, want 3", x.GID, len(x.Branches))
		}
	}
	x := transaction("p3") // made again, it has nothing of the old one
	mustCreate(t, s, x)
	requireStored(t, s, x)
}

func testPurgeWhileWorking(t *testing.T, s store.Store) {
	stop := make(chan struct{})
	var purging sync.WaitGroup
	purging.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := s.Purge(t.Context(), epoch.Add(time.Hour), 50); err != nil {
				t.Errorf("Purge: %v", err)
				return
			}
		}
	})
	together(crowd, func(i int) {
		for j := range 10 {
			x := transaction(fmt.Sprintf("w-%d-%d", i, j))
			err := s.Create(t.Context(), x)
			if err == nil {
				err = s.Save(t.Context(), x, 2)
			}
			if err != nil {
				t.Errorf("an open transaction: %v", err)
				return
			}
			if j%2 == 0 {
				finish(x, store.Succeeded, epoch)
				if err := s.Save(t.Context(), x, 2); err != nil {
					t.Errorf("Save: %v", err)
				}
			}
		}
	})
	close(stop)
	purging.Wait()
	if _, err := s.Purge(t.Context(), epoch.Add(time.Hour), crowd*10); err != nil {
		t.Errorf("Purge: %v", err)
	}
	left, _, err := s.List(t.Context(), store.Filter{Limit: store.ListLimitMax})
	if err != nil || len(left) != crowd*5 {
		t.Errorf("List = %d, %v, want the %d that are not over", len(left), err, crowd*5)
	}
}
