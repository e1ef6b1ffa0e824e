package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

// lastVersion is the version with which the transactions of a load are over.
const lastVersion = 4

// A Load writes transactions whose content follows from GID and version, so that it
// can be told later whether a change is there as a whole: several workers, each one
// transaction after the other, each through its versions.
type Load struct {
	Prefix  string // of the GIDs; another for each load of a store
	Workers int

	// Confirmed is called when the store has confirmed a version. It may be called by
	// several goroutines at a time.
	Confirmed func(gid string, version int64)

	// Outlast says that the store's database will come back: a worker that gets an
	// error asks what holds and goes on from there. Otherwise it ends.
	Outlast bool
}

// Run writes until ctx ends, or in each worker until the first error of the store.
// What it returns are the errors that show the store to be wrong.
func (l Load) Run(ctx context.Context, s store.Store) error {
	errs := make([]error, l.Workers)
	var wg sync.WaitGroup
	for w := range l.Workers {
		wg.Go(func() {
			for i := 0; errs[w] == nil && ctx.Err() == nil; i++ {
				more, err := l.transaction(ctx, s, fmt.Sprintf("%s-%d-%d", l.Prefix, w, i))
				if errs[w] = err; !more {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// transaction takes one through its versions. Callers are not cancelled: what is under
// way when ctx ends is confirmed or fails.
func (l Load) transaction(ctx context.Context, s store.Store, gid string) (more bool, err error) {
	at := int64(0)
	for at < lastVersion && ctx.Err() == nil {
		x := contentOf(gid, at+1)
		var err error
		if x.Version = at; at == 0 {
			err = s.Create(context.WithoutCancel(ctx), x)
		} else {
			err = s.Save(context.WithoutCancel(ctx), x, len(contentOf(gid, at).Branches))
		}
		switch {
		case err == nil && x.Version != at+1:
			return false, fmt.Errorf("%q became version %d after %d", gid, x.Version, at)
		case err == nil:
			at++
			l.Confirmed(gid, at)
			continue
		case isSentinel(err):
			return false, fmt.Errorf("%q of version %d: %w, and nobody else writes it", gid, at, err)
		case !l.Outlast:
			return false, nil
		}
		now, err := whatHolds(ctx, s, gid)
		if err != nil || now != at && now != at+1 {
			return false, fmt.Errorf("%q is version %d after an unknown change of version %d: %w", gid, now, at, err)
		}
		at = now
	}
	return true, nil
}

// whatHolds asks for the version until the store answers; 0 if there is none.
func whatHolds(ctx context.Context, s store.Store, gid string) (version int64, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for {
		x, err := s.Get(ctx, gid)
		switch {
		case err == nil:
			return x.Version, nil
		case errors.Is(err, store.ErrNotFound):
			return 0, nil
		case ctx.Err() != nil:
			return 0, err
		}
		time.Sleep(5 * time.Millisecond) // the database is being restarted
	}
}

// contentOf is a transaction as a load writes it: a branch more with every version.
func contentOf(gid string, version int64) *store.Transaction {
	x := transaction(gid)
	x.Version, x.Attempts = version, int(version)
	x.Updated = epoch.Add(time.Duration(version) * time.Second)
	x.Reason = fmt.Sprintf("%s at %d", gid, version)
	for v := int64(1); v < version; v++ {
		x.Branches = append(x.Branches, store.Branch{
			ID: fmt.Sprintf("%02d", v), Op: store.Action, URL: "http://later", Payload: fmt.Appendf(nil, "%s of %d", gid, v), State: store.BranchPrepared,
		})
	}
	x.Branches[len(x.Branches)-1].Error = x.Reason
	if version == lastVersion {
		finish(x, store.Succeeded, x.Updated)
	}
	return x
}

// Check fails the test unless all that loads confirmed is there, and nothing is there by
// halves. confirmed has the last version of each GID; up to unconfirmed others may
// have come to be.
func Check(t *testing.T, s store.Store, confirmed map[string]int64, unconfirmed int) {
	t.Helper()
	seen := make(map[string]bool)
	for f := (store.Filter{Limit: store.ListLimitMax}); ; {
		page, next, err := s.List(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range page {
			version := confirmed[x.GID]
			if seen[x.GID] = true; version == 0 {
				unconfirmed--
			}
			if x.Version != version && x.Version != version+1 {
				t.Errorf("%q is version %d, and %d was confirmed", x.GID, x.Version, version)
			}
			want := contentOf(x.GID, x.Version)
			if diff := differ(x, want); diff != "" {
				t.Errorf("%q is there by halves: %s", x.GID, diff)
			}
		}
		if f.Cursor = next; next == "" {
			break
		}
	}
	for gid, version := range confirmed {
		if !seen[gid] {
			t.Errorf("%q is lost: version %d was confirmed", gid, version)
		}
	}
	if unconfirmed < 0 {
		t.Errorf("%d are there that nobody created", -unconfirmed)
	}
}

// A Server is a database that a test may kill.
type Server interface {
	Kill() error
	Restart(ctx context.Context) error
}

// Kills kills a server again and again under load, and checks that the store kept what
// it confirmed.
func Kills(t *testing.T, s store.Store, server Server, rounds int) {
	const workers, each = 32, 400
	confirmed := make(map[string]int64)
	var mu sync.Mutex
	enough := make(chan struct{}, 1)
	count := 0
	load := Load{Prefix: "kill", Workers: workers, Outlast: true, Confirmed: func(gid string, version int64) {
		mu.Lock()
		defer mu.Unlock()
		confirmed[gid] = version
		if count++; count%each == 0 {
			select {
			case enough <- struct{}{}:
			default:
			}
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- load.Run(ctx, s) }()
	for range rounds {
		select {
		case <-enough:
		case err := <-ended:
			t.Fatalf("the load ended: %v", err)
		}
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	<-enough // it goes on after the last
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	Check(t, s, confirmed, workers)
	t.Logf("%d changes of %d transactions confirmed over %d kills", count, len(confirmed), rounds)
}
