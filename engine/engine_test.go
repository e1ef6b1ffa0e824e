//go:build !dtmtest

package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// participants answer calls, and remember them. Addresses are free text.
type participants struct {
	mu     sync.Mutex
	calls  []made
	answer func(c Call, nth int) (Answer, time.Duration) // nth call of that branch and operation, from 1
}

type made struct {
	at     time.Duration // since the start of the test
	url    string
	branch string
	op     store.Op
}

func (p *participants) Call(ctx context.Context, c Call) (Answer, string) {
	p.mu.Lock()
	nth := 1
	for _, m := range p.calls {
		if m.url == c.URL && m.branch == c.Branch && m.op == c.Op {
			nth++
		}
	}
	p.calls = append(p.calls, made{time.Since(epoch), c.URL, c.Branch, c.Op})
	p.mu.Unlock()
	a, takes := Success, time.Duration(0)
	if p.answer != nil {
		a, takes = p.answer(c, nth)
	}
	select {
	case <-time.After(takes):
		return a, fmt.Sprintf("answer %d", a)
	case <-ctx.Done():
		return Unknown, ctx.Err().Error()
	}
}

// epoch is when every bubble of synctest begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (p *participants) seen() []made {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

func (p *participants) count(url string) (n int) {
	for _, m := range p.seen() {
		if m.url == url {
			n++
		}
	}
	return n
}

// bubble runs a test in virtual time, on an engine whose pauses are not jittered.
func bubble(t *testing.T, p *participants, test func(t *testing.T, e *Engine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := open(t, memory.New(), p)
		defer func() { _ = e.Close(t.Context()) }()
		test(t, e)
	})
}

func open(t *testing.T, s store.Store, p *participants) *Engine {
	t.Helper()
	e, err := Open(t.Context(), s, Config{Caller: p, Jitter: func(d time.Duration) time.Duration { return d }})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func steps(urls ...string) (all []Step) {
	for _, url := range urls {
		all = append(all, Step{Action: url, Compensate: url + "/undo", Payload: []byte("{}")})
	}
	return all
}

func requireState(t *testing.T, e *Engine, gid string, want store.State) *store.Transaction {
	t.Helper()
	got, err := e.Get(t.Context(), gid)
	if err != nil || got.State != want {
		t.Fatalf("%s is %v (%v), want %v", gid, got, err, want)
	}
	return got
}

func TestPausesDouble(t *testing.T) {
	t.Parallel()
	p := &participants{answer: func(_ Call, nth int) (Answer, time.Duration) {
		if nth <= 4 {
			return Unknown, 0
		}
		return Success, 0
	}}
	bubble(t, p, func(t *testing.T, e *Engine) {
		if err := e.Submit(t.Context(), Request{GID: "m", Pattern: store.Message, Steps: steps("a")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		var at []time.Duration
		for _, m := range p.seen() {
			at = append(at, m.at.Round(time.Second))
		}
		if want := []time.Duration{0, 20 * time.Second, 60 * time.Second, 140 * time.Second, 300 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("called at %v, want %v", at, want)
		}
		requireState(t, e, "m", store.Succeeded)
	})
}

func TestOngoingKeepsThePause(t *testing.T) {
	t.Parallel()
	p := &participants{answer: func(_ Call, nth int) (Answer, time.Duration) {
		if nth <= 3 {
			return Ongoing, 0
		}
		return Success, 0
	}}
	bubble(t, p, func(t *testing.T, e *Engine) {
		r := Request{GID: "s", Pattern: store.Saga, Steps: steps("a"), Options: store.Options{Wait: true, RetryInterval: 3 * time.Second}}
		if err := e.Submit(t.Context(), r); !errors.Is(err, ErrOngoing) {
			t.Fatalf("got %v, want ErrOngoing", err)
		}
		time.Sleep(9*time.Second + 100*time.Millisecond)
		requireState(t, e, "s", store.Succeeded)
		if n := p.count("a"); n != 4 {
			t.Errorf("%d calls, want 4", n)
		}
	})
}

// A sender that is never heard of again is asked, and its word decides (I15).
func TestSenderIsAsked(t *testing.T) {
	t.Parallel()
	for _, says := range []Answer{Success, Failure} {
		t.Run(fmt.Sprint(says), func(t *testing.T) {
			t.Parallel()
			p := &participants{answer: func(c Call, nth int) (Answer, time.Duration) {
				switch {
				case c.Op != store.Query:
					return Success, 0
				case nth == 1:
					return Unknown, 0
				}
				return says, 0
			}}
			bubble(t, p, func(t *testing.T, e *Engine) {
				r := Request{GID: "m", Pattern: store.Message, QueryPrepared: "query", Steps: steps("a", "b")}
				if err := e.Prepare(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				time.Sleep(34 * time.Second)
				if len(p.seen()) != 0 {
					t.Fatalf("called before its time: %v", p.seen())
				}
				time.Sleep(22 * time.Second)
				want, delivered := store.Succeeded, 1
				if says == Failure {
					want, delivered = store.Failed, 0
				}
				requireState(t, e, "m", want)
				if p.count("a") != delivered || p.count("b") != delivered || p.count("query") != 2 {
					t.Errorf("calls: %v", p.seen())
				}
				if err := e.Submit(t.Context(), r); (err == nil) != (says == Success) && !isState(err) {
					t.Errorf("late submit: %v", err)
				}
			})
		})
	}
}

func isState(err error) bool { return errors.As(err, new(*StateError)) }

// dtm's finding F1: a repeated submit marked a transaction as succeeded whose second phase
// had not ended.
func TestRepeatedSubmitSkipsNothing(t *testing.T) {
	t.Parallel()
	for _, pattern := range []store.Pattern{store.TCC, store.XA} {
		t.Run(pattern.String(), func(t *testing.T) {
			t.Parallel()
			down := true
			var mu sync.Mutex
			p := &participants{answer: func(Call, int) (Answer, time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				if down {
					return Unknown, 0
				}
				return Success, 0
			}}
			bubble(t, p, func(t *testing.T, e *Engine) {
				ctx, r := t.Context(), Request{GID: "t", Pattern: pattern}
				forth, back := store.Confirm, store.Cancel
				if pattern == store.XA {
					forth, back = store.Commit, store.Rollback
				}
				if err := errors.Join(e.Prepare(ctx, r),
					e.Register(ctx, "t", newBranch("01", back, "back", nil), newBranch("01", forth, "forth", nil)),
					e.Submit(ctx, r)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for range 3 {
					if err := e.Submit(ctx, r); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					requireState(t, e, "t", store.Submitted)
				}
				if err := e.Abort(ctx, "t", "", false); !isState(err) {
					t.Fatalf("abort after submit: %v", err)
				}
				mu.Lock()
				down = false
				mu.Unlock()
				r.Options.Wait = true
				if err := e.Submit(ctx, r); err != nil {
					t.Fatal(err)
				}
				requireState(t, e, "t", store.Succeeded)
				if p.count("back") != 0 {
					t.Error("a branch was rolled back")
				}
			})
		})
	}
}

func TestCallerIsNotHeardOfAgain(t *testing.T) {
	t.Parallel()
	p := &participants{}
	bubble(t, p, func(t *testing.T, e *Engine) {
		ctx := t.Context()
		if err := errors.Join(e.Prepare(ctx, Request{GID: "t", Pattern: store.TCC, Options: store.Options{TimeoutToFail: 7 * time.Second}}),
			e.Register(ctx, "t", newBranch("01", store.Cancel, "cancel", nil), newBranch("01", store.Confirm, "confirm", nil))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(7*time.Second + 100*time.Millisecond)
		got := requireState(t, e, "t", store.Failed)
		if p.count("cancel") != 1 || p.count("confirm") != 0 || got.Reason != "Timeout after 7 seconds" {
			t.Errorf("%v, %q", p.seen(), got.Reason)
		}
		if err := e.Register(ctx, "t", newBranch("02", store.Cancel, "cancel", nil)); !isState(err) {
			t.Errorf("registered after the end: %v", err)
		}
	})
}

func TestDelay(t *testing.T) {
	t.Parallel()
	p := &participants{}
	bubble(t, p, func(t *testing.T, e *Engine) {
		r := Request{GID: "m", Pattern: store.Message, Steps: steps("a"), Options: store.Options{Delay: 5 * time.Second}}
		if err := e.Submit(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4900 * time.Millisecond)
		requireState(t, e, "m", store.Submitted)
		time.Sleep(200 * time.Millisecond)
		requireState(t, e, "m", store.Succeeded)
	})
}

// A pile of messages goes off at once when the service that they waited for answers, not
// as their pauses end.
func TestPileAfterAnOutage(t *testing.T) {
	t.Parallel()
	const messages = 1000 / few
	var mu sync.Mutex
	down := true
	p := &participants{answer: func(Call, int) (Answer, time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return Unknown, 0
		}
		return Success, 20 * time.Millisecond
	}}
	bubble(t, p, func(t *testing.T, e *Engine) {
		for i := range messages {
			r := Request{GID: fmt.Sprint("m", i), Pattern: store.Message, Steps: steps("http://host/a?n=" + fmt.Sprint(i))}
			if err := e.Submit(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour) // every pause is at its longest
		mu.Lock()
		down = false
		mu.Unlock()
		healed := time.Now()
		for left(t, e) == messages { // the canary
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(healed); took > 11*time.Second {
			t.Errorf("the end of the outage was noticed after %v", took)
		}
		time.Sleep(3 * time.Second)
		if n := left(t, e); n > 0 {
			t.Errorf("%d of %d messages were left 3 s after the first", n, messages)
		}
	})
}

func left(t *testing.T, e *Engine) int {
	t.Helper()
	page, _, err := e.store.List(t.Context(), store.Filter{States: []store.State{store.Submitted}, Limit: store.ListLimitMax})
	if err != nil {
		t.Fatal(err)
	}
	return len(page)
}

// A poisoned message beside healthy ones keeps its growing pauses.
func TestPoisonedMessageIsNotHurried(t *testing.T) {
	t.Parallel()
	p := &participants{answer: func(c Call, _ int) (Answer, time.Duration) {
		if c.GID == "poisoned" {
			return Unknown, 0
		}
		return Success, 0
	}}
	bubble(t, p, func(t *testing.T, e *Engine) {
		if err := e.Submit(t.Context(), Request{GID: "poisoned", Pattern: store.Message, Steps: steps("a")}); err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			time.Sleep(time.Second)
			if err := e.Submit(t.Context(), Request{GID: fmt.Sprint(i), Pattern: store.Message, Steps: steps("a")}); err != nil {
				t.Fatal(err)
			}
		}
		if n := p.count("a") - 1000; n > 2*7 { // 0, 20, 60, 140, 300, 620 s, each at most twice
			t.Errorf("the poisoned message was tried %d times", n)
		}
	})
}

// A host that hangs takes its own places only.
func TestHungHostDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	p := &participants{answer: func(c Call, _ int) (Answer, time.Duration) {
		if hostOf(c.URL) == "hung" {
			return Success, time.Hour
		}
		return Success, 0
	}}
	bubble(t, p, func(t *testing.T, e *Engine) {
		for i := range 2000 {
			if err := e.Submit(t.Context(), Request{GID: fmt.Sprint("h", i), Pattern: store.Message, Steps: steps("http://hung/a")}); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		for i := range 20 {
			r := Request{GID: fmt.Sprint("g", i), Pattern: store.Message, Steps: steps("http://well/a"), Options: store.Options{Wait: true}}
			if err := e.Submit(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("healthy messages took %v of virtual time", took)
		}
	})
}

// Who prepared and submitted is the only one to see it.
func TestOwners(t *testing.T) {
	t.Parallel()
	bubble(t, &participants{}, func(t *testing.T, e *Engine) {
		ann, bob := As(t.Context(), "ann"), As(t.Context(), "bob")
		r := Request{GID: "t", Pattern: store.TCC}
		if err := e.Prepare(ann, r); err != nil {
			t.Fatal(err)
		}
		_, err := e.Get(bob, "t")
		for name, err := range map[string]error{
			"get":      err,
			"abort":    e.Abort(bob, "t", "", false),
			"register": e.Register(bob, "t", newBranch("01", store.Confirm, "x", nil)),
			"stop":     e.Stop(bob, "t", "because"),
			"retry":    e.RetryNow(bob, "t"),
			"submit":   e.Submit(bob, r),
		} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s of another's transaction: %v, want ErrNotFound", name, err)
			}
		}
		if err := e.Prepare(bob, r); !errors.Is(err, store.ErrExists) {
			t.Errorf("prepare of another's transaction: %v, want ErrExists", err)
		}
		requireState(t, e, "t", store.Prepared)
		if err := e.Submit(ann, r); err != nil {
			t.Error(err)
		}
	})
}

// What a closed engine had begun is begun again by the next one at once.
func TestCloseReturnsLeases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		p := &participants{answer: func(_ Call, nth int) (Answer, time.Duration) {
			if nth == 1 {
				return Success, time.Minute // longer than anybody waits
			}
			return Success, 0
		}}
		first := open(t, s, p)
		r := Request{GID: "m", Pattern: store.Message, Steps: steps("a"), Options: store.Options{RequestTimeout: time.Hour}}
		if err := first.Submit(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		patience, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := first.Close(patience); err != nil {
			t.Fatal(err)
		}
		if err := first.Submit(t.Context(), r); !errors.Is(err, ErrClosed) {
			t.Errorf("submit after close: %v", err)
		}
		second := open(t, s, p)
		synctest.Wait()
		requireState(t, second, "m", store.Succeeded)
		_ = second.Close(t.Context())
	})
}

func TestWorkflowIsResumed(t *testing.T) {
	t.Parallel()
	p := &participants{}
	bubble(t, p, func(t *testing.T, e *Engine) {
		ctx := t.Context()
		r := Request{GID: "w", Pattern: store.Workflow, QueryPrepared: "resume", Data: `{"name":"pay","data":"aGk="}`}
		p.answer = func(c Call, nth int) (Answer, time.Duration) {
			if c.Name != "pay" || string(c.Payload) != "hi" || c.Branch != "00" || c.Op != store.Resume {
				t.Errorf("resumed with %+v", c)
			}
			if nth == 2 {
				if err := e.EndWorkflow(ctx, "w", true, "done", ""); err != nil {
					t.Error(err)
				}
			}
			return Success, 0
		}
		if _, err := e.StartWorkflow(ctx, r); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		step := store.Branch{ID: "01", Op: store.Action, State: store.BranchSucceeded, Payload: []byte("result")}
		if err := e.Register(ctx, "w", step); err != nil {
			t.Fatal(err)
		}
		if err := e.Register(ctx, "w", step); !errors.Is(err, store.ErrExists) {
			t.Errorf("recorded twice: %v", err)
		}
		time.Sleep(34 * time.Second)
		if n := p.count("resume"); n != 0 {
			t.Fatalf("resumed %d times though it was heard of", n)
		}
		time.Sleep(12 * time.Second) // the first resumption comes to nothing
		got := requireState(t, e, "w", store.Succeeded)
		if got.Result != "done" || len(got.Branches) != 1 || p.count("resume") != 2 {
			t.Errorf("%+v after %d resumptions", got, p.count("resume"))
		}
		if err := e.EndWorkflow(ctx, "w", true, "done", ""); err != nil {
			t.Errorf("the same end again: %v", err)
		}
		if err := e.EndWorkflow(ctx, "w", false, "", "no"); !isState(err) {
			t.Errorf("another end: %v", err)
		}
	})
}

func TestRequestsThatCannotBe(t *testing.T) {
	t.Parallel()
	bubble(t, &participants{}, func(t *testing.T, e *Engine) {
		for name, r := range map[string]Request{
			"no gid":         {Pattern: store.Saga},
			"long gid":       {GID: string(make([]byte, 129)), Pattern: store.Saga},
			"odd gid":        {GID: "a\x00b", Pattern: store.Saga},
			"no such step":   {GID: "a", Pattern: store.Saga, Steps: steps("a"), Options: store.Options{Orders: map[int][]int{0: {1}}}},
			"circle":         {GID: "a", Pattern: store.Saga, Steps: steps("a", "b"), Options: store.Options{Orders: map[int][]int{0: {1}, 1: {0}}}},
			"negative time":  {GID: "a", Pattern: store.Saga, Options: store.Options{RequestTimeout: -1}},
			"no such topic":  {GID: "a", Pattern: store.Message, Steps: steps("topic://none")},
			"no workflow":    {GID: "a", Pattern: store.Workflow},
			"large payloads": {GID: "a", Pattern: store.Message, Steps: []Step{{Action: "a", Payload: make([]byte, 17<<20)}}},
		} {
			if err := e.Submit(t.Context(), r); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v, want ErrInvalid", name, err)
			}
		}
		if page, _, err := e.store.List(t.Context(), store.Filter{}); err != nil || len(page) > 0 {
			t.Errorf("stored: %v, %v", page, err)
		}
	})
}

func TestFuncs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var undone []string
		e, err := Open(t.Context(), memory.New(), Config{Funcs: map[string]Func{
			"book":   func(context.Context, Call) error { return nil },
			"unbook": func(_ context.Context, c Call) error { undone = append(undone, string(c.Payload)); return nil },
			"pay":    func(context.Context, Call) error { return fmt.Errorf("%w: no money", ErrFailed) },
			"panic":  func(context.Context, Call) error { panic("a bug") },
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = e.Close(t.Context()) }()
		err = e.Submit(t.Context(), Request{GID: "s", Pattern: store.Saga, Options: store.Options{Wait: true}, Steps: []Step{
			{Action: "func://book", Compensate: "func://unbook", Payload: []byte("room 7")},
			{Action: "func://pay"},
		}})
		if !errors.Is(err, ErrFailed) || !slices.Equal(undone, []string{"room 7"}) {
			t.Errorf("%v, undone %v", err, undone)
		}
		r := Request{GID: "p", Pattern: store.Message, Options: store.Options{Wait: true}, Steps: []Step{{Action: "func://panic"}}}
		if err := e.Submit(t.Context(), r); !errors.Is(err, ErrOngoing) {
			t.Errorf("%v, want ErrOngoing", err)
		}
	})
}

// Who repeats a name with other steps must not hear that they are done.
func TestOtherStepsUnderTheSameName(t *testing.T) {
	t.Parallel()
	goesOn := &participants{answer: func(Call, int) (Answer, time.Duration) { return Ongoing, 0 }}
	bubble(t, goesOn, func(t *testing.T, e *Engine) {
		ctx := t.Context()
		message := Request{GID: "m", Pattern: store.Message, QueryPrepared: "query", Steps: steps("a")}
		other := message
		other.Steps = []Step{{Action: "a", Payload: []byte("another amount")}}
		if err := e.Prepare(ctx, message); err != nil {
			t.Fatal(err)
		}
		if err := e.Prepare(ctx, other); !errors.Is(err, store.ErrExists) {
			t.Errorf("prepared with another payload: %v", err)
		}
		if err := e.Submit(ctx, other); !errors.Is(err, store.ErrExists) {
			t.Errorf("submitted with another payload: %v", err)
		}
		requireState(t, e, "m", store.Prepared)
		for _, r := range []Request{message, {GID: "m", Pattern: store.Message}} {
			if err := e.Submit(ctx, r); err != nil {
				t.Errorf("submitted as it was prepared: %v", err)
			}
		}
		saga := Request{GID: "s", Pattern: store.Saga, Steps: steps("a", "b")}
		shorter := saga
		shorter.Steps = saga.Steps[:1]
		if err := errors.Join(e.Submit(ctx, saga), e.Submit(ctx, saga)); err != nil {
			t.Errorf("a saga submitted twice: %v", err)
		}
		if err := e.Submit(ctx, shorter); !errors.Is(err, store.ErrExists) {
			t.Errorf("a saga with other steps: %v", err)
		}
	})
}
