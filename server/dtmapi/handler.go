// Package dtmapi speaks dtm's HTTP protocol, so that dtm's clients are clients of troth.
// It only translates: what happens is decided by package engine. docs/dtm.md lists the
// endpoints, and where the answers differ on purpose.
package dtmapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store"
)

// Config is what a handler works with. Engine and Store are required.
type Config struct {
	Engine *engine.Engine
	Store  store.Store // the engine's: for lists, topics and the audit

	// Check reports why the URL of a participant is refused, before anything is stored.
	// Nil refuses none.
	Check func(url string) error

	// Version is what the endpoint of that name answers.
	Version string

	// BodyMax is how many bytes the body of a request may have. More are answered with
	// 413. Defaults to 8 MiB.
	BodyMax int64

	// TimeoutToFail is the engine's. Defaults to 35 seconds.
	TimeoutToFail time.Duration

	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

// handler serves the endpoints.
type handler struct {
	Config
	lists chan struct{} // a place for each list that is being made
}

// New returns a handler of dtm's HTTP endpoints: all under /api/dtmsvr/, /api/json-rpc
// and /api/ping. Who may reach it, and as which principal ([engine.As]), is decided
// before it.
func New(c Config) http.Handler {
	if c.BodyMax == 0 {
		c.BodyMax = 8 << 20
	}
	if c.TimeoutToFail == 0 {
		c.TimeoutToFail = 35 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	h := &handler{Config: c, lists: make(chan struct{}, listsMax)}
	mux := http.NewServeMux()
	for name, c := range map[string]change{
		"prepare":           h.prepare,
		"submit":            h.submit,
		"abort":             h.abort,
		"forceStop":         h.forceStop,
		"resetNextCronTime": h.resetNextCronTime,
		"registerBranch":    h.registerBranch,
		"registerTccBranch": h.registerBranch, // so called by clients for Node and PHP
		"registerXaBranch":  h.registerBranch,
	} {
		mux.HandleFunc("POST "+prefix+name, h.changing(c))
	}
	mux.HandleFunc("POST "+prefix+"prepareWorkflow", h.prepareWorkflow)
	for name, v := range map[string]view{
		"version":       h.version,
		"newGid":        h.newGID,
		"query":         h.query,
		"all":           h.all,
		"resetCronTime": h.resetCronTime,
		"scanKV":        h.scanKV,
		"queryKV":       h.queryKV,
	} {
		mux.HandleFunc("GET "+prefix+name, showing(v))
	}
	mux.HandleFunc("GET "+prefix+"subscribe", h.subscribe)
	mux.HandleFunc("GET "+prefix+"unsubscribe", h.unsubscribe)
	mux.HandleFunc("DELETE "+prefix+"topic/{name}", h.deleteTopic)
	mux.HandleFunc("POST /api/json-rpc", h.jsonRPC)
	mux.HandleFunc("/api/ping", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]string{"msg": "pong"})
	})
	steer(mux, h)
	return mux
}

const prefix = "/api/dtmsvr/"

// A change is a request that changes something. Its answer has no content.
type change func(ctx context.Context, body []byte) error

func (h *handler) changing(c change) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, done, err := h.body(w, r)
		if err == nil {
			err = c(r.Context(), body)
			done()
		}
		write(w, err)
	}
}

// A view is a request that shows something.
type view func(r *http.Request) (any, error)

func showing(v view) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		shown, err := v(r)
		if err != nil {
			writeError(w, err)
			return
		}
		reply(w, http.StatusOK, shown)
	}
}

// Bodies up to this are read into memory that is used again.
const pooledMax = 64 << 10

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// body reads the body of a request, which is the caller's until it calls done.
func (h *handler) body(w http.ResponseWriter, r *http.Request) (body []byte, done func(), err error) {
	b := buffers.Get().(*bytes.Buffer)
	done = func() {
		if b.Cap() <= pooledMax {
			b.Reset()
			buffers.Put(b)
		}
	}
	if _, err := io.Copy(b, http.MaxBytesReader(w, r.Body, h.BodyMax)); err != nil {
		done()
		return nil, nil, err
	}
	return b.Bytes(), done, nil
}

func (h *handler) prepare(ctx context.Context, body []byte) error {
	t, err := decode(body)
	if err != nil {
		return malformed{err}
	}
	r, err := h.request(t)
	if err != nil {
		return malformed{err}
	}
	return in(h.Engine.Prepare(ctx, r), t.GID, cannotPrepare)
}

// submit goes forth. Of a workflow it tells the end: the same end again is no error, for
// a caller that did not hear the answer asks again; another is refused.
func (h *handler) submit(ctx context.Context, body []byte) error {
	t, err := decode(body)
	if err != nil {
		return malformed{err}
	}
	if t.TransType == "workflow" {
		return h.endWorkflow(ctx, t)
	}
	r, err := h.request(t)
	if err != nil {
		return malformed{err}
	}
	return in(h.Engine.Submit(ctx, r), t.GID, cannotSubmit)
}

func (h *handler) abort(ctx context.Context, body []byte) error {
	t, err := decode(body)
	if err != nil {
		return malformed{err}
	}
	return in(h.Engine.Abort(ctx, t.GID, t.RollbackReason, t.WaitResult), t.GID, cannotAbort)
}

func (h *handler) registerBranch(ctx context.Context, body []byte) error {
	r, err := decodeRegistration(body)
	if err != nil {
		return malformed{err}
	}
	branches, err := r.branches()
	if err != nil {
		return malformed{err}
	}
	for i := range branches {
		if err := h.check(branches[i].URL); err != nil {
			return malformed{err}
		}
	}
	err = h.Engine.Register(ctx, r.GID, branches...)
	if errors.Is(err, engine.ErrNotFound) {
		return noneToRegister(r.GID)
	}
	return in(err, r.GID, cannotRegister)
}

// request turns what a client sent into what the engine understands, if all that it wants
// called may be called.
func (h *handler) request(t *transaction) (engine.Request, error) {
	r, err := t.request()
	if err != nil {
		return r, err
	}
	if err := outbound.CheckHeaders(r.Options.Headers); err != nil {
		return r, err
	}
	if err := h.check(r.QueryPrepared); err != nil {
		return r, fmt.Errorf("query_prepared: %w", err)
	}
	for i := range r.Steps {
		if err := h.check(r.Steps[i].Action); err != nil {
			return r, fmt.Errorf("step %d: %w", i+1, err)
		}
		if err := h.check(r.Steps[i].Compensate); err != nil {
			return r, fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return r, nil
}

func (h *handler) check(url string) error {
	if h.Check == nil {
		return nil
	}
	return h.Check(url)
}
