package dtmapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/dtmapi"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// forgetful keeps nothing for long, so that a benchmark measures no growth.
type forgetful struct{ store.Store }

func (f forgetful) Create(ctx context.Context, t *store.Transaction) error {
	err := f.Store.Create(ctx, t)
	if t.State.Over() {
		_, _ = f.Purge(ctx, t.Finished.Add(1), 1)
	}
	return err
}

// discard is a ResponseWriter that keeps the status only.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// BenchmarkSubmit is a saga of two steps that call nobody, without network and disk: the
// cost of the protocol and the engine alone.
func BenchmarkSubmit(b *testing.B) {
	s := forgetful{memory.New()}
	e, err := engine.Open(b.Context(), s, engine.Config{Funcs: nobody})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = e.Close(context.WithoutCancel(b.Context())) }()
	h := dtmapi.New(dtmapi.Config{Engine: e, Store: s})
	const rest = `","trans_type":"saga","wait_result":true,"steps":[{"action":"","compensate":""},{"action":"","compensate":""}],` +
		`"payloads":["{\"amount\":30}","{\"amount\":30}"],"protocol":"http","concurrent":false}`
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := &discard{header: make(http.Header)}
		for pb.Next() {
			body := strings.NewReader(`{"gid":"` + strconv.FormatInt(n.Add(1), 10) + rest)
			w.status = 200
			h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/dtmsvr/submit", body))
			if w.status != 200 {
				b.Errorf("status %d", w.status)
				return
			}
		}
	})
}
