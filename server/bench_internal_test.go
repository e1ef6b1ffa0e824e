package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store/memory"
)

type nobody struct{}

func (nobody) Call(context.Context, engine.Call) (engine.Answer, string) { return engine.Unknown, "" }

// BenchmarkRoute is what the guard and the counting cost a request, beside the one that
// passes by them.
func BenchmarkRoute(b *testing.B) {
	s := memory.New()
	e, err := engine.Open(b.Context(), s, engine.Config{Caller: nobody{}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = e.Close(context.Background()) }() // nothing is under way
	srv, err := New(Config{Engine: e, Store: s})
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{"/healthz", "/api/ping", "/api/dtmsvr/version"} {
		b.Run(path, func(b *testing.B) {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, path, http.NoBody)
			r.Host, r.RemoteAddr = "127.0.0.1:36789", "127.0.0.1:1234"
			b.ReportAllocs()
			for b.Loop() {
				srv.http.Handler.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}
