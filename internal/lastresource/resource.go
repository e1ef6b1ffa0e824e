package lastresource

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/decisiontable"
	"github.com/troth-tx/troth/internal/pinned"
	"github.com/troth-tx/troth/internal/reserve"
)

// Options are what users may choose.
type Options struct {
	Package string   // of the public resource, for messages: "sqlite"
	Schema  string   // of the decision table; "" is the session's current one
	Allow   []string // subjects of fatal findings that Open shall accept
}

// A Resource implements [troth.Resource] for an Engine. Public packages embed it.
type Resource struct {
	name   string
	db     *sql.DB
	engine Engine
	opts   Options

	cfg troth.ResourceConfig // set by Open, before any branch begins

	mu      sync.Mutex // guards what follows; never held across I/O
	reserve *reserve.Reserve
	table   *decisiontable.Table
	closed  bool // both are of no more use
}

// New returns a Resource over a pool, which stays the caller's.
func New(name string, db *sql.DB, engine Engine, opts Options) *Resource {
	r := &Resource{name: name, db: db, engine: engine, opts: opts}
	r.cfg.Logger = slog.New(slog.DiscardHandler)
	r.renew()
	return r
}

// renew makes the decision table and its session, neither of which does anything
// yet.
func (r *Resource) renew() {
	r.reserve = reserve.New(r.db)
	r.table = decisiontable.New(r.engine.Dialect(), r.reserve, decisiontable.Options{Schema: r.opts.Schema, NoWitness: true})
	r.closed = false
}

// Name implements [troth.Resource].
func (r *Resource) Name() string { return r.name }

// Can implements [troth.Resource]: the database can decide, never prepare.
func (r *Resource) Can() troth.Capability { return troth.CanDecide }

// Decisions implements [troth.Resource].
func (r *Resource) Decisions() troth.Register { return r.decisions() }

func (r *Resource) decisions() *decisiontable.Table {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table
}

// Recover implements [troth.Resource]: nothing is ever prepared here.
func (r *Resource) Recover(context.Context) ([]troth.Prepared, error) { return nil, nil }

// Finish implements [troth.Resource]. Nobody has reason to call it.
func (r *Resource) Finish(context.Context, troth.XID, troth.Outcome, string) error {
	return r.errCannotPrepare()
}

func (r *Resource) errCannotPrepare() error {
	return fmt.Errorf("resource %s cannot prepare (vote first, commit later): it commits last, together with the decision", r.name)
}

// Open implements [troth.Resource]. A Resource that was closed can be opened again.
// If it fails the pool has its session back.
func (r *Resource) Open(ctx context.Context, cfg troth.ResourceConfig) error {
	r.cfg = cfg
	r.mu.Lock()
	if r.closed {
		r.renew()
	}
	r.mu.Unlock()
	if err := r.open(ctx); err != nil {
		_ = r.Close(context.WithoutCancel(ctx)) // the error that counts is the one above
		return fmt.Errorf("open resource %s: %w", r.name, err)
	}
	return nil
}

func (r *Resource) open(ctx context.Context) error {
	findings, err := r.examine(ctx, r.cfg.LifeMax)
	if err != nil {
		return err
	}
	if err := r.judge(ctx, findings); err != nil { // S13
		return err
	}
	if err := r.decisions().Open(ctx, troth.RegisterConfig{Domain: r.cfg.Domain, Logger: r.cfg.Logger}); err != nil {
		return err
	}
	return r.onSession(ctx, func(l Line) error { return r.engine.Open(ctx, l, r.cfg.LifeMax) })
}

// judge turns fatal findings into an error, but for those that the program
// accepts by name.
func (r *Resource) judge(ctx context.Context, findings []troth.Finding) error {
	var errs []error
	for _, f := range findings {
		switch {
		case f.Severity < troth.FindingWarning:
		case f.Severity == troth.FindingWarning, slices.Contains(r.opts.Allow, f.Subject):
			r.cfg.Logger.WarnContext(ctx, "unsafe or unwise setting", "resource", r.name, "setting", f.Subject, "value", f.Found, "why", f.Why)
		default:
			errs = append(errs, fmt.Errorf("%s is %s: %s. Mend it with: %s. Or accept it with %s.Allow(%q)",
				f.Subject, f.Found, strings.TrimSuffix(f.Why, "."), f.Fix, r.opts.Package, f.Subject))
		}
	}
	return errors.Join(errs...)
}

// Check implements [troth.Checker].
func (r *Resource) Check(ctx context.Context) ([]troth.Finding, error) {
	findings, err := r.examine(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("check resource %s: %w", r.name, err)
	}
	return findings, nil
}

func (r *Resource) examine(ctx context.Context, lifeMax time.Duration) (findings []troth.Finding, err error) {
	err = r.onSession(ctx, func(l Line) error {
		findings, err = r.engine.Examine(ctx, l, lifeMax)
		return err
	})
	return findings, err
}

// onSession runs f on a session as the program's pool gives it.
func (r *Resource) onSession(ctx context.Context, f func(Line) error) error {
	c, err := r.db.Conn(ctx)
	if err != nil {
		return err
	}
	return errors.Join(onConn(c, f), c.Close())
}

// Begin implements [troth.Resource]. It takes a session from the pool; the
// transaction begins with the first statement.
func (r *Resource) Begin(ctx context.Context, cfg troth.BranchConfig) (troth.Branch, error) {
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("take a session from the pool: %w", err)
	}
	b := &Branch{r: r, cfg: cfg, born: time.Now().Round(0)}
	b.session = pinned.New(pinned.Config{
		Resource: r.name,
		Dialect:  r.engine.Dialect(),
		Conn:     conn,
		Driver:   r.db.Driver(),
		Start:    b.begin,
		Context:  cfg.Context,
	})
	return b, nil
}

// DB enlists the resource that embeds this one in tx and returns the branch's
// handle.
func DB(ctx context.Context, tx *troth.Tx, r troth.Resource) (*sql.DB, error) {
	b, err := tx.Enlist(ctx, r)
	if err != nil {
		return nil, err
	}
	branch, ok := b.(*Branch)
	if !ok {
		return nil, fmt.Errorf("resource %s: its branch is a %T", r.Name(), b)
	}
	return branch.DB(), nil
}

// Close implements [troth.Resource].
func (r *Resource) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	table, session := r.table, r.reserve
	r.mu.Unlock()
	return errors.Join(table.Close(ctx), session.Close(ctx))
}
