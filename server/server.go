// Package server is the process around the engine: it listens, finds out who asks,
// limits what anybody may ask for, and drains. What requests mean is in the packages
// below it, which only translate for package engine.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/metrics"
	"github.com/troth-tx/troth/server/api"
	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/store"
)

// The addresses of a server that is not told others: dtm's ports, for this machine only.
const (
	HTTPAddrDefault = "127.0.0.1:36789"
	GRPCAddrDefault = "127.0.0.1:36790"
)

// Config is what a server is made of. Engine and Store are required, and the server's
// from New on: Shutdown closes both.
type Config struct {
	Engine *engine.Engine
	Store  store.Store
	Logger *slog.Logger    // nil: silent
	Meter  *metrics.Server // nil: one of its own

	HTTPAddr string // defaults to HTTPAddrDefault
	GRPCAddr string // defaults to GRPCAddrDefault

	// Tokens know the principals. Without them, and without client certificates,
	// everybody who can reach the server may do everything: New refuses addresses other
	// than loopback then, unless Insecure says that this is meant.
	Tokens   *auth.Tokens
	TLS      TLS
	Insecure bool

	Limits Limits

	// Retention is how long transactions are kept when they are over. Defaults to 7
	// days; negative: for ever.
	Retention time.Duration

	// DrainDelay is how long Shutdown still takes requests while /readyz tells
	// balancers to send none. Defaults to 0.
	DrainDelay time.Duration

	// Alerts are closed by Shutdown, after the engine. nil: nobody is told.
	Alerts *Alerts

	// InDoubt lists the branches of two-phase commit that are in doubt in the
	// library's databases. nil: no databases are configured.
	InDoubt api.InDoubtFunc

	// Check reports why a branch's address would not be called, before a transaction
	// with it is stored. nil refuses none; the calls themselves are checked by who makes them.
	Check func(url string) error

	// Version is what dtm's clients are told.
	Version string

	Now func() time.Time // defaults to time.Now
}

// RetentionDefault is long enough for somebody to look after a weekend at what
// happened before it, and it is dtm's.
const RetentionDefault = 7 * 24 * time.Hour

// A Server serves one engine. Its methods are safe for concurrent use.
type Server struct {
	cfg    Config
	limits Limits
	log    *slog.Logger
	meter  *metrics.Server

	guard  *guard
	http   *http.Server
	grpc   *grpc.Server
	certs  *certificates
	health *health.Server

	ready    readiness
	draining atomic.Bool
	failed   chan error

	ctx  context.Context //nolint:containedctx // the life of what runs in the background
	stop context.CancelFunc
	wg   sync.WaitGroup

	streams    context.Context //nolint:containedctx // the life of gRPC's streams that do not end by themselves
	endStreams context.CancelFunc

	mu        sync.Mutex // guards what follows
	listeners []net.Listener
	shutdown  *shutdown // nil: not asked for yet
}

// New makes a server. It listens to nothing yet. Its errors name the setting and what
// to do: they are about the configuration.
func New(cfg Config) (*Server, error) {
	if cfg.Engine == nil || cfg.Store == nil {
		return nil, errors.New("server: Config.Engine and Config.Store are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Meter == nil {
		cfg.Meter = metrics.NewServer()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Retention == 0 {
		cfg.Retention = RetentionDefault
	}
	setDefault(&cfg.HTTPAddr, HTTPAddrDefault)
	setDefault(&cfg.GRPCAddr, GRPCAddrDefault)
	if err := cfg.Admissible(); err != nil {
		return nil, err
	}
	open := cfg.open()
	cfg.Limits.setDefaults(OnlyHere(cfg))

	s := &Server{cfg: cfg, limits: cfg.Limits, log: cfg.Logger, meter: cfg.Meter, failed: make(chan error, 2)}
	if cfg.TLS.enabled() {
		var err error
		if s.certs, err = openCertificates(cfg.TLS, cfg.Logger); err != nil {
			return nil, fmt.Errorf("server: %w", err)
		}
	}
	s.guard = newGuard(cfg, open)
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.streams, s.endStreams = context.WithCancel(s.ctx)
	s.http = s.newHTTP()
	s.grpc = s.newGRPC()
	return s, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Start listens on both addresses and returns once it does. What fails later comes out
// of Failed.
func (s *Server) Start(ctx context.Context) error {
	onHTTP, err := s.listen(ctx, s.cfg.HTTPAddr)
	if err != nil {
		return err
	}
	onGRPC, err := s.listen(ctx, s.cfg.GRPCAddr)
	if err != nil {
		return errors.Join(err, onHTTP.Close())
	}
	s.mu.Lock()
	s.listeners = []net.Listener{onHTTP, onGRPC}
	s.mu.Unlock()
	s.serve("http", func() error {
		if s.certs != nil {
			return s.http.ServeTLS(onHTTP, "", "")
		}
		return s.http.Serve(onHTTP)
	})
	s.serve("grpc", func() error { return s.grpc.Serve(onGRPC) })
	s.wg.Go(s.keepHouse)
	s.wg.Go(func() { s.guard.logins.keep(s.ctx) })
	s.log.InfoContext(ctx, "listening", "http", onHTTP.Addr().String(), "grpc", onGRPC.Addr().String(),
		"tls", s.certs != nil, "credentials", !s.guard.open)
	if s.certs == nil && !s.guard.open && !OnlyHere(s.cfg) {
		s.log.WarnContext(ctx, "tokens travel in clear text: set a certificate, or end TLS in front of this server")
	}
	return nil
}

func (s *Server) serve(what string, f func() error) {
	s.wg.Go(func() {
		if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) {
			s.fail(fmt.Errorf("server: %s: %w", what, err))
		}
	})
}

// fail says that the server is of no use any more. The first one is heard.
func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// Failed yields the error of a listener that does not listen any more, or of a store that
// has to be opened anew. The server is to be shut down then.
func (s *Server) Failed() <-chan error { return s.failed }

// Addrs are the addresses that it listens on; nil before Start. They tell the port
// where the configuration left it open with 0.
func (s *Server) Addrs() (onHTTP, onGRPC net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.listeners) < 2 {
		return nil, nil
	}
	return s.listeners[0].Addr(), s.listeners[1].Addr()
}

// A shutdown happens once; others wait for it.
type shutdown struct {
	done chan struct{}
	err  error
}

// Shutdown ends the server, in this order:
//
//  1. /readyz answers 503 from now on; for DrainDelay nothing else changes.
//  2. Nobody is let in any more, and idle connections are closed; so are gRPC's streams
//     that have no end, such as those that watch its health.
//  3. Requests that are under way are answered, also those that wait for a result.
//     When ctx ends they are cut off.
//  4. The engine stops: calls of participants that are under way are given up, and
//     made again by whoever opens the store next.
//  5. The store is closed.
//
// Nothing that was confirmed is lost, and nothing that was begun is forgotten: a shutdown
// is a crash that we chose. It returns when all of this is done, with ctx' error if
// requests were cut off. Calls after the first wait for the first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	down := s.shutdown
	if down != nil {
		s.mu.Unlock()
		<-down.done
		return down.err
	}
	down = &shutdown{done: make(chan struct{})}
	s.shutdown = down
	s.mu.Unlock()
	defer close(down.done)

	s.log.InfoContext(ctx, "draining")
	s.draining.Store(true)
	s.health.Shutdown() // NOT_SERVING
	pause(ctx, s.cfg.DrainDelay)
	cut := s.refuse(ctx)
	s.stop()
	s.wg.Wait()
	// Past this point ctx only bounds waiting for others, not our own end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	down.err = errors.Join(cut, s.cfg.Engine.Close(ctx))
	if s.cfg.Alerts != nil {
		s.cfg.Alerts.Close()
	}
	down.err = errors.Join(down.err, s.cfg.Store.Close(ctx))
	s.log.InfoContext(ctx, "stopped")
	return down.err
}

// closeTimeout bounds the end of engine and store, whose own calls have shorter limits.
const closeTimeout = 30 * time.Second

// refuse closes the listeners and waits for the requests under way.
func (s *Server) refuse(ctx context.Context) error {
	s.endStreams()
	graceful := make(chan struct{})
	s.wg.Go(func() { s.grpc.GracefulStop(); close(graceful) })
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	select {
	case <-graceful:
	case <-ctx.Done():
		s.grpc.Stop()
		err = errors.Join(err, ctx.Err())
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
