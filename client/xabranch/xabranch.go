// Package xabranch lets a service take part in XA transactions that a troth server, or
// dtm's, coordinates: it does its work in a database transaction, prepares it, and
// commits it or rolls it back when the server says so.
//
//	service, err := xabranch.Open(ctx, xabranch.Config{
//		Client: c, Resource: postgres.New("orders", db), DB: db, Barrier: steps,
//	})
//	...
//	mux.Handle("/order", service.Handler(func(ctx context.Context, db *sql.DB, call *client.Call) (any, error) {
//		_, err := db.ExecContext(ctx, "UPDATE stock SET n = n - 1 WHERE id = 1")
//		return nil, err
//	}))
//
// The branch is one of the library's resource managers, with its care: the function has
// one session, as a genuine *sql.DB; a failed statement cannot be prepared; the answer
// to PREPARE is looked at; "unknown transaction" is not taken for "committed".
//
// # What decides
//
// Beside the branch's name in the database there is a row in the barrier, written by the
// branch itself as its first statement. A commit that finds no prepared branch succeeds
// only if that row is committed. A rollback writes the row itself, so that a branch that
// comes late finds it and cannot prepare any more; while a branch is at work it waits.
// So any process of the service may get the server's word, also one that was started
// after the first one died.
package xabranch

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/internal/pgrm"
)

// Config says what a service works with. Client, Resource, DB and Barrier are required.
type Config struct {
	// Client registers branches with the server.
	Client *client.Client

	// Resource is the database, as package postgres or mysql makes it. It belongs to the
	// service, which opens and closes it: do not give it to a troth.Manager too.
	Resource troth.Resource

	// DB is a pool of the same database, which Open checks, and Barrier a table in it that
	// exists: the *sql.DB that the resource was made with will do.
	DB      *sql.DB
	Barrier *barrier.Table

	// URL is where the server sends its word, served by [Service.Word]. Empty means the
	// address that the caller of a branch gives, which is the one that it called.
	URL string

	// Domain begins the names of branches in the database. All processes of a service
	// need the same; a troth.Manager on this database needs another. At most 23 characters,
	// see troth.ValidName. Defaults to "xa".
	Domain string

	// HoldMax is how long the session of a prepared branch waits for the server's word:
	// on MariaDB that is the safest to commit on. Afterwards any session does. Defaults
	// to 30 s; negative means not at all.
	HoldMax time.Duration

	// WaitMax is how long a rollback waits for a branch that is at work, before it is
	// answered that it is not over. Defaults to 2 s.
	WaitMax time.Duration

	// LifeMax is the longest that a branch may idle before it prepares. Defaults to 1 min.
	LifeMax time.Duration

	Logger *slog.Logger // nil: silent
}

// A Service takes part in XA transactions with one database. It is safe for concurrent
// use.
type Service struct {
	cfg Config

	mu     sync.Mutex // guards what follows; never held across I/O
	closed bool
	work   map[troth.XID]context.CancelCauseFunc // phase one under way
	held   map[troth.XID]*hold                   // prepared
}

// A hold is a prepared branch whose session waits for the server's word.
type hold struct {
	branch troth.Branch
	timer  *time.Timer
}

// Open opens the resource: its error names the setting of the database that is wrong and
// the statement that mends it, or says that Config.DB is another database. Close the
// service in the end.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Client == nil || cfg.Resource == nil || cfg.DB == nil || cfg.Barrier == nil {
		return nil, errors.New("xabranch: Config needs Client, Resource, DB and Barrier")
	}
	if cfg.Domain == "" {
		cfg.Domain = "xa"
	}
	if !troth.ValidName(cfg.Domain + "h") {
		return nil, fmt.Errorf("xabranch: Config.Domain %q: want up to 23 of [a-z0-9_-]", cfg.Domain)
	}
	setDefault(&cfg.HoldMax, 30*time.Second)
	setDefault(&cfg.WaitMax, 2*time.Second)
	setDefault(&cfg.LifeMax, time.Minute)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	err := cfg.Resource.Open(ctx, troth.ResourceConfig{Domain: cfg.Domain, Logger: cfg.Logger, LifeMax: cfg.LifeMax})
	if err != nil {
		return nil, fmt.Errorf("xabranch: %w", err)
	}
	if cfg.Resource.Can()&troth.CanPrepare == 0 {
		return nil, errors.Join(errors.New("xabranch: the database cannot prepare transactions: on PostgreSQL set max_prepared_transactions"),
			cfg.Resource.Close(ctx))
	}
	s := &Service{
		cfg: cfg, work: make(map[troth.XID]context.CancelCauseFunc), held: make(map[troth.XID]*hold),
	}
	if err := s.checkDB(ctx); err != nil {
		return nil, errors.Join(err, cfg.Resource.Close(ctx))
	}
	return s, nil
}

func setDefault(field *time.Duration, value time.Duration) {
	if *field == 0 {
		*field = value
	}
}

// Close lets the sessions of prepared branches go, and closes the resource. The branches
// stay prepared: another process gets the server's word. Stop serving the handlers before.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	held := s.held
	s.held = make(map[troth.XID]*hold)
	s.mu.Unlock()
	for _, h := range held {
		h.timer.Stop()
		h.branch.Close()
	}
	return s.cfg.Resource.Close(ctx)
}

// A Func does a branch's work. db is a handle to the branch: whatever it does is part of
// it, on one session, and nothing else is; it ends with the function. An error rolls the
// branch back; client.ErrFailed tells the caller that it refuses.
type Func func(ctx context.Context, db *sql.DB, call *client.Call) (reply any, err error)

// Handler serves one address of the service: its work, and, unless Config.URL is set, the
// server's word about it.
func (s *Service) Handler(f Func, opts ...client.HandlerOption) http.Handler {
	return s.handler(func(ctx context.Context, name troth.XID, call *client.Call) (any, error) {
		if call.Op == client.OpAction {
			return s.prepare(ctx, name, call, f)
		}
		if s.cfg.URL != "" {
			return nil, invalid(call, "this address does work; the server's word goes to Config.URL")
		}
		return nil, s.end(ctx, name, call)
	}, opts)
}

// Word serves Config.URL: the server's word about all branches of the service. With
// client.SignedBy nobody else can give it; work is asked for by programs, which do not sign.
func (s *Service) Word(opts ...client.HandlerOption) http.Handler {
	return s.handler(func(ctx context.Context, name troth.XID, call *client.Call) (any, error) {
		return nil, s.end(ctx, name, call)
	}, opts)
}

func (s *Service) handler(f func(ctx context.Context, name troth.XID, call *client.Call) (any, error), opts []client.HandlerOption) http.Handler {
	return client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		if call.Pattern != client.PatternXA {
			return nil, invalid(call, "this address takes part in XA transactions only")
		}
		return f(ctx, nameOf(s.cfg.Domain, call.GID, call.Branch), call)
	}, opts...)
}

func (s *Service) end(ctx context.Context, name troth.XID, call *client.Call) error {
	switch call.Op {
	case client.OpCommit:
		return s.commit(ctx, name, call)
	case client.OpRollback:
		return s.rollback(ctx, name, call)
	case client.OpAction, client.OpTry, client.OpCompensate, client.OpConfirm, client.OpCancel, client.OpQuery:
	}
	return invalid(call, "want commit or rollback")
}

// InDoubt lists the service's prepared branches, whoever prepared them. One that is old
// waits for its server's word: ask the server about its transaction.
func (s *Service) InDoubt(ctx context.Context) ([]troth.Prepared, error) {
	all, err := s.cfg.Resource.Recover(ctx)
	if err != nil {
		return nil, err
	}
	var ours []troth.Prepared
	for _, p := range all {
		if d := p.XID.GID.Domain(); p.Ours && (d == s.cfg.Domain || d == s.cfg.Domain+"h") { // R7
			ours = append(ours, p)
		}
	}
	return ours, nil
}

// handleOf is the branch as a *sql.DB.
func handleOf(b troth.Branch) (*sql.DB, error) {
	var any any = b
	if pg, ok := b.(*pgrm.Branch); ok {
		any = pg.Session()
	}
	if h, ok := any.(interface{ DB() *sql.DB }); ok {
		return h.DB(), nil
	}
	return nil, fmt.Errorf("xabranch: the resource gives a %T: use package postgres or mysql", b)
}
