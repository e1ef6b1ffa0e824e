package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/decisiontable"
	"github.com/troth-tx/troth/internal/pinned"
	"github.com/troth-tx/troth/internal/reserve"
	"github.com/troth-tx/troth/internal/sqltext"
)

// reserved is how many sessions recovery has for itself: one may wait for a
// decision while another ends the session that holds it.
const reserved = 2

// cleanupTimeout bounds what is finished although the caller's context has ended.
const cleanupTimeout = 5 * time.Second

// A Resource is a MariaDB or MySQL database. Make one with [New].
type Resource struct {
	name    string
	db      *sql.DB
	allowed []string // findings that Open lets pass
	memory  *memory

	opening sync.Mutex // held by Open and Close
	mu      sync.Mutex // guards what follows; never held across I/O
	open    *opened
}

// opened is what a successful Open made. It is not changed afterwards.
type opened struct {
	cfg     troth.ResourceConfig
	engine  engine
	schema  string
	reserve *reserve.Reserve
	table   *decisiontable.Table
}

var (
	_ troth.Resource  = (*Resource)(nil)
	_ troth.Inspector = (*Resource)(nil)
	_ troth.Checker   = (*Resource)(nil)
	_ troth.Sweeper   = (*Resource)(nil)
	_ troth.Forgetter = (*Resource)(nil)
	_ troth.Returner  = (*Resource)(nil)
)

// An Option changes a Resource.
type Option func(*Resource)

// Allow lets Open succeed although a check found something fatal. subject is the
// [troth.Finding]'s: "sync_binlog". The guarantee that the check stands for is
// then lost.
func Allow(subject string) Option {
	return func(r *Resource) { r.allowed = append(r.allowed, subject) }
}

// New returns a resource over a *sql.DB of github.com/go-sql-driver/mysql, whose
// DSN names a schema: troth keeps its tables there. The name is stable and its own
// among the resources of a Manager; see [troth.ValidName]. Closing db is left to
// the caller, after the Manager was closed.
func New(name string, db *sql.DB, opts ...Option) *Resource {
	r := &Resource{name: name, db: db, memory: newMemory()}
	for _, o := range opts {
		o(r)
	}
	return r
}

// Name implements [troth.Resource].
func (r *Resource) Name() string { return r.name }

// DB returns a handle that is pinned to this resource's branch of tx: everything
// done through it is part of the transaction. It is valid until tx ends.
// BeginTx on it sets a savepoint. Statements that would end the branch, and those
// that commit implicitly (DDL), are refused.
func (r *Resource) DB(ctx context.Context, tx *troth.Tx) (*sql.DB, error) {
	enlisted, err := tx.Enlist(ctx, r)
	if err != nil {
		return nil, err
	}
	b, ok := enlisted.(*branch)
	if !ok {
		return nil, fmt.Errorf("mysql: resource %s: the transaction's branch is a %T", r.name, enlisted)
	}
	return b.session.DB(), nil
}

// Open implements [troth.Resource]. It refuses what Check calls fatal, unless that
// is allowed by name.
func (r *Resource) Open(ctx context.Context, cfg troth.ResourceConfig) error {
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.state() != nil {
		return nil
	}
	o := &opened{cfg: cfg, reserve: reserve.NewSize(r.db, reserved)}
	if err := r.openWith(ctx, o); err != nil {
		_ = o.reserve.Close(ctx) // the error that counts is Open's
		return fmt.Errorf("mysql: resource %s: %w", r.name, hinted(err))
	}
	r.mu.Lock()
	r.open = o
	r.mu.Unlock()
	return nil
}

func (r *Resource) openWith(ctx context.Context, o *opened) error {
	err := o.reserve.Do(ctx, func(ctx context.Context, c *sql.Conn) error {
		var err error
		if o.engine, err = probe(ctx, c); err != nil {
			return err
		}
		var schema sql.NullString
		if err := c.QueryRowContext(ctx, "SELECT DATABASE()").Scan(&schema); err != nil {
			return fmt.Errorf("ask for the current schema: %w", err)
		}
		if o.schema = schema.String; o.schema == "" {
			return errors.New("the DSN names no schema, and troth's tables must be somewhere: add one, .../shop")
		}
		findings, err := checkSettings(ctx, c, o.engine)
		if err != nil {
			return err
		}
		if err := r.refuseFatal(findings); err != nil {
			return err
		}
		_, err = prepared(ctx, c) // MySQL 8 asks for a privilege that nothing else needs
		return err
	})
	if err != nil {
		return err
	}
	o.table = decisiontable.New(decisiontable.MySQL, o.reserve, decisiontable.Options{
		Schema: o.schema, WitnessOnly: !o.cfg.NeedDecisions,
	})
	return o.table.Open(ctx, troth.RegisterConfig{Domain: o.cfg.Domain, Logger: o.cfg.Logger})
}

func (r *Resource) refuseFatal(findings []troth.Finding) error {
	var refused []error
	for _, f := range findings {
		if f.Severity != troth.FindingFatal || slices.Contains(r.allowed, f.Subject) {
			continue
		}
		fix := ""
		if f.Fix != "" {
			fix = "; mend it: " + f.Fix
		}
		refused = append(refused, fmt.Errorf("%s is %s: %s%s (or mysql.Allow(%q))", f.Subject, f.Found, f.Why, fix, f.Subject))
	}
	return errors.Join(refused...)
}

// probe learns what server this is and whether it takes several statements in one
// request.
func probe(ctx context.Context, c *sql.Conn) (engine, error) {
	var e engine
	if err := c.QueryRowContext(ctx, "SELECT VERSION(), @@GLOBAL.log_bin").Scan(&e.version, &e.binlog); err != nil {
		return e, fmt.Errorf("ask for the version: %w", err)
	}
	e.maria = strings.Contains(strings.ToLower(e.version), "mariadb")
	var err error
	if e.multi, err = takesMultiStatements(ctx, c); err != nil {
		return e, fmt.Errorf("try two statements in one request: %w", err)
	}
	return e, nil
}

func (r *Resource) state() *opened {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

// opened returns what Open made, or why there is nothing.
func (r *Resource) opened() (*opened, error) {
	if o := r.state(); o != nil {
		return o, nil
	}
	return nil, fmt.Errorf("mysql: resource %s is not open: give it to troth.Open: %w", r.name, troth.ErrClosed)
}

// Can implements [troth.Resource].
func (r *Resource) Can() troth.Capability {
	can := troth.CanPrepare
	if r.Decisions() != nil {
		can |= troth.CanDecide
	}
	// Measured on MariaDB 10.11: with the binary log on, four of a thousand
	// acknowledged XA COMMIT ... ONE PHASE around a SIGKILL came back as prepared.
	if o := r.state(); o != nil && o.engine.binlog {
		can |= troth.OnePhaseReturns
	}
	return can
}

// Decisions implements [troth.Resource].
func (r *Resource) Decisions() troth.Register {
	if o := r.state(); o != nil && o.cfg.NeedDecisions {
		return o.table
	}
	return nil
}

// Begin implements [troth.Resource]. It takes a session from the pool, and waits
// for one if there is none. The session's first use costs two round trips more.
func (r *Resource) Begin(ctx context.Context, cfg troth.BranchConfig) (troth.Branch, error) {
	o, err := r.opened()
	if err != nil {
		return nil, err
	}
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return nil, r.branchError("begin", troth.XID{}, err)
	}
	t, err := r.readySession(ctx, o, conn)
	if err != nil {
		_ = conn.Close() // the error that counts is the one above
		return nil, r.branchError("begin", troth.XID{}, err)
	}
	b := &branch{r: r, o: o, cfg: cfg, thread: t, stage: stageWork}
	b.session = pinned.New(pinned.Config{
		Resource: r.name, Dialect: sqltext.MySQL, Conn: conn, Driver: r.db.Driver(), Context: cfg.Context,
		Start: b.start, StartExec: b.startExec, StartQuery: b.startQuery,
	})
	return b, nil
}

// Close implements [troth.Resource].
func (r *Resource) Close(ctx context.Context) error {
	r.opening.Lock()
	defer r.opening.Unlock()
	r.mu.Lock()
	o := r.open
	r.open = nil
	r.mu.Unlock()
	if o == nil {
		return nil
	}
	return errors.Join(o.table.Close(ctx), o.reserve.Close(ctx))
}
