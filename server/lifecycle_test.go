package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

func TestListenOnlyWhereItIsSafe(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	tokens := withTokens(t)
	for _, c := range []struct {
		name string
		cfg  server.Config
		want string // empty: fine
	}{
		{"nothing said", server.Config{}, ""},
		{"localhost", server.Config{HTTPAddr: "localhost:1", GRPCAddr: "[::1]:1"}, ""},
		{"all addresses", server.Config{HTTPAddr: ":36789"}, "--tokens"},
		{"gRPC alone", server.Config{GRPCAddr: "0.0.0.0:36790"}, "--tokens"},
		{"a name", server.Config{HTTPAddr: "troth.test:36789"}, "--insecure"},
		{"an address", server.Config{HTTPAddr: "192.0.2.1:36789"}, "listen on 127.0.0.1"},
		{"meant", server.Config{HTTPAddr: ":36789", Insecure: true}, ""},
		{"no port", server.Config{HTTPAddr: "127.0.0.1"}, "host:port"},
		{"half a certificate", server.Config{TLS: server.TLS{CertFile: "x"}}, "both --tls-cert and --tls-key"},
		{"clients' certificates alone", server.Config{TLS: server.TLS{ClientCAFile: "x"}}, "--tls-cert"},
		{"no file", server.Config{TLS: server.TLS{CertFile: "/nowhere", KeyFile: "/nowhere"}}, "no such file"},
	} {
		c.cfg.Engine, c.cfg.Store = w.engine, w.store
		_, err := server.New(c.cfg)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	cfg := server.Config{Engine: w.engine, Store: w.store, HTTPAddr: ":0"}
	tokens(&cfg, nil)
	if _, err := server.New(cfg); err != nil {
		t.Errorf("with tokens: %v", err)
	}
	taken, err := server.New(server.Config{Engine: w.engine, Store: w.store, HTTPAddr: strings.TrimPrefix(w.base, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	if err := taken.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("an address that is in use: %v", err)
	}
}

// gated answers when it is told to.
type gated struct {
	asked  chan struct{}
	answer chan struct{}
	once   sync.Once
}

func (g *gated) Call(ctx context.Context, _ engine.Call) (engine.Answer, string) {
	g.once.Do(func() { close(g.asked) })
	select {
	case <-g.answer:
		return engine.Success, ""
	case <-ctx.Done():
		return engine.Unknown, "too late"
	}
}

// A request that waits for its result is answered before the server ends; meanwhile
// balancers are told to send no more.
func TestShutdownFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	g := &gated{asked: make(chan struct{}), answer: make(chan struct{})}
	w := start(t, func(c *server.Config, e *engine.Config) {
		e.Caller, e.Limits.RequestTimeout = g, 5*time.Minute
		c.DrainDelay = 5 * time.Second // in which it is asked twice
	})
	type result struct {
		code int
		text string
	}
	answered := make(chan result, 1)
	go func() {
		code, text := w.do(t, "POST", "/api/dtmsvr/submit", strings.Replace(fmt.Sprintf(sagaBody, "slow"), `"gid"`, `"wait_result":true,"gid"`, 1))
		answered <- result{code, text}
	}()
	<-g.asked
	down := make(chan error, 1)
	go func() { down <- w.Shutdown(t.Context()) }()
	until(t, func() bool {
		code, _ := w.do(t, "GET", "/readyz", "")
		return code == http.StatusServiceUnavailable
	})
	if code, _ := w.do(t, "GET", "/healthz", ""); code != http.StatusOK {
		t.Errorf("healthz: %d while it drains", code)
	}
	until(t, func() bool { // nobody is let in any more
		r, err := http.NewRequestWithContext(t.Context(), "GET", w.base+"/healthz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := (&http.Client{Transport: transport(t)}).Do(r)
		if err == nil {
			_ = res.Body.Close()
		}
		return err != nil
	})
	select {
	case err := <-down:
		t.Fatalf("it ended before the request: %v", err)
	default:
	}
	close(g.answer)
	if r := <-answered; r.code != http.StatusOK {
		t.Errorf("the request under way: %d %s", r.code, r.text)
	}
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := w.store.Get(t.Context(), "slow"); !errors.Is(err, store.ErrClosed) {
		t.Errorf("the store is open: %v", err)
	}
}

// closing remembers what was in the store when it was closed.
type closing struct {
	store.Store
	last map[string]store.State
}

func (c *closing) Close(ctx context.Context) error {
	page, _, err := c.List(ctx, store.Filter{Limit: store.ListLimitMax})
	if err != nil {
		return err
	}
	for _, t := range page {
		c.last[t.GID] = t.State
	}
	return c.Store.Close(ctx)
}

// Everything that was confirmed while the server was told to end is in the store.
func TestShutdownLosesNothing(t *testing.T) {
	t.Parallel()
	kept := &closing{Store: memory.New(), last: make(map[string]store.State)}
	w := start(t, func(c *server.Config, _ *engine.Config) { c.Store = kept })
	var (
		mu        sync.Mutex
		confirmed []string
		wg        sync.WaitGroup
		enough    = make(chan struct{})
		once      sync.Once
	)
	for i := range 8 {
		wg.Go(func() {
			client := &http.Client{Transport: transport(t)}
			for n := 0; ; n++ {
				gid := fmt.Sprintf("s-%d-%d", i, n)
				res, err := client.Post(w.base+"/api/dtmsvr/submit", "application/json", strings.NewReader(fmt.Sprintf(sagaBody, gid)))
				if err != nil {
					return // the server is gone
				}
				_ = res.Body.Close()
				if res.StatusCode != http.StatusOK {
					continue
				}
				mu.Lock()
				if confirmed = append(confirmed, gid); len(confirmed) > 200 {
					once.Do(func() { close(enough) })
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	if err := w.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, gid := range confirmed {
		if s := kept.last[gid]; s != store.Submitted {
			t.Errorf("%s was confirmed and is %v", gid, s)
		}
	}
}

// down is a store that does not answer.
type down struct{ store.Store }

func (down) Ready(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestNotReadyWithoutTheStore(t *testing.T) {
	t.Parallel()
	w := start(t, func(c *server.Config, _ *engine.Config) { c.Store = down{memory.New()} })
	if code, text := w.do(t, "GET", "/readyz", ""); code != http.StatusServiceUnavailable || !strings.Contains(text, "store") {
		t.Errorf("readyz: %d %s", code, text)
	}
	if code, _ := w.do(t, "GET", "/healthz", ""); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := memory.New()
	for i := range 1200 {
		tx := store.Transaction{GID: fmt.Sprintf("old-%d", i), Pattern: store.TCC, State: store.Failed, Created: now.Add(-49 * time.Hour), Finished: now.Add(-48 * time.Hour)}
		if err := s.Create(t.Context(), &tx); err != nil {
			t.Fatal(err)
		}
	}
	for _, tx := range []store.Transaction{
		{GID: "young", State: store.Succeeded, Finished: now.Add(-time.Hour)},
		{GID: "open", State: store.Submitted, Due: now.Add(time.Hour)},
	} {
		tx.Pattern, tx.Created = store.TCC, now.Add(-50*time.Hour)
		if err := s.Create(t.Context(), &tx); err != nil {
			t.Fatal(err)
		}
	}
	w := start(t, func(c *server.Config, _ *engine.Config) { c.Store, c.Retention = s, 24*time.Hour })
	until(t, func() bool {
		page, _, err := s.List(t.Context(), store.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		return len(page) == 2
	})
	for _, gid := range []string{"young", "open"} {
		if _, err := s.Get(t.Context(), gid); err != nil {
			t.Errorf("%s: %v", gid, err)
		}
	}
	if _, text := w.do(t, "GET", "/api/metrics", ""); !strings.Contains(text, "troth_transactions_purged_total 1200") {
		t.Error("the metrics do not tell of 1200 purged transactions")
	}
}

func until(t testing.TB, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}
