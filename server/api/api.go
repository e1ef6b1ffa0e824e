// Package api is the server's own HTTP API, under /api/v1/: what operators and the
// console ask. One table of routes is the handler and the OpenAPI document that
// describes it, which is served at /api/v1/openapi.json.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/store"
)

// Base is the path that all routes begin with.
const Base = "/api/v1"

// Config is what the API needs. Engine and Store are required.
type Config struct {
	Engine  *engine.Engine
	Store   store.Store
	Logger  *slog.Logger // nil: silent
	InDoubt InDoubtFunc  // nil: no databases are configured

	// Check reports why a subscriber's address would not be called. nil refuses none.
	Check func(url string) error

	Now func() time.Time
}

// An InDoubtFunc lists the branches of two-phase commit that are in doubt.
type InDoubtFunc func(ctx context.Context) (InDoubt, error)

// A Handler serves the API. Who asks is in the request's context, see [auth.As]; without
// one nothing is allowed.
type Handler struct {
	cfg      Config
	mux      *http.ServeMux
	routes   map[string]*route // by pattern
	document []byte
	lists    chan struct{} // a place for each list that is being made
}

// New returns the handler of all that is under Base.
func New(cfg Config) *Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	h := &Handler{cfg: cfg, mux: http.NewServeMux(), routes: make(map[string]*route), lists: make(chan struct{}, listsMax)}
	table := h.table()
	h.document = document(table)
	for i := range table {
		r := &table[i]
		pattern := r.method + " " + Base + r.path
		h.routes[pattern] = r
		h.mux.Handle(pattern, h.handle(r))
	}
	return h
}

// Role is the role that a request needs. A path that is not there needs a client's, as
// it tells nothing.
func (h *Handler) Role(r *http.Request) auth.Role {
	_, pattern := h.mux.Handler(r)
	if found := h.routes[pattern]; found != nil {
		return found.role
	}
	return auth.Client
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, pattern := h.mux.Handler(r); pattern == "" {
		write(w, http.StatusNotFound, Problem{"not_found", "there is no such route: see " + Base + "/openapi.json"})
		return
	}
	h.mux.ServeHTTP(w, r)
}

// A route is one row of the table.
type route struct {
	method, path string
	role         auth.Role
	summary      string
	params       []param
	body         any // a zero value of what the request has; nil: nothing
	reply        any // a zero value of the answer with status 200
	errors       []int
	serve        func(*http.Request, io.Reader) (any, error)
}

// A param is a parameter of the path or the query.
type param struct {
	name, in, text string
	enum           []string
	format         string // "integer", "date-time", "boolean"; empty: text
	repeated       bool
}

// handle calls a route's function and writes what it returns.
func (h *Handler) handle(r *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !auth.From(req.Context()).May(r.role) {
			write(w, http.StatusForbidden, Problem{"forbidden", "your role does not allow this"})
			return
		}
		if err := r.known(req); err != nil {
			h.fail(w, req, err)
			return
		}
		reply, err := r.serve(req, req.Body)
		if err != nil {
			h.fail(w, req, err)
			return
		}
		write(w, http.StatusOK, reply)
	})
}

// known refuses parameters that the route does not have (S14): a filter that was
// mistyped must not select everything.
func (r *route) known(req *http.Request) error {
	query := req.URL.Query()
	for name, values := range query {
		var p *param
		for i := range r.params {
			if r.params[i].in == "query" && r.params[i].name == name {
				p = &r.params[i]
			}
		}
		switch {
		case p == nil:
			return invalid("the query has the unknown parameter %q", name)
		case len(values) > 1 && !p.repeated:
			return invalid("the parameter %s occurs twice", name)
		}
	}
	return nil
}

// A Problem is the body of every answer that is not 200.
type Problem struct {
	Code    string `json:"code" doc:"what programs look at" enum:"invalid,unauthenticated,forbidden,not_found,conflict,exists,too_many,too_large,busy,unavailable,internal"`
	Message string `json:"message" doc:"for people"`
}

// An invalidError is a mistake in the request.
type invalidError struct{ text string }

func (e *invalidError) Error() string { return e.text }

func invalid(format string, args ...any) error {
	return &invalidError{fmt.Sprintf(format, args...)}
}

// fail answers with an error. What clients cannot help is logged, and not told.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	var (
		mistake *invalidError
		state   *engine.StateError
		large   *http.MaxBytesError
	)
	switch {
	case errors.As(err, &large):
		write(w, http.StatusRequestEntityTooLarge, Problem{"too_large", fmt.Sprintf("the body has more than %d bytes", large.Limit)})
	case errors.As(err, &mistake):
		write(w, http.StatusBadRequest, Problem{"invalid", mistake.text})
	case errors.As(err, &state):
		write(w, http.StatusConflict, Problem{"conflict", fmt.Sprintf("it cannot be done: %s is %s", state.GID, state.State)})
	case errors.Is(err, engine.ErrNotFound), errors.Is(err, store.ErrNotFound):
		write(w, http.StatusNotFound, Problem{"not_found", "there is no such thing, or it was purged"})
	case errors.Is(err, store.ErrExists):
		write(w, http.StatusConflict, Problem{"exists", "it is there already"})
	case errors.Is(err, store.ErrCursor):
		write(w, http.StatusBadRequest, Problem{"invalid", "cursor: use the next_cursor of the page before, with the same filter"})
	case errors.Is(err, store.ErrConflict):
		write(w, http.StatusConflict, Problem{"conflict", "it has changed meanwhile: try again"})
	default:
		h.cfg.Logger.WarnContext(r.Context(), "request failed", "route", r.Pattern, "err", err)
		write(w, http.StatusServiceUnavailable, Problem{"unavailable", "the store did not answer: the change may have been made; ask, then try again"})
	}
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body) // the client is gone
}

// read decodes a body into one fixed struct (S14).
func read[T any](body io.Reader) (v T, err error) {
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return v, err
		}
		return v, invalid("the body cannot be read: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return v, invalid("the body goes on after its end")
	}
	return v, nil
}
