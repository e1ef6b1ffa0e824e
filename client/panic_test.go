package client_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/troth-tx/troth/client"
)

// outlived calls f as code does that outlives panics.
func outlived(f func()) {
	defer func() { _ = recover() }()
	f()
}

// Somebody outlives the panic of a try: the branch is registered, and must not be confirmed.
func TestTryPanics(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t, nil), newService(t, nil)
	err := w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
		outlived(func() {
			_ = tcc.Do(ctx, client.TCCBranch{Confirm: s.URL + "/confirm", Cancel: s.URL + "/cancel"}, func(context.Context) error { panic("try") })
		})
		return nil
	}, client.GID("tcc"))
	if !errors.Is(err, client.ErrFailed) {
		t.Errorf("error is %v", err)
	}
	w.await(t, "tcc", client.Failed)
}

// The same of a step: nobody knows its end, and so the workflow does not succeed.
func TestStepPanics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	runs := 0
	ws := newRegistry(t, w.Client, func(ctx context.Context, wf *client.Workflow, _ []byte) ([]byte, error) {
		runs++
		outlived(func() {
			_, _ = wf.Step("pay").OnCommit(nothing).Do(ctx, func(context.Context) ([]byte, error) {
				if runs == 1 {
					panic(http.ErrAbortHandler)
				}
				return nil, nil
			})
		})
		return nil, nil
	})
	if _, err := ws.Execute(t.Context(), "f", nil, client.GID("pay")); err == nil || errors.Is(err, client.ErrFailed) {
		t.Errorf("error is %v", err)
	}
	requireKept(t, w, "pay", client.Prepared)
	if _, err := ws.Execute(t.Context(), "f", nil, client.GID("pay")); err != nil {
		t.Errorf("the next run: %v", err)
	}
	requireKept(t, w, "pay", client.Succeeded, "01-pay action succeed", "01-pay commit succeed")
}
