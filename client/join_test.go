package client_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/troth-tx/troth/client"
)

// A participant swallows the error of a branch of its own: the owner must not confirm it.
func TestSwallowedErrorOfAJoinedBranch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	inner := newService(t, func(call *client.Call) (any, error) {
		if call.Op == client.OpTry || call.Op == client.OpAction {
			return nil, client.ErrFailed
		}
		return nil, nil
	})
	outer := httptest.NewServer(client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		switch call.Op {
		case client.OpTry:
			tcc, err := w.JoinTCC(ctx)
			if err != nil {
				return nil, err
			}
			_ = tcc.Call(ctx, client.TCCBranch{Try: inner.URL + "/try", Confirm: inner.URL + "/confirm", Cancel: inner.URL + "/cancel"})
		case client.OpAction:
			xa, err := w.JoinXA(ctx)
			if err != nil {
				return nil, err
			}
			_ = xa.Call(ctx, inner.URL, nil, nil)
		}
		return nil, nil
	}))
	defer outer.Close()
	err := w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
		return tcc.Call(ctx, client.TCCBranch{Try: outer.URL, Confirm: outer.URL, Cancel: outer.URL})
	}, client.GID("tcc"))
	if !errors.Is(err, client.ErrFailed) {
		t.Errorf("TCC: %v", err)
	}
	w.await(t, "tcc", client.Failed)
	if got, want := inner.paths(), []string{"/try", "/cancel"}; !slices.Equal(got, want) {
		t.Errorf("calls are %v, want %v", got, want)
	}
	err = w.XA(t.Context(), func(ctx context.Context, x *client.XA) error { return x.Call(ctx, outer.URL, nil, nil) }, client.GID("xa"))
	if !errors.Is(err, client.ErrFailed) {
		t.Errorf("XA: %v", err)
	}
	w.await(t, "xa", client.Failed)
}

// A participant joins twice within one call: its branches are different ones.
func TestJoinTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	inner := newService(t, nil)
	outer := httptest.NewServer(client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		for range 2 {
			if call.Op != client.OpTry {
				return nil, nil
			}
			tcc, err := w.JoinTCC(ctx)
			if err == nil {
				err = tcc.Call(ctx, client.TCCBranch{Try: inner.URL, Confirm: inner.URL, Cancel: inner.URL})
			}
			if err != nil {
				return nil, err
			}
		}
		return nil, nil
	}))
	defer outer.Close()
	err := w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
		return tcc.Call(ctx, client.TCCBranch{Try: outer.URL, Confirm: outer.URL, Cancel: outer.URL})
	}, client.Wait())
	if err != nil {
		t.Fatal(err)
	}
	var tried, confirmed []string
	for _, c := range inner.seen() {
		if c.Op == client.OpTry {
			tried = append(tried, c.Branch)
		} else {
			confirmed = append(confirmed, c.Branch)
		}
	}
	slices.Sort(confirmed)
	if want := []string{"0101", "0102"}; !slices.Equal(tried, want) || !slices.Equal(confirmed, want) {
		t.Errorf("tried %v and confirmed %v, want %v", tried, confirmed, want)
	}
}

// FinishTimeout is for callers who have gone; others wait as long as they like.
func TestFinishOfACallerWhoWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, err := client.New(client.Config{Server: w.server.URL, Token: "secret", HTTP: w.httpClient(t), FinishTimeout: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.TCC(t.Context(), func(context.Context, *client.TCC) error { return nil }, client.GID("waits")); err != nil {
		t.Error(err)
	}
	w.await(t, "waits", client.Succeeded)
}

// A transaction that is over is known to be, also to a caller whose time ends as the
// answer comes.
func TestAwaitAtTheEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := client.New(client.Config{Transport: lateAnswer{cancel: cancel}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Await(ctx, "g"); err != nil {
		t.Error(err)
	}
}

// A lateAnswer ends the caller's context before it answers.
type lateAnswer struct {
	client.Transport // not used
	cancel           context.CancelFunc
}

func (l lateAnswer) Status(context.Context, string) (*client.Status, error) {
	l.cancel()
	return &client.Status{State: client.Succeeded}, nil
}
