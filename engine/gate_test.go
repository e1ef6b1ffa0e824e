//go:build !dtmtest

package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// openSmall opens an engine with little room. It is closed without waiting for what hangs.
func openSmall(t *testing.T, s store.Store, p Caller) *Engine {
	t.Helper()
	e, err := Open(t.Context(), s, Config{
		Caller: p, Jitter: func(d time.Duration) time.Duration { return d },
		CallsMax: 64, CallsPerHostMax: 16, WaitingMax: 128, CacheMax: 500,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = e.Close(ctx)
	})
	return e
}

// patient is a participant. At hosts that begin with "hung" a call takes all its time as
// long as down is set.
type patient struct{ down atomic.Bool }

func (p *patient) Call(ctx context.Context, c Call) (Answer, string) {
	takes := 10 * time.Millisecond
	if p.down.Load() && hostOf(c.URL)[:4] == "hung" {
		takes = time.Hour
	}
	if !doze(ctx, takes) {
		return Unknown, "timed out"
	}
	return Success, ""
}

func send(t *testing.T, e *Engine, gid, url string, o store.Options) {
	t.Helper()
	if err := e.Submit(t.Context(), Request{GID: gid, Pattern: store.Message, Steps: []Step{{Action: url}}, Options: o}); err != nil {
		t.Fatal(err)
	}
}

// due stores a message that somebody submitted, and that is due since long ago.
func due(t *testing.T, s store.Store, gid, url string, payload []byte, now time.Time) {
	t.Helper()
	err := s.Create(t.Context(), &store.Transaction{
		GID: gid, Pattern: store.Message, State: store.Submitted, Created: now, Due: now, Interval: 10 * time.Second,
		Branches: []store.Branch{newBranch("01", store.Action, url, payload)},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// held is how many passes are under way in an engine, and how many transactions it has in
// memory.
func held(e *Engine) (passes, known int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.drivers {
		if d.users > 0 {
			passes++
		}
	}
	return passes, len(e.drivers)
}

// Ten thousand transactions that wait for a host that hangs, of which most were begun by a
// server that is gone, keep nobody else waiting, and fill no memory. When the host is well
// again they are gone at the rate at which it can be called.
func TestStuckHostStarvesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, p := memory.New(), new(patient)
		p.down.Store(true)
		for i := range 9_000 / few {
			due(t, s, fmt.Sprint("stuck", i), "http://hung/a", nil, time.Now().Add(-time.Hour))
		}
		for i := range 100 { // due after all of those
			due(t, s, fmt.Sprint("taken", i), "http://well/a", nil, time.Now().Add(-time.Minute))
		}
		e := openSmall(t, s, p)
		for i := range 1_000 / few {
			send(t, e, fmt.Sprint("sent", i), "http://hung/a", store.Options{})
		}
		began := time.Now()
		for i := range 100 {
			send(t, e, fmt.Sprint("well", i), "http://well/a", store.Options{Wait: true})
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("100 healthy messages, one after the other, took %v of virtual time", took)
		}
		time.Sleep(time.Second)
		for i := range 100 {
			requireState(t, e, fmt.Sprint("taken", i), store.Succeeded)
		}
		for range 120 {
			time.Sleep(time.Second)
			if passes, known := held(e); passes > 16+32 || known > 500+48 {
				t.Fatalf("%d passes are under way, %d transactions in memory", passes, known)
			}
		}
		p.down.Store(false)
		time.Sleep(45 * time.Second) // the last calls that hang; then 10,000 at 16 in 10 ms
		if page, _, err := s.List(t.Context(), store.Filter{States: []store.State{store.Submitted}}); err != nil || len(page) > 0 {
			t.Errorf("%d or more are left (%v)", len(page), err)
		}
		e.gate.mu.Lock()
		defer e.gate.mu.Unlock()
		if g := e.gate; len(g.hosts) > 0 || g.calls.taken+g.queue.taken+g.bytes.taken+g.names.taken+g.awaited+len(g.turns) > 0 {
			t.Errorf("places that nobody has are taken: %+v, hosts %v", g, g.hosts)
		}
	})
}

// However many hosts hang, who is well is called at once: first, last, and by a crowd.
func TestManyHungHostsLeaveRoom(t *testing.T) {
	t.Parallel()
	for _, hosts := range []int{1, 8, 60} {
		synctest.Test(t, func(t *testing.T) {
			p := new(patient)
			p.down.Store(true)
			e := openSmall(t, memory.New(), p)
			for i := range 40 * hosts {
				send(t, e, fmt.Sprint("hung", i), fmt.Sprintf("http://hung%d/", i%hosts), store.Options{RequestTimeout: time.Hour})
			}
			synctest.Wait()
			for i := range 100 {
				send(t, e, fmt.Sprint("well", i), "http://well/", store.Options{})
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			for i := range 100 {
				requireState(t, e, fmt.Sprint("well", i), store.Succeeded)
			}
		})
	}
}

// A pass that found no place was none: it does not count as failed, and what a saga did
// not call is not undone.
func TestPutOffIsNoFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &participants{answer: func(Call, int) (Answer, time.Duration) { return Success, time.Hour }}
		e := openSmall(t, memory.New(), p)
		for i := range 48 {
			send(t, e, fmt.Sprint("stuck", i), "http://hung/a", store.Options{RequestTimeout: time.Hour})
		}
		saga := Request{GID: "s", Pattern: store.Saga, Steps: steps("http://hung/b", "http://well/b"), Options: store.Options{TimeoutToFail: time.Minute, RetryLimit: 2}}
		if err := e.Submit(t.Context(), saga); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := requireState(t, e, "s", store.Submitted)
		if got.Attempts != 0 || got.Leased || !got.Due.After(time.Now()) || !got.Branches[actionOf(0)].Called.IsZero() || got.Branches[actionOf(0)].Error != "" {
			t.Errorf("put off: %+v", got)
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		requireState(t, e, "s", store.Failed)
		for _, m := range p.seen() {
			if m.url != "http://hung/a" {
				t.Errorf("called %+v", m)
			}
		}
	})
}

// Who says that it goes on is asked again after a pause, also by a transaction of which
// other calls were put off.
func TestPutOffDoesNotHurryWhatGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &participants{answer: func(Call, int) (Answer, time.Duration) { return Ongoing, 10 * time.Millisecond }}
		e := openSmall(t, memory.New(), p)
		all := make([]string, 60) // 16 + 32 have a place
		for i := range all {
			all[i] = fmt.Sprint("http://busy/", i)
		}
		if err := e.Submit(t.Context(), Request{GID: "m", Pattern: store.Message, Steps: steps(all...), Options: store.Options{Concurrent: true}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := p.count("http://busy/0"); n < 5 || n > 7 {
			t.Errorf("called %d times in a minute, want every 10 s", n)
		}
	})
}

// Whoever waits for an answer gets one, and not that there is no place.
func TestAwaitedAreNotPutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := openSmall(t, memory.New(), new(patient))
		var all sync.WaitGroup
		for i := range 100 { // 16 + 32 have a place without anybody waiting for them
			all.Go(func() { send(t, e, fmt.Sprint(i), "http://well/", store.Options{Wait: true}) })
		}
		all.Wait()
	})
}

// claims remembers how much was claimed at a time.
type claims struct {
	store.Store
	mu   sync.Mutex
	most int // bytes
}

func (c *claims) Claim(ctx context.Context, now time.Time, lease time.Duration, limit int) ([]*store.Transaction, error) {
	all, err := c.Store.Claim(ctx, now, lease, limit)
	size := 0
	for _, t := range all {
		size += sizeOf(t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = max(c.most, size)
	return all, err
}

// Who takes over a pile of large transactions does not have them in memory all at once,
// whether their host answers or hangs, and drives others meanwhile.
func TestTakeoverHasABudget(t *testing.T) {
	t.Parallel()
	for _, hangs := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			const budget, size = 16 << 20, 1 << 20
			p := new(patient)
			p.down.Store(hangs)
			s := &claims{Store: memory.New()}
			payload := make([]byte, size) // shared: what is counted are references
			for i := range 1_000 / few {
				due(t, s, fmt.Sprint("large", i), "http://hung/a", payload, time.Now().Add(-time.Hour))
			}
			due(t, s, "small", "http://well/a", nil, time.Now().Add(-time.Minute))
			e, err := Open(t.Context(), s, Config{Caller: p, BytesMax: budget, Jitter: func(d time.Duration) time.Duration { return d }})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = e.Close(t.Context()) }()
			most := 0
			for range 1_000 {
				time.Sleep(10 * time.Millisecond)
				e.gate.mu.Lock()
				most = max(most, e.gate.bytes.taken)
				e.gate.mu.Unlock()
			}
			requireState(t, e, "small", store.Succeeded)
			p.down.Store(false)
			time.Sleep(time.Minute)
			if n := left(t, e); n > 0 {
				t.Errorf("%d are left", n)
			}
			if most > budget || most < budget/4 {
				t.Errorf("%d bytes were held, the budget is %d", most, budget)
			}
			if s.most > budget/2 {
				t.Errorf("%d bytes were claimed at a time, the budget is %d", s.most, budget)
			}
		})
	}
}

// A batch is small while it is not known how large transactions are, or they are large.
func TestBatch(t *testing.T) {
	t.Parallel()
	b := batch{n: 1, max: 64, bytesMax: 1 << 20}
	of := func(n, size int) (all []*store.Transaction) {
		for range n {
			all = append(all, &store.Transaction{Branches: []store.Branch{{Payload: make([]byte, size)}}})
		}
		return all
	}
	for i, c := range []struct{ n, size, want int }{
		{1, 10, 2}, {2, 10, 4}, {4, 10, 8}, {7, 10, 8}, {8, 10, 16}, {16, 10, 32}, {32, 10, 64}, {64, 10, 64}, // small ones
		{64, 100 << 10, 10}, {10, 100 << 10, 10}, {10, 10 << 20, 1}, {1, 10 << 20, 1}, {0, 0, 1}, {1, 10, 2},
	} {
		b.claimed(of(c.n, c.size))
		if b.n != c.want {
			t.Errorf("%d: %d after %d of %d bytes, want %d", i, b.n, c.n, c.size, c.want)
		}
	}
}

// silentStore answers no question about what is due.
type silentStore struct {
	store.Store
	asked atomic.Int32
}

func (s *silentStore) Claim(context.Context, time.Time, time.Duration, int) ([]*store.Transaction, error) {
	s.asked.Add(1)
	return nil, errors.New("out of order")
}

// A store in trouble is asked now and then only, also if work is due in it.
func TestStoreInTroubleIsLeftInPeace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &silentStore{Store: memory.New()}
		due(t, s, "m", "a", nil, time.Now().Add(-time.Minute))
		e := open(t, s, &participants{})
		time.Sleep(time.Minute)
		if err := e.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := s.asked.Load(); n < 20 || n > 31 {
			t.Errorf("asked %d times in a minute, want once in 2 s", n)
		}
	})
}

// The canary's transaction ends otherwise: another of those that wait becomes the canary.
func TestAnotherCanary(t *testing.T) {
	t.Parallel()
	o := newOutages()
	now := time.Unix(0, 0)
	fails := func(gid string) bool { return o.failed("a?x=1", gid, 1, now, 26*time.Second) }
	if fails("1") || !fails("2") || fails("1") {
		t.Error("the second of those that wait is the canary")
	}
	now = now.Add(20 * time.Second)
	if !fails("2") || fails("3") {
		t.Error("the canary was heard of in time")
	}
	now = now.Add(27 * time.Second)
	if !fails("1") || fails("2") {
		t.Error("nothing was heard of the canary")
	}
	if got := o.over("a", "1"); len(got) != 2 || o.all.taken != 0 {
		t.Errorf("waiting: %v, %d", got, o.all.taken)
	}
}
