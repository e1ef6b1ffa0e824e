//go:build !dtmtest

package engine

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// payloads remembers what is delivered.
type payloads struct {
	mu   sync.Mutex
	seen [][]byte
}

func (p *payloads) Call(_ context.Context, c Call) (Answer, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, c.Payload)
	return Success, ""
}

// A server that has not heard of a transaction for long does not take it for the one that
// it knew: that was purged, and its name given to another.
func TestNameOfAPurgedTransaction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, s, p := t.Context(), memory.New(), new(payloads)
		var engines [2]*Engine
		for i := range engines {
			e, err := Open(ctx, s, Config{Caller: p})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = e.Close(context.Background()) }()
			engines[i] = e
		}
		message := func(payload string) Request {
			return Request{GID: "m", Pattern: store.Message, QueryPrepared: "q", Options: store.Options{TimeoutToFail: time.Hour}, Steps: []Step{{Action: "a", Payload: []byte(payload)}}}
		}
		if err := errors.Join(engines[0].Prepare(ctx, message("old")), engines[1].Abort(ctx, "m", "changed my mind", false)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if n, err := s.Purge(ctx, time.Now(), 1); n != 1 || err != nil {
			t.Fatalf("purged %d: %v", n, err)
		}
		if err := engines[1].Prepare(ctx, message("new")); err != nil {
			t.Fatal(err)
		}
		r := message("new")
		r.Options.Wait = true
		if err := engines[0].Submit(ctx, r); err != nil {
			t.Fatal(err)
		}
		if len(p.seen) != 1 || !bytes.Equal(p.seen[0], []byte("new")) {
			t.Errorf("delivered %q", p.seen)
		}
	})
}

// Who repeats an announcement hears what became of it, also from a server that does not
// know yet.
func TestPrepareOfWhatHasGoneOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, s := t.Context(), memory.New()
		a, b := open(t, s, &participants{}), open(t, s, &participants{})
		defer func() { _ = errors.Join(a.Close(ctx), b.Close(ctx)) }()
		r := Request{GID: "m", Pattern: store.Message, QueryPrepared: "q", Steps: steps("a")}
		if err := errors.Join(a.Prepare(ctx, r), a.Prepare(ctx, r), b.Abort(ctx, "m", "", false)); err != nil {
			t.Fatal(err)
		}
		if err := a.Prepare(ctx, r); !isState(err) {
			t.Errorf("prepared again after the end: %v", err)
		}
	})
}

// reads counts what is read.
type reads struct {
	store.Store
	n int
}

func (r *reads) Get(ctx context.Context, gid string) (*store.Transaction, error) {
	r.n++
	return r.Store.Get(ctx, gid)
}

// A workflow that is new is not read back; one that is there is read once, and as it is.
func TestStartWorkflowReads(t *testing.T) {
	t.Parallel()
	s := &reads{Store: memory.New()}
	e := open(t, s, &participants{})
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	r := Request{GID: "w", Pattern: store.Workflow, QueryPrepared: "q", Data: `{"name":"pay","data":"aGk="}`}
	ctx := As(t.Context(), "ann")
	started, err := e.StartWorkflow(ctx, r)
	if err != nil || started.GID != "w" || started.State != store.Prepared || s.n != 0 {
		t.Errorf("started %+v, %v, after %d reads", started, err, s.n)
	}
	if err := e.Register(ctx, "w", store.Branch{ID: "01", Op: store.Action, State: store.BranchSucceeded}); err != nil {
		t.Fatal(err)
	}
	again, err := e.StartWorkflow(ctx, r)
	if err != nil || len(again.Branches) != 1 || len(started.Branches) != 0 || s.n != 1 {
		t.Errorf("started again: %+v, %v, after %d reads", again, err, s.n)
	}
	if _, err := e.StartWorkflow(As(t.Context(), "bob"), r); !errors.Is(err, store.ErrExists) {
		t.Errorf("another's workflow: %v", err)
	}
}

// slowClaim answers when the engine is closed already.
type slowClaim struct{ store.Store }

func (s *slowClaim) Claim(ctx context.Context, now time.Time, lease time.Duration, limit int) ([]*store.Transaction, error) {
	due, err := s.Store.Claim(context.WithoutCancel(ctx), now, lease, limit)
	time.Sleep(time.Second)
	return due, err
}

// What was claimed as the engine was closed is given back.
func TestCloseGivesBackWhatItClaims(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &slowClaim{memory.New()}
		due(t, s, "m", "a", nil, time.Now())
		p := &participants{}
		e := open(t, s, p)
		time.Sleep(500 * time.Millisecond)
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := s.Get(t.Context(), "m")
		if err != nil || got.Leased || got.Due.After(time.Now()) || len(p.seen()) > 0 {
			t.Errorf("%+v (%v), calls %v", got, err, p.seen())
		}
	})
}
