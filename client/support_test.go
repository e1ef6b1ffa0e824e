package client_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/server/dtmapi"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store/memory"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// A world is a server with its engine, and a client of it.
type world struct {
	*client.Client
	engine *engine.Engine
	server *httptest.Server
	handle http.Handler // the server's
	ahead  atomic.Int64 // how far the engine's clock is ahead, in nanoseconds

	mu        sync.Mutex
	intercept func(w http.ResponseWriter, r *http.Request, next http.Handler) // of requests to the server; may be nil
}

// newWorld starts a server with short times. key, if any, signs its calls.
func newWorld(t testing.TB, key []byte) *world {
	t.Helper()
	calls, err := outbound.New(outbound.Config{SigningKey: key})
	if err != nil {
		t.Fatal(err)
	}
	kept, w := memory.New(), new(world)
	e, err := engine.Open(t.Context(), kept, engine.Config{
		Caller: calls, PollEvery: 20 * time.Millisecond, Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
		Limits: engine.Limits{
			RetryInterval: 30 * time.Millisecond, RetryIntervalMax: 200 * time.Millisecond,
			RequestTimeout: time.Minute, // a service is late because the machine is busy: it is not called twice
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.engine, w.handle = e, dtmapi.New(dtmapi.Config{Engine: e, Store: kept})
	w.server = httptest.NewServer(w)
	t.Cleanup(func() {
		w.server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := calls.Close(); err != nil {
			t.Error(err)
		}
	})
	w.Client = w.newClient(t)
	return w
}

func (w *world) newClient(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{
		Server: w.server.URL, Token: "secret", HTTP: w.httpClient(t), RetryPause: 2 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) httpClient(t testing.TB) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	f := w.intercepted()
	if got := r.Header.Get("Authorization"); got != "Bearer secret" && f == nil { // the killed sender has none
		http.Error(rw, "the token is "+got, http.StatusUnauthorized)
		return
	}
	if f != nil {
		f(rw, r, w.handle)
		return
	}
	w.handle.ServeHTTP(rw, r)
}

func (w *world) intercepted() func(w http.ResponseWriter, r *http.Request, next http.Handler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.intercept
}

func (w *world) setIntercept(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.intercept = f
}

// later lets the time pass after which the server asks about what was not submitted.
func (w *world) later() { w.ahead.Add(int64(time.Hour)) }

// state is what the server says of a transaction.
func (w *world) state(t testing.TB, gid string) client.State {
	t.Helper()
	s, err := w.Status(t.Context(), gid)
	if err != nil {
		t.Fatal(err)
	}
	return s.State
}

// await fails unless the transaction ends, within a minute, in the state.
func (w *world) await(t testing.TB, gid string, want client.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := w.Await(ctx, gid)
	if got := w.state(t, gid); got != want {
		t.Fatalf("%s is %s (%v), want %s", gid, got, err, want)
	}
}

// A service is a participant that writes down what it is called for.
type service struct {
	*httptest.Server

	mu     sync.Mutex
	calls  []called
	answer func(call *client.Call) (any, error) // nil: success
}

type called struct {
	Path    string
	Branch  string
	Op      client.Op
	Payload string
}

func newService(t testing.TB, answer func(call *client.Call) (any, error), opts ...client.HandlerOption) *service {
	t.Helper()
	s := &service{answer: answer}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		client.Handler(func(_ context.Context, call *client.Call) (any, error) {
			if r.Header.Get("Authorization") != "" {
				t.Error("a participant was sent the server's token")
			}
			s.mu.Lock()
			s.calls = append(s.calls, called{r.URL.Path, call.Branch, call.Op, string(call.Body)})
			s.mu.Unlock()
			if s.answer == nil {
				return nil, nil
			}
			return s.answer(call)
		}, opts...).ServeHTTP(w, r)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *service) seen() []called {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]called(nil), s.calls...)
}

// paths are the paths that were called, in order.
func (s *service) paths() []string {
	var paths []string
	for _, c := range s.seen() {
		paths = append(paths, c.Path)
	}
	return paths
}
