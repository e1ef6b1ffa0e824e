package server_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/metrics"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

func TestMain(m *testing.M) {
	if addresses := os.Getenv("TROTH_FLOOD_CHILD"); addresses != "" {
		floodChild(addresses)
		return
	}
	goleak.VerifyTestMain(m)
}

// Tokens of the principals in the file that tokenFile writes. Each is a planted secret:
// none may be in a log.
const (
	aliceToken    = "planted-alice-0123456789"
	bobToken      = "planted-bob-0123456789ab"
	expiredToken  = "planted-expired-01234567"
	operatorToken = "planted-operator-0123456"
	adminToken    = "planted-admin-0123456789"
)

func tokenFile(t testing.TB) string {
	t.Helper()
	var text strings.Builder
	for _, p := range []struct {
		name, token string
		role        auth.Role
		until       time.Time
	}{
		{"alice", aliceToken, auth.Client, time.Now().Add(time.Hour)},
		{"bob", bobToken, auth.Client, time.Time{}},
		{"alice", expiredToken, auth.Client, time.Now().Add(-time.Hour)},
		{"oscar", operatorToken, auth.Operator, time.Time{}},
		{"ada", adminToken, auth.Admin, time.Time{}},
	} {
		text.WriteString(auth.Line(p.name, p.role, p.token, p.until) + "\n")
	}
	text.WriteString("ops.test admin certificate\n")
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// silent is a caller that never gets an answer, so that transactions stay open.
type silent struct{}

func (silent) Call(context.Context, engine.Call) (engine.Answer, string) {
	return engine.Unknown, "nobody answers"
}

// world is a server with all that it is made of.
type world struct {
	*server.Server
	store  store.Store
	engine *engine.Engine
	meter  *metrics.Server
	log    *lockedBuffer
	base   string // of HTTP: http://127.0.0.1:port
	grpc   string // 127.0.0.1:port
}

// start runs a server on free ports until the test ends.
func start(t testing.TB, change func(*server.Config, *engine.Config)) *world {
	t.Helper()
	w := &world{store: memory.New(), meter: metrics.NewServer(), log: new(lockedBuffer)}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := server.Config{Logger: log, Store: w.store, Meter: w.meter, HTTPAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0"}
	of := engine.Config{Caller: silent{}, Logger: log, Observer: w.meter.Observer()}
	if change != nil {
		change(&cfg, &of)
	}
	w.store = cfg.Store
	var err error
	if w.engine, err = engine.Open(t.Context(), w.store, of); err != nil {
		t.Fatal(err)
	}
	cfg.Engine = w.engine
	if w.Server, err = server.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	onHTTP, onGRPC := w.Addrs()
	w.base, w.grpc = "http://"+onHTTP.String(), onGRPC.String()
	return w
}

func withTokens(t testing.TB) func(*server.Config, *engine.Config) {
	t.Helper()
	path := tokenFile(t)
	return func(c *server.Config, _ *engine.Config) {
		var err error
		if c.Tokens, err = auth.Open(path, c.Logger); err != nil {
			t.Fatal(err)
		}
	}
}

// do sends a request and returns the status and the body. header is alternately names
// and values.
func (w *world) do(t testing.TB, method, path, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	res, err := (&http.Client{Transport: transport(t)}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }() // it was read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// transport keeps no connection, so that goleak finds none.
func transport(testing.TB) *http.Transport { return &http.Transport{DisableKeepAlives: true} }

func bearer(token string) []string {
	if token == "" {
		return nil
	}
	return []string{"Authorization", "Bearer " + token}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

const sagaBody = `{"gid":"%s","trans_type":"saga","steps":[{"action":"http://127.0.0.1:1/a","compensate":"http://127.0.0.1:1/b"}],"payloads":["{}"]}`
