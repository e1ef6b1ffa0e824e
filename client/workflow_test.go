package client_test

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/client"
)

// serveWorkflows registers functions and serves their resumption.
func serveWorkflows(t *testing.T, w *world, byName map[string]client.WorkflowFunc) *client.Workflows {
	t.Helper()
	var ws *client.Workflows
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { ws.Handler().ServeHTTP(rw, r) }))
	t.Cleanup(s.Close)
	ws = w.Workflows(s.URL)
	closeAtEnd(t, ws)
	for name, f := range byName {
		if err := ws.Register(name, f); err != nil {
			t.Fatal(err)
		}
	}
	return ws
}

// closeAtEnd closes a registry before its server goes.
func closeAtEnd(t *testing.T, ws *client.Workflows) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := ws.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

// transfer takes from the bank and gives to a service, and undoes the first if the second
// refuses.
func transfer(b *bank, s *service) client.WorkflowFunc {
	return func(ctx context.Context, w *client.Workflow, input []byte) ([]byte, error) {
		out := w.Step("out").OnRollback(func(ctx context.Context, s *client.WorkflowStep) error {
			return s.Local(ctx, b.Outbox, func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + 30 WHERE id = 1")
				return err
			})
		})
		if err := out.Local(ctx, b.Outbox, withdraw); err != nil {
			return nil, err
		}
		in := w.Step("in").OnFinish(func(ctx context.Context, step *client.WorkflowStep, rollback bool) error {
			path := "/confirm"
			if rollback {
				path = "/undo"
			}
			_, err := step.Post(ctx, s.URL+path, input)
			return err
		})
		return in.Post(ctx, s.URL+"/in", input)
	}
}

func TestWorkflow(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w := newWorld(t, nil)
		s := newService(t, func(call *client.Call) (any, error) { return map[string]string{"did": string(call.Op)}, nil })
		ws := serveWorkflows(t, w, map[string]client.WorkflowFunc{"transfer": transfer(b, s)})
		for range 2 { // the second time it is over
			result, err := ws.Execute(t.Context(), "transfer", []byte("30"), client.GID("wf"))
			if err != nil || string(result) != `{"did":"action"}` {
				t.Fatalf("result %s, %v", result, err)
			}
		}
		want := []called{{"/in", "02-in", "action", "30"}, {"/confirm", "02-in", "commit", "30"}}
		if got := s.seen(); b.balance(t) != 70 || !slices.Equal(got, want) {
			t.Errorf("balance %d, calls %v, want 70 and %v", b.balance(t), got, want)
		}
		if _, err := ws.Execute(t.Context(), "transfer", []byte("31"), client.GID("wf")); !errors.Is(err, client.ErrRefused) {
			t.Errorf("another input under the same name: %v", err)
		}
	})
}

func TestWorkflowIsUndone(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w := newWorld(t, nil)
		s := newService(t, func(*client.Call) (any, error) { return nil, client.ErrFailed })
		ws := serveWorkflows(t, w, map[string]client.WorkflowFunc{"transfer": transfer(b, s)})
		for range 2 {
			if _, err := ws.Execute(t.Context(), "transfer", nil, client.GID("wf")); !errors.Is(err, client.ErrFailed) {
				t.Fatalf("error is %v", err)
			}
		}
		if got := s.paths(); b.balance(t) != 100 || !slices.Equal(got, []string{"/in"}) {
			t.Errorf("balance %d, calls %v", b.balance(t), got)
		}
		status, err := w.Status(t.Context(), "wf")
		if err != nil {
			t.Fatal(err)
		}
		var ops []string
		for _, b := range status.Branches {
			ops = append(ops, b.ID+" "+string(b.Op)+" "+string(b.State))
		}
		if want := []string{"01-out action succeed", "02-in action failed", "01-out rollback succeed"}; !slices.Equal(ops, want) {
			t.Errorf("the server keeps %v, want %v", ops, want)
		}
	})
}

// The answer of a participant is lost, the function gives up, and the server has it
// called again: what is recorded is not done again.
func TestWorkflowIsResumed(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w := newWorld(t, nil)
		var calls atomic.Int32
		s := newService(t, func(call *client.Call) (any, error) {
			if call.Op == client.OpAction && calls.Add(1) == 1 {
				return nil, errors.New("out of order")
			}
			return nil, nil
		})
		ws := serveWorkflows(t, w, map[string]client.WorkflowFunc{"transfer": transfer(b, s)})
		_, err := ws.Execute(t.Context(), "transfer", []byte("30"), client.GID("wf"))
		if !errors.Is(err, client.ErrUnknown) || w.state(t, "wf") != client.Prepared {
			t.Fatalf("error is %v, state %s", err, w.state(t, "wf"))
		}
		w.later()
		w.await(t, "wf", client.Succeeded)
		if got := b.balance(t); got != 70 || calls.Load() != 2 {
			t.Errorf("balance %d, %d calls of the service, want 70 and 2", got, calls.Load())
		}
	})
}

// The function does something else in its second run.
func TestWorkflowDeviates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var runs atomic.Int32
	step := func(ctx context.Context, w *client.Workflow, name string) error {
		_, err := w.Step(name).Do(ctx, func(context.Context) ([]byte, error) { return nil, nil })
		return err
	}
	ws := serveWorkflows(t, w, map[string]client.WorkflowFunc{
		"another name": func(ctx context.Context, w *client.Workflow, _ []byte) ([]byte, error) {
			if runs.Add(1) == 1 {
				return nil, errors.Join(step(ctx, w, "a"), client.ErrUnknown)
			}
			_ = step(ctx, w, "b") // swallows what it is told
			return nil, nil
		},
		"fewer": func(ctx context.Context, w *client.Workflow, _ []byte) ([]byte, error) {
			if runs.Add(1) == 1 {
				return nil, errors.Join(step(ctx, w, "a"), step(ctx, w, ""), client.ErrUnknown)
			}
			return nil, step(ctx, w, "a")
		},
	})
	for _, name := range []string{"another name", "fewer"} {
		runs.Store(0)
		for run := range 2 {
			_, err := ws.Execute(t.Context(), name, nil, client.GID(name))
			if run == 1 && (!errors.Is(err, client.ErrInvalid) || !strings.Contains(err.Error(), "not deterministic")) {
				t.Errorf("%s: error is %v", name, err)
			}
		}
		if got := w.state(t, name); got != client.Prepared {
			t.Errorf("%s: state is %s, want prepared: a person must look at it", name, got)
		}
	}
}

func TestWorkflowNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	f := func(context.Context, *client.Workflow, []byte) ([]byte, error) { return []byte("x"), nil }
	ws := serveWorkflows(t, w, map[string]client.WorkflowFunc{"one": f})
	if err := ws.Register("one", f); err == nil {
		t.Error("a name was registered twice")
	}
	if err := ws.Register("", f); err == nil {
		t.Error("no name was registered")
	}
	if _, err := ws.Execute(t.Context(), "two", nil); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("an unknown workflow: %v", err)
	}
	if got, err := ws.Execute(t.Context(), "one", nil); err != nil || string(got) != "x" {
		t.Errorf("result %s, %v", got, err)
	}
}
