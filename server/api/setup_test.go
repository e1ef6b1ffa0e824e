package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/api"
	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type silent struct{}

func (silent) Call(context.Context, engine.Call) (engine.Answer, string) {
	return engine.Unknown, "nobody answers"
}

// noted is a store that remembers in which order operators' actions are written down
// and done.
type noted struct {
	store.Store
	auditErr error
}

func (n *noted) Record(ctx context.Context, e store.AuditEntry) error {
	if n.auditErr != nil {
		return n.auditErr
	}
	return n.Store.Record(ctx, e)
}

// bundle is an API over a store in memory. Requests are an admin's unless by says
// otherwise.
type bundle struct {
	*api.Handler
	store    *noted
	engine   *engine.Engine
	contract *contract
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{store: &noted{Store: memory.New()}}
	var err error
	if b.engine, err = engine.Open(t.Context(), b.store, engine.Config{Caller: silent{}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	b.Handler = api.New(api.Config{Engine: b.engine, Store: b.store, InDoubt: func(context.Context) (api.InDoubt, error) {
		return api.InDoubt{
			Branches:    []api.InDoubtBranch{{Resource: "athos", Ours: true, Transaction: "t", Domain: "bank", Name: "x", Age: 1.5, Decision: "commit", Verdict: "v", Blocked: 1}},
			Unreachable: []api.Unreachable{{Resource: "porthos", Error: "gone"}},
		}, nil
	}})
	text := b.call(t, admin, "GET", "/api/v1/openapi.json", "").Body.Bytes()
	once.Do(func() { parsed = newContract(t, text) }) // it takes longer than many a test
	b.contract = &contract{doc: parsed.doc, router: parsed.router, answered: make(map[string]bool)}
	return b
}

var (
	once   sync.Once
	parsed *contract
)

var (
	admin    = auth.Caller{Name: "ada", Role: auth.Admin, From: "192.0.2.1"}
	operator = auth.Caller{Name: "oscar", Role: auth.Operator}
	alice    = auth.Caller{Name: "alice", Role: auth.Client}
	bob      = auth.Caller{Name: "bob", Role: auth.Client}
)

// call makes a request, and holds its answer against the OpenAPI document.
func (b *bundle) call(t *testing.T, by auth.Caller, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(auth.As(t.Context(), by), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	if b.contract != nil {
		b.contract.check(t, r, body, w)
	}
	return w
}

// want makes a request by an admin, wants a status, and decodes the answer.
func want[T any](t *testing.T, b *bundle, status int, method, path, body string) (v T) {
	t.Helper()
	w := b.call(t, admin, method, path, body)
	if w.Code != status {
		t.Fatalf("%s %s: %d, want %d: %s", method, path, w.Code, status, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, w.Body)
	}
	return v
}

// put stores a transaction as it is given.
func (b *bundle) put(t *testing.T, tx store.Transaction) {
	t.Helper()
	if tx.Created.IsZero() {
		tx.Created = time.Now()
	}
	if tx.Updated.IsZero() {
		tx.Updated = tx.Created
	}
	if err := b.store.Create(t.Context(), &tx); err != nil {
		t.Fatal(err)
	}
}

var errStore = errors.New("the disk is full")

const notFound, conflict, badRequest, unavailable = http.StatusNotFound, http.StatusConflict, http.StatusBadRequest, http.StatusServiceUnavailable
