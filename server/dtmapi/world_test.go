package dtmapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/dtmapi"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/embedded"
	"github.com/troth-tx/troth/store/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is a server with its participants, all on loopback.
type world struct {
	t            *testing.T
	store        store.Store
	engine       *engine.Engine
	handler      dtmapi.Config
	server       *httptest.Server
	participants *participants
}

// soon are limits under which what is repeated is repeated soon.
func soon() engine.Limits {
	return engine.Limits{RetryInterval: 10 * time.Millisecond, RetryIntervalMax: 20 * time.Millisecond, RequestTimeout: time.Minute}
}

// background skips a test that waits for what the engine does by itself: where a suite
// takes each step by hand, it does nothing.
func background(t *testing.T) {
	t.Helper()
	if steered {
		t.Skip("nothing happens in the background with the tag dtmtest")
	}
}

// later are limits under which nothing is repeated while a test runs.
func later() engine.Limits {
	return engine.Limits{RetryInterval: time.Hour, RequestTimeout: time.Minute}
}

func newWorld(t *testing.T, limits engine.Limits) *world {
	t.Helper()
	return newWorldOver(t, memory.New(), limits)
}

// durable returns the store that a server has by default.
func durable(t *testing.T) store.Store {
	t.Helper()
	s, err := embedded.Open(t.Context(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newWorldOver(t *testing.T, s store.Store, limits engine.Limits) *world {
	t.Helper()
	w := &world{t: t, store: s, participants: newParticipants(t)}
	caller, err := outbound.New(outbound.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.engine, err = engine.Open(t.Context(), w.store, engine.Config{Caller: caller, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.engine.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if err := caller.Close(); err != nil {
			t.Error(err)
		}
	})
	w.handler = dtmapi.Config{Engine: w.engine, Store: w.store, Version: "v0.0.0-test", Check: caller.Check}
	w.serve()
	return w
}

// serve starts a server with the handler that is configured now.
func (w *world) serve() {
	w.server = httptest.NewServer(dtmapi.New(w.handler))
	w.t.Cleanup(w.server.Close)
}

// A said is an answer of the server.
type said struct {
	status int
	body   string
}

// ask makes a request. body is nil, text that is sent as it is, or a value that is sent
// as JSON. It, must and want may be used by any goroutine.
func (w *world) ask(method, path string, body any) said {
	w.t.Helper()
	text, ok := body.(string)
	if !ok && body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			w.t.Error(err)
		}
		text = string(b)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, strings.NewReader(text))
	if err != nil {
		w.t.Error(err)
		return said{}
	}
	res, err := w.server.Client().Do(r)
	if err != nil {
		w.t.Error(err)
		return said{}
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Error(err)
		return said{}
	}
	return said{res.StatusCode, strings.TrimSpace(string(b))}
}

// post makes one of the state-changing calls.
func (w *world) post(name string, body any) said {
	w.t.Helper()
	return w.ask(http.MethodPost, "/api/dtmsvr/"+name, body)
}

// get asks for something, with pairs of names and values as the query.
func (w *world) get(name string, pairs ...string) said {
	w.t.Helper()
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return w.ask(http.MethodGet, "/api/dtmsvr/"+name+"?"+q.Encode(), nil)
}

// must marks the test as failed unless the answer is that of success.
func (w *world) must(a said) {
	w.t.Helper()
	w.want(a, 200, `{"dtm_result":"SUCCESS"}`)
}

// want marks the test as failed unless the answer is that one.
func (w *world) want(a said, status int, body string) {
	w.t.Helper()
	if a.status != status || a.body != body {
		w.t.Errorf("the answer is %d %s\nwant %d %s", a.status, brief(a.body), status, body)
	}
}

func brief(s string) string {
	if len(s) > 400 {
		return s[:400] + "..."
	}
	return s
}

// parse reads an answer.
func parse[T any](w *world, a said) (v T) {
	w.t.Helper()
	if a.status != 200 {
		w.t.Fatalf("the answer is %d %s", a.status, brief(a.body))
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		w.t.Fatalf("%v in %s", err, brief(a.body))
	}
	return v
}

// state is that of a transaction in the store.
func (w *world) state(gid string) store.State {
	w.t.Helper()
	t, err := w.store.Get(w.t.Context(), gid)
	if err != nil {
		w.t.Fatal(err)
	}
	return t.State
}

// await waits until a transaction is in a state.
func (w *world) await(gid string, want store.State) {
	w.t.Helper()
	eventually(w.t, func() error {
		if is := w.state(gid); is != want {
			return fmt.Errorf("%s is %s, want %s", gid, is, want)
		}
		return nil
	})
}

// eventually waits until there is no error.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(2 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// obj is a JSON object.
type obj = map[string]any

// saga returns a saga whose steps are participants of those names.
func (w *world) saga(gid string, names ...string) obj {
	var steps []obj
	var payloads []string
	for _, n := range names {
		steps = append(steps, obj{"action": w.participants.url(n), "compensate": w.participants.url(n)})
		payloads = append(payloads, `{"amount":30}`)
	}
	return obj{"gid": gid, "trans_type": "saga", "steps": steps, "payloads": payloads}
}

// msg returns a message to participants of those names.
func (w *world) msg(gid string, names ...string) obj {
	m := w.saga(gid, names...)
	m["trans_type"] = "msg"
	m["query_prepared"] = w.participants.url("query")
	return m
}

func with(o obj, pairs ...any) obj {
	for i := 0; i < len(pairs); i += 2 {
		o[pairs[i].(string)] = pairs[i+1]
	}
	return o
}

// prepared prepares a TCC or an XA whose branches are participants of those names.
func (w *world) prepared(pattern, gid string, names ...string) {
	w.t.Helper()
	w.must(w.post("prepare", obj{"gid": gid, "trans_type": pattern}))
	for i, n := range names {
		u := w.participants.url(n)
		w.must(w.post("registerBranch", obj{
			"gid": gid, "trans_type": pattern, "branch_id": fmt.Sprintf("%02d", i+1), "data": "{}",
			"confirm": u, "cancel": u, "url": u,
		}))
	}
}

// participants are services, told apart by their names.
type participants struct {
	server *httptest.Server

	mu      sync.Mutex
	scripts map[string][]reaction // by name and operation
	heard   []heard
}

// A reaction is what a participant answers.
type reaction struct {
	status int
	body   string
}

var (
	succeeds = reaction{200, `{"dtm_result":"SUCCESS"}`}
	refuses  = reaction{409, `{"error":"no money FAILURE"}`}
	goesOn   = reaction{425, "ONGOING"}
	breaks   = reaction{500, "out of order"}
)

// heard is one call.
type heard struct {
	name, op, gid, branch, pattern, method, body string
}

func newParticipants(t *testing.T) *participants {
	p := &participants{scripts: make(map[string][]reaction)}
	p.server = httptest.NewServer(p)
	t.Cleanup(p.server.Close)
	return p
}

func (p *participants) url(name string) string { return p.server.URL + "/" + name }

// will sets what a participant answers for an operation, one time after the other, and
// the last for ever. Without it it succeeds.
func (p *participants) will(name, op string, r ...reaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.scripts[name+" "+op] = r
}

func (p *participants) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the call was given up
	}
	q := r.URL.Query()
	h := heard{
		name: strings.TrimPrefix(r.URL.Path, "/"), op: q.Get("op"), gid: q.Get("gid"), branch: q.Get("branch_id"),
		pattern: q.Get("trans_type"), method: r.Method, body: string(body),
	}
	answer := p.react(h)
	w.WriteHeader(answer.status)
	_, _ = io.WriteString(w, answer.body)
}

func (p *participants) react(h heard) reaction {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, h)
	key := h.name + " " + h.op
	script := p.scripts[key]
	if len(script) == 0 {
		return succeeds
	}
	if len(script) > 1 {
		p.scripts[key] = script[1:]
	}
	return script[0]
}

// calls returns the calls of a participant for an operation, of one transaction or of all.
func (p *participants) calls(name, op, gid string) (calls []heard) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.heard {
		if h.name == name && h.op == op && (gid == "" || h.gid == gid) {
			calls = append(calls, h)
		}
	}
	return calls
}
