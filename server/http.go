package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth/metrics"
	"github.com/troth-tx/troth/server/api"
	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/store"
)

func (s *Server) newHTTP() *http.Server {
	h := &http.Server{
		Handler:           s.watch(s.routes()),
		MaxHeaderBytes:    s.limits.HeaderMax,
		ReadHeaderTimeout: s.limits.HeaderTimeout,
		ReadTimeout:       s.limits.ReadTimeout,
		WriteTimeout:      s.limits.AnswerTimeout,
		IdleTimeout:       s.limits.IdleTimeout,
		ErrorLog:          slog.NewLogLogger(debugOnly{s.log.Handler()}, slog.LevelDebug), // clients that hang up or speak no TLS
	}
	if s.certs != nil {
		h.TLSConfig = s.certs.outer("h2", "http/1.1")
	}
	return h
}

// debugOnly shows what net/http logs to those who ask for it.
type debugOnly struct{ slog.Handler }

// Enabled implements slog.Handler.
func (d debugOnly) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.Handler.Enabled(ctx, slog.LevelDebug)
}

// A mount is a tree of routes that the guard stands before.
type mount struct {
	pattern string
	needs   func(*http.Request) auth.Role
	handler http.Handler
}

// routes are all routes of the HTTP port. Those that tell whether the server lives are
// open to everybody, all others pass the guard (S3).
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	v1 := api.New(api.Config{Engine: s.cfg.Engine, Store: s.cfg.Store, Logger: s.log, InDoubt: s.cfg.InDoubt, Check: s.cfg.Check, Now: s.cfg.Now})
	mounts := []mount{
		{"/api/v1/", v1.Role, v1},
		{"GET /api/metrics", always(auth.Operator), s.meter.Handler()},
	}
	for _, m := range append(mounts, s.dtmMounts()...) {
		mux.Handle(m.pattern, s.protect(m))
	}
	return mux
}

func always(r auth.Role) func(*http.Request) auth.Role {
	return func(*http.Request) auth.Role { return r }
}

// healthz tells that the process lives.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") }

// readyz tells whether requests are welcome: the store takes changes, and nobody has
// asked the server to end.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		say(w, http.StatusServiceUnavailable, "draining")
		return
	}
	if err := s.ready.ask(r.Context(), s.cfg.Store, s.cfg.Now); err != nil {
		s.log.WarnContext(r.Context(), "not ready: the store takes no changes", "err", err)
		say(w, http.StatusServiceUnavailable, "the store takes no changes")
		return
	}
	say(w, http.StatusOK, "ready")
}

const (
	readyTimeout = 2 * time.Second
	readyFor     = 250 * time.Millisecond
)

// readiness asks the store whether it takes changes, for everybody: anybody may ask, as often
// as they like, and the store is asked a few times a second.
type readiness struct {
	mu    sync.Mutex // held while the store answers
	asked time.Time
	err   error
}

func (y *readiness) ask(ctx context.Context, s store.Store, now func() time.Time) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	if !y.asked.IsZero() && now().Sub(y.asked) < readyFor {
		return y.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout) // the answer is for others too
	defer cancel()
	y.err = s.Ready(ctx)
	y.asked = now()
	return y.err
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // the client is gone
}

// protect lets in whom the guard admits, as the caller that it found.
func (s *Server) protect(m mount) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.foreignPage(r); err != nil {
			s.meter.Refused(metrics.LackOfRole)
			refuse(w, r, http.StatusForbidden, "forbidden", err.Error())
			return
		}
		if r.ContentLength > s.limits.BodyMax {
			s.meter.Refused(metrics.TooLarge)
			refuse(w, r, http.StatusRequestEntityTooLarge, "too_large", errSize.message)
			return
		}
		ctx, leave, err := s.guard.admit(r.Context(), visitor{
			header: r.Header.Get("Authorization"), state: r.TLS, from: hostOf(r.RemoteAddr), needs: m.needs(r), makes: makesHTTP(r),
		})
		if err != nil {
			s.refused(w, r, err)
			return
		}
		defer leave()
		r.Body = http.MaxBytesReader(w, r.Body, s.limits.BodyMax)
		inner := r.WithContext(ctx)
		m.handler.ServeHTTP(w, inner)
		r.Pattern = inner.Pattern // what it matched in the end
	})
}

var (
	crossOrigin = http.NewCrossOriginProtection() // nobody changes it

	errForeignPage = errors.New("a web page of another site may not ask this server")
	errForeignName = errors.New("this server listens on this machine only and takes no requests by that name: ask 127.0.0.1 or localhost")
)

// foreignPage refuses what a browser sends for a web page of another site, which needs
// no credentials to reach a server on its own machine: neither directly nor by a name
// that has come to point here (DNS rebinding).
func (s *Server) foreignPage(r *http.Request) error {
	if err := crossOrigin.Check(r); err != nil {
		return errForeignPage
	}
	if !s.guard.open {
		return nil
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		return errForeignPage
	}
	host := hostOf(r.Host)
	if loopback(s.cfg.HTTPAddr) && net.ParseIP(strings.Trim(host, "[]")) == nil && !strings.EqualFold(host, "localhost") {
		return errForeignName
	}
	return nil
}

func (s *Server) refused(w http.ResponseWriter, r *http.Request, err error) {
	var why *refusal
	if !errors.As(err, &why) {
		refuse(w, r, http.StatusInternalServerError, "internal", "internal error")
		return
	}
	switch why.why {
	case metrics.BadCredentials:
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(w, r, http.StatusUnauthorized, "unauthenticated", why.message)
	case metrics.LackOfRole:
		refuse(w, r, http.StatusForbidden, "forbidden", why.message)
	case metrics.TooFast, metrics.TooManyOpen:
		w.Header().Set("Retry-After", "1")
		refuse(w, r, http.StatusTooManyRequests, "too_many", why.message)
	case metrics.TooBusy:
		w.Header().Set("Retry-After", "1")
		refuse(w, r, http.StatusServiceUnavailable, "busy", why.message)
	case metrics.TooLarge:
		refuse(w, r, http.StatusRequestEntityTooLarge, "too_large", why.message)
	}
}

// refuse answers in the words of the API that was asked. dtm's clients take a JSON
// object for a transaction on some routes, whatever the status: they get text.
func refuse(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	if !strings.HasPrefix(r.URL.Path, "/api/v1/") {
		say(w, status, message)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Problem{Code: code, Message: message}) // the client is gone
}

// watch counts requests and outlives their panics.
func (s *Server) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.cfg.Now()
		seen := &witness{ResponseWriter: w, code: http.StatusOK}
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				s.log.ErrorContext(r.Context(), "request panicked", "route", r.Pattern, "err", p, "stack", string(debug.Stack()))
				if !seen.wrote {
					refuse(seen, r, http.StatusInternalServerError, "internal", "internal error")
				}
			}
			route := r.Pattern
			if route == "" {
				route = "none"
			}
			s.meter.HTTP(route, seen.code, s.cfg.Now().Sub(start))
		}()
		next.ServeHTTP(seen, r)
	})
}

// A witness remembers what was answered.
type witness struct {
	http.ResponseWriter
	code  int
	wrote bool
}

// WriteHeader implements http.ResponseWriter.
func (s *witness) WriteHeader(code int) {
	if !s.wrote {
		s.code, s.wrote = code, true
	}
	s.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (s *witness) Write(b []byte) (int, error) {
	s.wrote = true
	return s.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (s *witness) Unwrap() http.ResponseWriter { return s.ResponseWriter }
