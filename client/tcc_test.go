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

func TestTCC(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := newService(t, func(call *client.Call) (any, error) {
		return map[string]string{"for": string(call.Op)}, nil
	})
	var gid string
	err := w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
		gid = tcc.GID()
		for _, name := range []string{"/a", "/b"} {
			var reply struct{ For string }
			b := client.TCCBranch{Try: s.URL + name, Confirm: s.URL + name + "ok", Cancel: s.URL + name + "no", Payload: 7, Reply: &reply}
			if err := tcc.Call(ctx, b); err != nil {
				return err
			}
			if reply.For != "try" {
				t.Errorf("reply is %v", reply)
			}
		}
		if got := w.state(t, gid); got != client.Prepared {
			t.Errorf("state is %s before the end", got)
		}
		return nil
	}, client.Wait())
	if err != nil {
		t.Fatal(err)
	}
	got := s.seen()
	if len(got) != 4 || got[0] != (called{"/a", "01", "try", "7"}) || got[1] != (called{"/b", "02", "try", "7"}) {
		t.Fatalf("calls are %v", got)
	}
	for _, want := range []called{{"/aok", "01", "confirm", "7"}, {"/bok", "02", "confirm", "7"}} {
		if !slices.Contains(got[2:], want) {
			t.Errorf("calls are %v, want %v among them", got, want)
		}
	}
	if got := w.state(t, gid); got != client.Succeeded {
		t.Errorf("state is %s", got)
	}
}

func TestTCCIsCancelled(t *testing.T) {
	t.Parallel()
	mine := errors.New("mine")
	for name, f := range map[string]func(try func() error) error{
		"refused": func(try func() error) error { return try() },
		"own":     func(try func() error) error { return errors.Join(mine, try()) },
		"panic":   func(try func() error) error { _ = try(); panic("oh") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			s := newService(t, func(call *client.Call) (any, error) {
				if call.Op == client.OpTry {
					return nil, client.ErrFailed
				}
				return nil, nil
			})
			var gid string
			err := recovered(func() error {
				return w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
					gid = tcc.GID()
					return f(func() error {
						return tcc.Call(ctx, client.TCCBranch{Try: s.URL + "/try", Confirm: s.URL + "/ok", Cancel: s.URL + "/no"})
					})
				})
			})
			if name != "panic" && !errors.Is(err, client.ErrFailed) || name == "own" && !errors.Is(err, mine) || name == "panic" && err.Error() != "oh" {
				t.Errorf("error is %v", err)
			}
			w.await(t, gid, client.Failed)
			if got := s.paths(); !slices.Equal(got, []string{"/try", "/no"}) {
				t.Errorf("calls are %v", got)
			}
		})
	}
}

// The function swallows what a try or an XA's branch answered: it must not be confirmed.
func TestSwallowedError(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := newService(t, func(call *client.Call) (any, error) {
		if call.Op == client.OpTry || call.Op == client.OpAction {
			return nil, client.ErrFailed
		}
		return nil, nil
	})
	for name, do := range map[string]func(opt client.Option) error{
		"tcc": func(opt client.Option) error {
			return w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
				_ = tcc.Call(ctx, client.TCCBranch{Try: s.URL + "/try", Confirm: s.URL + "/yes", Cancel: s.URL + "/no"})
				return nil
			}, opt)
		},
		"xa": func(opt client.Option) error {
			return w.XA(t.Context(), func(ctx context.Context, x *client.XA) error {
				_ = x.Call(ctx, s.URL+"/sell", nil, nil)
				return nil
			}, opt)
		},
	} {
		if err := do(client.GID(name)); !errors.Is(err, client.ErrFailed) {
			t.Errorf("%s: error is %v", name, err)
		}
		w.await(t, name, client.Failed)
	}
	if slices.Contains(s.paths(), "/yes") {
		t.Errorf("calls are %v", s.paths())
	}
}

// recovered returns a panic's text as an error.
func recovered(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New(p.(string))
		}
	}()
	return f()
}

// A participant tries branches of its own, which are confirmed with the others.
func TestNestedTCC(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	inner := newService(t, nil)
	outer := httptest.NewServer(client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		if call.Op != client.OpTry {
			return nil, nil
		}
		tcc, err := w.JoinTCC(ctx)
		if err != nil {
			return nil, err
		}
		return nil, tcc.Call(ctx, client.TCCBranch{Try: inner.URL, Confirm: inner.URL, Cancel: inner.URL})
	}))
	defer outer.Close()
	err := w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
		return tcc.Call(ctx, client.TCCBranch{Try: outer.URL, Confirm: outer.URL, Cancel: outer.URL})
	}, client.Wait())
	if err != nil {
		t.Fatal(err)
	}
	want := []called{{"/", "0101", "try", ""}, {"/", "0101", "confirm", ""}}
	if got := inner.seen(); !slices.Equal(got, want) {
		t.Errorf("calls are %v, want %v", got, want)
	}
	if _, err := w.JoinTCC(t.Context()); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("JoinTCC outside of a call: %v", err)
	}
}

// Answers to prepare and registration are lost: the branch counts once.
func TestLostAnswersOfTCC(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t, nil), newService(t, nil)
	var lost, confirmed atomic.Int32
	s.answer = func(call *client.Call) (any, error) {
		if call.Op == client.OpConfirm {
			confirmed.Add(1)
		}
		return nil, nil
	}
	seen := make(map[string]bool) // the first of each is lost; requests come one by one
	w.setIntercept(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/'):]
		if name != "/query" && !seen[name] {
			seen[name] = true
			lost.Add(1)
			next.ServeHTTP(&deaf{header: http.Header{}}, r)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(rw, r)
	})
	err := w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
		return tcc.Call(ctx, client.TCCBranch{Try: s.URL, Confirm: s.URL, Cancel: s.URL})
	}, client.Wait())
	if err != nil || lost.Load() != 3 || confirmed.Load() != 1 {
		t.Errorf("error is %v, %d answers were lost, %d branches confirmed; want nil, 3, 1", err, lost.Load(), confirmed.Load())
	}
}

// The caller goes away after its function failed, or in the middle of it.
func TestTCCOfACallerThatHasGone(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t, nil), newService(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var gid string
	err := w.TCC(ctx, func(ctx context.Context, tcc *client.TCC) error {
		gid = tcc.GID()
		err := tcc.Call(ctx, client.TCCBranch{Try: s.URL, Confirm: s.URL, Cancel: s.URL})
		cancel()
		return err
	})
	if !errors.Is(err, client.ErrFailed) || !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	w.await(t, gid, client.Failed)
}

func TestServerIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var requests atomic.Int32
	w.setIntercept(func(http.ResponseWriter, *http.Request, http.Handler) {
		requests.Add(1)
		panic(http.ErrAbortHandler)
	})
	err := w.Saga().Add("http://x", "", nil).Submit(t.Context())
	if !errors.Is(err, client.ErrUnknown) || requests.Load() < 5 {
		t.Errorf("error is %v after %d attempts, want ErrUnknown after 5", err, requests.Load())
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error %q tells the token", err)
	}
}
