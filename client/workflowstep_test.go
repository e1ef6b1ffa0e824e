package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/troth-tx/troth/client"
)

// kept is what the server has of a workflow's steps.
func kept(t *testing.T, w *world, gid string) (steps []string) {
	t.Helper()
	s, err := w.Status(t.Context(), gid)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range s.Branches {
		steps = append(steps, b.ID+" "+string(b.Op)+" "+string(b.State))
	}
	return steps
}

// requireKept fails the test unless the server has these steps, and the state.
func requireKept(t *testing.T, w *world, gid string, state client.State, want ...string) {
	t.Helper()
	if got := kept(t, w, gid); w.state(t, gid) != state || !slices.Equal(got, want) {
		t.Errorf("%s is %s and the server keeps %q, want %s and %q", gid, w.state(t, gid), got, state, want)
	}
}

func ends(err error) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return nil, err }
}

func nothing(context.Context, *client.WorkflowStep) error { return nil }

// The function goes on without a step that failed: there is nothing to commit of it.
func TestFailedStepIsNotCommitted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ws := newRegistry(t, w.Client, func(ctx context.Context, w *client.Workflow, _ []byte) ([]byte, error) {
		if _, err := w.Step("full").OnCommit(nothing).OnRollback(nothing).Do(ctx, ends(client.ErrFailed)); !errors.Is(err, client.ErrFailed) {
			return nil, err
		}
		return w.Step("free").OnCommit(nothing).OnRollback(nothing).Do(ctx, ends(nil))
	})
	if _, err := ws.Execute(t.Context(), "f", nil, client.GID("hotels")); err != nil {
		t.Fatal(err)
	}
	requireKept(t, w, "hotels", client.Succeeded, "01-full action failed", "02-free action succeed", "02-free commit succeed")
}

// The function swallows that the end of a step is not known: it cannot have succeeded.
func TestUnknownStepIsNoSuccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ws := newRegistry(t, w.Client, func(ctx context.Context, w *client.Workflow, _ []byte) ([]byte, error) {
		_, _ = w.Step("pay").OnCommit(nothing).Do(ctx, ends(client.ErrUnknown))
		return nil, nil
	})
	for range 2 {
		if _, err := ws.Execute(t.Context(), "f", nil, client.GID("pay")); !errors.Is(err, client.ErrUnknown) {
			t.Errorf("error is %v", err)
		}
	}
	requireKept(t, w, "pay", client.Prepared)
}

// The function gives up a step whose end is not known. That is recorded before anything
// is undone, and a later run keeps to it.
func TestStepIsGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var actions, rollbacks atomic.Int32
	ws := newRegistry(t, w.Client, func(ctx context.Context, w *client.Workflow, _ []byte) ([]byte, error) {
		_, err := w.Step("pay").OnRollback(func(context.Context, *client.WorkflowStep) error {
			if rollbacks.Add(1) == 1 {
				return errors.New("out of order")
			}
			return nil
		}).Do(ctx, func(context.Context) ([]byte, error) {
			actions.Add(1)
			return nil, errors.New("no answer")
		})
		if !errors.Is(err, client.ErrFailed) && strings.Contains(err.Error(), "no answer") {
			err = errors.Join(client.ErrFailed, err)
		}
		return nil, err
	})
	if _, err := ws.Execute(t.Context(), "f", nil, client.GID("pay")); err == nil || errors.Is(err, client.ErrFailed) {
		t.Errorf("the rollback is not done: %v", err)
	}
	requireKept(t, w, "pay", client.Prepared, "01-pay action failed")
	if _, err := ws.Execute(t.Context(), "f", nil, client.GID("pay")); !errors.Is(err, client.ErrFailed) {
		t.Errorf("the second run: %v", err)
	}
	requireKept(t, w, "pay", client.Failed, "01-pay action failed", "01-pay rollback succeed")
	if actions.Load() != 1 || rollbacks.Load() != 2 {
		t.Errorf("%d actions and %d rollbacks, want 1 and 2", actions.Load(), rollbacks.Load())
	}
}

// One process gives a step up, and undoes; another has recorded its success meanwhile, and
// will commit. Only one of them may go on.
func TestStepIsGivenUpBesideASuccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ws := newRegistry(t, w.Client, func(ctx context.Context, wf *client.Workflow, _ []byte) ([]byte, error) {
		_, err := wf.Step("pay").OnCommit(nothing).OnRollback(func(context.Context, *client.WorkflowStep) error {
			t.Error("undone, though it is recorded as done")
			return nil
		}).Do(ctx, func(context.Context) ([]byte, error) {
			return nil, errors.Join(w.engine.Register(ctx, "pay", recorded("01-pay", "paid")), errors.New("no answer"))
		})
		if err != nil {
			return nil, client.ErrFailed
		}
		return []byte("fine"), nil
	})
	if _, err := ws.Execute(t.Context(), "f", nil, client.GID("pay")); !errors.Is(err, client.ErrOngoing) {
		t.Errorf("who gave up: %v", err)
	}
	if result, err := ws.Execute(t.Context(), "f", nil, client.GID("pay")); err != nil || string(result) != "fine" {
		t.Errorf("the next run: %q, %v", result, err)
	}
	requireKept(t, w, "pay", client.Succeeded, "01-pay action succeed", "01-pay commit succeed")
}

// Another process ends the workflow while this one is at a step: that is no refusal of
// this call, and the next one tells the end.
func TestEndedByAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ws := newRegistry(t, w.Client, func(ctx context.Context, wf *client.Workflow, _ []byte) ([]byte, error) {
		return wf.Step("pay").Do(ctx, func(context.Context) ([]byte, error) {
			return []byte("mine"), w.engine.EndWorkflow(ctx, "pay", true, "aGlz", "") // "his"
		})
	})
	if _, err := ws.Execute(t.Context(), "f", nil, client.GID("pay")); !errors.Is(err, client.ErrOngoing) || errors.Is(err, client.ErrRefused) {
		t.Errorf("error is %v", err)
	}
	if result, err := ws.Execute(t.Context(), "f", nil, client.GID("pay")); err != nil || string(result) != "his" {
		t.Errorf("result %q, %v", result, err)
	}
}

// A participant refuses with bytes that are no text, or in words that are ours. It is
// recorded all the same, as a failure, which the next run is told.
func TestOddRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusConflict)
		_, _ = rw.Write([]byte("geschlo\xdfen"))
	}))
	defer s.Close()
	var runs atomic.Int32
	ws := newRegistry(t, w.Client, func(ctx context.Context, w *client.Workflow, input []byte) ([]byte, error) {
		step := w.Step("book").OnRollback(nothing)
		work := func() ([]byte, error) { return step.Do(ctx, ends(ourWords{})) }
		if string(input) == "bytes" {
			work = func() ([]byte, error) { return step.Post(ctx, s.URL, nil) }
		}
		result, err := work()
		if runs.Add(1)%2 == 1 {
			err = errors.New("this process dies")
		}
		return result, err
	})
	for _, gid := range []string{"bytes", "words"} {
		if _, err := ws.Execute(t.Context(), "f", []byte(gid), client.GID(gid)); err == nil || errors.Is(err, client.ErrFailed) {
			t.Errorf("%s: %v", gid, err)
		}
		requireKept(t, w, gid, client.Prepared, "01-book action failed")
		if _, err := ws.Execute(t.Context(), "f", []byte(gid), client.GID(gid)); !errors.Is(err, client.ErrFailed) {
			t.Errorf("%s: %v", gid, err)
		}
		requireKept(t, w, gid, client.Failed, "01-book action failed")
	}
}

type ourWords struct{}

func (ourWords) Error() string        { return "given up: outcome not known" }
func (ourWords) Is(target error) bool { return target == client.ErrFailed }

// The caller goes away when the work is done: the server hears of the end, and so does he.
func TestEndOfACallerThatHasGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ws := newRegistry(t, w.Client, func(context.Context, *client.Workflow, []byte) ([]byte, error) {
		cancel()
		return []byte("done"), nil
	})
	if result, err := ws.Execute(ctx, "f", nil, client.GID("gone")); err != nil || string(result) != "done" {
		t.Errorf("result %q, %v", result, err)
	}
	requireKept(t, w, "gone", client.Succeeded)
}

func TestLocalStepWithoutADatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ws := newRegistry(t, w.Client, func(ctx context.Context, w *client.Workflow, _ []byte) ([]byte, error) {
		return nil, w.Step("").Local(ctx, client.Outbox{}, withdraw)
	})
	if _, err := ws.Execute(t.Context(), "f", nil, client.GID("local")); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("error is %v", err)
	}
}
