package server_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/metrics"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store"
)

func TestAlerts(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var bodies []string
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost {
			t.Errorf("%s %v", r.Method, err)
		}
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, string(body))
	}))
	defer hook.Close()
	caller, err := outbound.New(outbound.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = caller.Close() }() // it has nothing under way
	a := server.NewAlerts(server.AlertConfig{URL: hook.URL, Caller: caller, Logger: slog.New(slog.DiscardHandler), Meter: metrics.NewServer()})
	for attempts := range 5 {
		a.Missed(engine.Miss{GID: "g", Pattern: store.Saga, State: store.Aborting, Branch: "02", Op: store.Compensate, Error: "said \"no\"", Attempts: attempts})
	}
	a.Close()
	want := []string{
		`{"gid":"g","status":"aborting","branch":"02","error":"said \"no\"","retry_count":3}`,
		`{"gid":"g","status":"aborting","branch":"02","error":"said \"no\"","retry_count":4}`,
	}
	if len(bodies) != 2 || bodies[0] != want[0] || bodies[1] != want[1] {
		t.Errorf("%q, want %q", bodies, want)
	}
}

// A hook that hangs holds nobody up.
func TestAlertsDoNotWait(t *testing.T) {
	t.Parallel()
	hung := hanging{make(chan struct{})}
	a := server.NewAlerts(server.AlertConfig{URL: "http://x/", Caller: hung, Logger: slog.New(slog.DiscardHandler), Meter: metrics.NewServer()})
	for range 10_000 {
		a.Missed(engine.Miss{GID: "g", Attempts: 3})
	}
	close(hung.end)
	a.Close()
}

type hanging struct{ end chan struct{} }

func (h hanging) Call(context.Context, engine.Call) (engine.Answer, string) {
	<-h.end
	return engine.Unknown, "it hung"
}
