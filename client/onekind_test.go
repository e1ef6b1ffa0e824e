package client_test

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/store"
)

var errDatabaseDown = errors.New("the database is down")

// An error is of one kind, whatever kinds its causes are of: a caller who finds ErrFailed
// may do the work again under another name.

// A message was stopped by force, and the sender's database does not say whether its
// transaction committed.
func TestNotKnownIsNotFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const gid = "stopped"
	if err := w.Message(client.GID(gid)).Add("http://127.0.0.1:1", nil).Prepare(t.Context(), "http://127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if err := w.engine.Stop(t.Context(), gid, "an operator's whim"); err != nil {
		t.Fatal(err)
	}
	err := w.Message(client.GID(gid)).Add("http://127.0.0.1:1", nil).DoAndSubmitLocal(t.Context(), "http://127.0.0.1:1", local{
		committed: func(context.Context, barrier.Step) (bool, error) { return false, errDatabaseDown },
	})
	if !errors.Is(err, client.ErrUnknown) || errors.Is(err, client.ErrFailed) || !errors.Is(err, errDatabaseDown) {
		t.Errorf("error is %v", err)
	}
}

// A participant refused, but somebody else has submitted the transaction meanwhile.
func TestRefusedAbortIsNotFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	mine := errors.New("mine")
	err := w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
		other := w.newClient(t)
		if err := other.TCC(ctx, func(context.Context, *client.TCC) error { return nil }, client.GID(tcc.GID()), client.Wait()); err != nil {
			t.Error(err)
		}
		return errors.Join(mine, client.ErrFailed)
	})
	if !errors.Is(err, client.ErrUnknown) || errors.Is(err, client.ErrFailed) || !errors.Is(err, mine) {
		t.Errorf("error is %v", err)
	}
}

// An error of the function that looks like the barrier's own says nothing of the
// transaction, which was rolled back.
func TestFunctionFailsLikeTheBarrier(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w, s := newWorld(t, nil), newService(t, nil)
		for _, said := range []error{barrier.ErrDuplicated, barrier.ErrRuledOut} {
			m := w.Message(client.Wait()).Add(s.URL, 30)
			err := m.DoAndSubmit(t.Context(), b.Outbox, b.query.URL, func(ctx context.Context, tx *sql.Tx) error {
				return errors.Join(withdraw(ctx, tx), said)
			})
			if !errors.Is(err, client.ErrFailed) || b.balance(t) != 100 || len(s.seen()) != 0 {
				t.Errorf("%v: error is %v, balance %d, %d deliveries", said, err, b.balance(t), len(s.seen()))
			}
		}
	})
}

// A name that belongs to a transaction of another pattern is refused before anything is done.
func TestNameOfAnotherPattern(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w, s := newWorld(t, nil), newService(t, nil)
		err := w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
			m := w.Message(client.GID(tcc.GID())).Add(s.URL, 30)
			err := m.DoAndSubmit(ctx, b.Outbox, b.query.URL, withdraw)
			if !errors.Is(err, client.ErrRefused) || b.balance(t) != 100 {
				t.Errorf("error is %v, balance %d", err, b.balance(t))
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// Only the agreed answer is one. A proxy, or a server of something else, that says 200 to
// everything stores nothing.
func TestAnyTwoHundredIsNoAnswer(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "{}", "<html>Welcome</html>", `{"status":"ok"}`} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
		defer s.Close()
		c, err := client.New(client.Config{Server: s.URL, Attempts: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Saga().Add("http://a", "", nil).Submit(t.Context()); !errors.Is(err, client.ErrUnknown) {
			t.Errorf("%q: error is %v", body, err)
		}
	}
}

// A proxy that does not find its server says 404. The message is prepared, so the server
// will ask.
func TestSubmissionMeetsProxy(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		w, s := newWorld(t, nil), newService(t, nil)
		var down atomic.Bool
		down.Store(true)
		w.setIntercept(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			if down.Load() && strings.HasSuffix(r.URL.Path, "/submit") {
				http.Error(rw, "default backend - 404", http.StatusNotFound)
				return
			}
			next.ServeHTTP(rw, r)
		})
		m := w.Message().Add(s.URL, 30)
		err := m.DoAndSubmit(t.Context(), b.Outbox, b.query.URL, withdraw)
		if !errors.Is(err, client.ErrOngoing) {
			t.Errorf("error is %v", err)
		}
		w.later()
		w.await(t, m.GID(), client.Succeeded)
	})
}

// Two processes run one workflow. One records a step; the other's record of it meets a
// server that does not answer, and then the first one's: it must not go on with a result of
// its own.
func TestWorkflowStepIsRecordedByAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var attempts atomic.Int32
	w.setIntercept(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/registerBranch") {
			switch attempts.Add(1) {
			case 1: // the other process comes first
				err := w.engine.Register(r.Context(), "race", recorded("01-ticket", "seat 7"))
				if err != nil {
					t.Error(err)
				}
				http.Error(rw, "busy", http.StatusServiceUnavailable)
				return
			}
		}
		next.ServeHTTP(rw, r)
	})
	ws := serveWorkflows(t, w, map[string]client.WorkflowFunc{
		"ticket": func(ctx context.Context, w *client.Workflow, _ []byte) ([]byte, error) {
			return w.Step("ticket").Do(ctx, func(context.Context) ([]byte, error) { return []byte("seat 8"), nil })
		},
	})
	result, err := ws.Execute(t.Context(), "ticket", nil, client.GID("race"))
	if err == nil && string(result) != "seat 7" || err != nil && !errors.Is(err, client.ErrOngoing) {
		t.Errorf("result %q, error %v: the server keeps seat 7", result, err)
	}
}

func recorded(id, result string) store.Branch {
	return store.Branch{ID: id, Op: store.Action, State: store.BranchSucceeded, Payload: []byte(result)}
}
