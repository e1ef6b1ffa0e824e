package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/client"
)

// An answered remembers what was answered.
type answered struct {
	http.ResponseWriter
	status int
}

func (a *answered) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// The server resumes a workflow and gives up on each call after a second. The step takes
// longer than several of them, and is done once.
func TestStepLongerThanTheRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const requestTimeout = time.Second
	var ws *client.Workflows
	notYet := make(chan struct{}, 1024)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		a := &answered{ResponseWriter: rw}
		ws.Handler().ServeHTTP(a, r)
		if a.status == http.StatusTooEarly {
			notYet <- struct{}{}
		}
	}))
	t.Cleanup(s.Close)
	ws = w.Workflows(s.URL)
	closeAtEnd(t, ws)
	var runs, begun atomic.Int32
	err := ws.Register("slow", func(ctx context.Context, w *client.Workflow, input []byte) ([]byte, error) {
		if runs.Add(1) == 1 {
			return nil, errors.New("this process dies")
		}
		return w.Step("slow").Do(ctx, func(ctx context.Context) ([]byte, error) {
			begun.Add(1)
			took := time.After(3 * requestTimeout)
			for range 3 { // the server has asked that often meanwhile
				select {
				case <-notYet:
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				}
			}
			select {
			case <-took:
				return append([]byte("did "), input...), nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = ws.Execute(t.Context(), "slow", []byte("it"), client.GID("slow"), client.RequestTimeout(requestTimeout))
	if err == nil {
		t.Fatal("the first run succeeded")
	}
	w.later()
	w.await(t, "slow", client.Succeeded)
	result, err := ws.Execute(t.Context(), "slow", []byte("it"), client.GID("slow"))
	if err != nil || string(result) != "did it" || begun.Load() != 1 || runs.Load() != 2 {
		t.Errorf("result %q, %v; the step was begun %d times in %d runs, want once in 2", result, err, begun.Load(), runs.Load())
	}
}

// newRegistry makes a registry that only the test resumes: the server has no address.
func newRegistry(t *testing.T, c *client.Client, f client.WorkflowFunc) *client.Workflows {
	t.Helper()
	ws := c.Workflows("")
	closeAtEnd(t, ws)
	if err := ws.Register("f", f); err != nil {
		t.Fatal(err)
	}
	return ws
}

// One gid has one run at a time, whoever asks for it.
func TestOneRunAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var runs atomic.Int32
	begun, goOn := make(chan struct{}), make(chan struct{})
	ws := newRegistry(t, w.Client, func(context.Context, *client.Workflow, []byte) ([]byte, error) {
		if runs.Add(1) == 1 {
			close(begun)
		}
		<-goOn
		return []byte("x"), nil
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if result, err := ws.Execute(t.Context(), "f", nil, client.GID("one")); err != nil || string(result) != "x" {
				t.Errorf("result %q, %v", result, err)
			}
		})
	}
	<-begun
	if err := ws.Resume(t.Context(), "f", "one", nil); !errors.Is(err, client.ErrOngoing) {
		t.Errorf("resumed beside a run: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ws.Execute(ctx, "f", nil, client.GID("one")); !errors.Is(err, client.ErrOngoing) || !errors.Is(err, context.Canceled) {
		t.Errorf("executed beside a run, with a context that has ended: %v", err)
	}
	close(goOn)
	wg.Wait()
	if got := runs.Load(); got != 1 {
		t.Errorf("%d runs, want 1", got)
	}
}

// What a resumed run ends with is told by the call that waits for it, or else by the next
// one; then another run begins.
func TestResumeTellsTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	broken := errors.New("broken")
	for name, end := range map[string]func() error{
		"error":   func() error { return broken },
		"panic":   func() error { panic("broken") },
		"ongoing": func() error { return client.ErrOngoing },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var runs atomic.Int32
			goOn := make(chan struct{})
			ws := newRegistry(t, w.Client, func(context.Context, *client.Workflow, []byte) ([]byte, error) {
				<-goOn
				if runs.Add(1) == 1 {
					return nil, end()
				}
				return nil, fmt.Errorf("no: %w", client.ErrFailed)
			})
			if got := resume(t, ws, name); !errors.Is(got, client.ErrOngoing) {
				t.Fatalf("while it runs: %v", got)
			}
			close(goOn)
			var got error
			for got = resume(t, ws, name); errors.Is(got, client.ErrOngoing); got = resume(t, ws, name) {
			}
			switch name {
			case "ongoing": // is not told twice: the next run has begun
				if got != nil || runs.Load() != 2 {
					t.Errorf("at the end: %v after %d runs", got, runs.Load())
				}
				return
			case "error":
				if !errors.Is(got, broken) {
					t.Errorf("the run's end: %v", got)
				}
			case "panic":
				if !strings.Contains(got.Error(), "panic: client: workflow panic: broken") || !strings.Contains(got.Error(), "resume_test.go") {
					t.Errorf("the run's end: %v", got)
				}
			}
			if runs.Load() != 1 {
				t.Errorf("%d runs", runs.Load())
			}
			for got = resume(t, ws, name); errors.Is(got, client.ErrOngoing); got = resume(t, ws, name) {
			}
			if got != nil || w.state(t, name) != client.Failed {
				t.Errorf("the next run, which fails: %v, state %s", got, w.state(t, name))
			}
		})
	}
}

// resume makes a resume call, and returns what it panics with as an error.
func resume(t *testing.T, ws *client.Workflows, gid string) (err error) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return ws.Resume(t.Context(), "f", gid, nil)
}

func TestResumesAreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	c, err := client.New(client.Config{Server: w.server.URL, Token: "secret", HTTP: w.httpClient(t), ResumesMax: 2})
	if err != nil {
		t.Fatal(err)
	}
	goOn := make(chan struct{})
	ws := newRegistry(t, c, func(context.Context, *client.Workflow, []byte) ([]byte, error) {
		<-goOn
		return nil, nil
	})
	for i, gid := range []string{"a", "b", "c"} {
		err := ws.Resume(t.Context(), "f", gid, nil)
		if refused := strings.Contains(fmt.Sprint(err), "limit"); !errors.Is(err, client.ErrOngoing) || refused != (i == 2) {
			t.Errorf("resumption %d: %v", i+1, err)
		}
	}
	close(goOn)
	for _, gid := range []string{"a", "b", "c"} {
		for err = client.ErrOngoing; errors.Is(err, client.ErrOngoing); {
			err = ws.Resume(t.Context(), "f", gid, nil)
		}
		if err != nil || w.state(t, gid) != client.Succeeded {
			t.Errorf("%s: %v, state %s", gid, err, w.state(t, gid))
		}
	}
}

// A run has a time of its own, and Close gives runs up when its context ends.
func TestResumedRunsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	begun := make(chan struct{}, 16)
	hang := func(ctx context.Context, _ *client.Workflow, _ []byte) ([]byte, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	c, err := client.New(client.Config{Server: w.server.URL, Token: "secret", HTTP: w.httpClient(t), ResumeTimeout: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ws := newRegistry(t, c, hang)
	for err = client.ErrOngoing; errors.Is(err, client.ErrOngoing); {
		err = ws.Resume(t.Context(), "f", "long", nil)
	}
	if !strings.Contains(fmt.Sprint(err), "ResumeTimeout") {
		t.Errorf("a run that takes too long: %v", err)
	}

	ws = w.Workflows("")
	if err := ws.Register("f", hang); err != nil {
		t.Fatal(err)
	}
	for len(begun) > 0 {
		<-begun
	}
	if err := ws.Resume(t.Context(), "f", "hangs", nil); !errors.Is(err, client.ErrOngoing) {
		t.Errorf("a run that goes on: %v", err)
	}
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ws.Close(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 runs") {
		t.Errorf("closed while it runs: %v", err)
	}
	if err := ws.Resume(t.Context(), "f", "other", nil); !errors.Is(err, client.ErrOngoing) {
		t.Errorf("resumed after Close: %v", err)
	}
	if err := ws.Close(t.Context()); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

// Two processes resume one workflow at once. Both carry the step out, as participants must
// expect; one result is recorded, and both ends are that one's.
func TestTwoProcessesResumeAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var acted, ended atomic.Int32
	both := make(chan struct{})
	f := func(own string) client.WorkflowFunc {
		return func(ctx context.Context, w *client.Workflow, _ []byte) ([]byte, error) {
			s := w.Step("seat").OnCommit(func(context.Context, *client.WorkflowStep) error { return nil })
			seat, err := s.Do(ctx, func(ctx context.Context) ([]byte, error) {
				if acted.Add(1) == 2 {
					close(both)
				}
				<-both // none has recorded it
				return []byte(own), nil
			})
			if err == nil {
				ended.Add(1)
			}
			return seat, err
		}
	}
	a, b := newRegistry(t, w.Client, f("7")), newRegistry(t, w.newClient(t), f("8"))
	var wg sync.WaitGroup
	for _, ws := range []*client.Workflows{a, b} {
		wg.Go(func() {
			err := client.ErrOngoing
			for errors.Is(err, client.ErrOngoing) {
				err = ws.Resume(t.Context(), "f", "two", nil)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := w.Status(t.Context(), "two")
	if err != nil {
		t.Fatal(err)
	}
	if acted.Load() != 2 || ended.Load() < 1 || s.State != client.Succeeded || len(s.Branches) != 2 || string(s.Result) != string(s.Branches[0].Data) {
		t.Errorf("%d actions, %d ends, the server keeps %+v", acted.Load(), ended.Load(), s)
	}
}
