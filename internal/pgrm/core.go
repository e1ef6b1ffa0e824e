// Package pgrm is what the PostgreSQL resource managers have in common: the
// protocol of a branch, recovery, and the checks. Packages postgres and pgxtx
// add the sessions, that is, the faces that programs see.
//
// The rules R1 to R10 are those of the protocol's documentation. Kept here:
// R5 (the server ends idle transactions), R6 (a failed or a standby's list says
// nothing), R8 (pg_xact_status is the evidence), R9 (a vote counts with the tag
// PREPARE TRANSACTION or the name in the list), R10 (refusal.go lists the
// definite errors).
package pgrm

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
	"github.com/troth-tx/troth/internal/reserve"
)

// Options are what users may choose.
type Options struct {
	Schema string   // of the decision table; "" is the session's current one
	Allow  []string // subjects of fatal findings that Open shall accept
}

// Core implements [troth.Resource] but for Begin.
type Core struct {
	name    string
	opts    Options
	recover func() (*sql.DB, error) // the pool for recovery, made at first use
	lines   Lines                   // of that pool

	mu      sync.Mutex // guards what follows; never held across I/O
	reserve *reserve.Reserve

	// Set by Open, before any branch begins.
	cfg     troth.ResourceConfig
	logger  *slog.Logger
	can     troth.Capability
	table   *decisiontable.Table // nil: decisions are not kept here
	system  string               // the cluster's identifier in hexadecimal, "" if it may not be read
	lifeMax time.Duration        // what each branch must set; 0 if the server has it
	begins  [8]string            // BEGIN texts by isolation level
}

// NewCore makes the common part of a resource. recover gives the pool of which
// recovery holds one session.
func NewCore(name string, opts Options, recover func() (*sql.DB, error)) *Core {
	return &Core{name: name, opts: opts, recover: recover, logger: slog.New(slog.DiscardHandler)}
}

// Name is as [troth.Resource] says.
func (c *Core) Name() string { return c.name }

// Can is as [troth.Resource] says.
func (c *Core) Can() troth.Capability { return c.can }

// Decisions is as [troth.Resource] says.
func (c *Core) Decisions() troth.Register {
	if c.table == nil {
		return nil // not a nil *Table in an interface
	}
	return c.table
}

// Do runs f on the reserved session. It implements [decisiontable.Runner].
func (c *Core) Do(ctx context.Context, f func(ctx context.Context, conn *sql.Conn) error) error {
	r, err := c.reserved()
	if err != nil {
		return err
	}
	return r.Do(ctx, f)
}

func (c *Core) reserved() (*reserve.Reserve, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reserve == nil {
		db, err := c.recover()
		if err != nil {
			return nil, err
		}
		c.reserve = reserve.New(db)
	}
	return c.reserve, nil
}

// Open is as [troth.Resource] says. If it fails the pool has its session back.
func (c *Core) Open(ctx context.Context, cfg troth.ResourceConfig) error {
	err := c.open(ctx, cfg)
	if err != nil {
		_ = c.closeReserve(context.WithoutCancel(ctx)) // the error that counts is the one above
	}
	return err
}

func (c *Core) open(ctx context.Context, cfg troth.ResourceConfig) error {
	c.cfg, c.logger = cfg, cfg.Logger
	st, findings, err := c.examine(ctx, false)
	if err != nil {
		return c.openError(err)
	}
	for _, f := range findings {
		if f.Severity != troth.FindingFatal {
			continue
		}
		if slices.Contains(c.opts.Allow, f.Subject) {
			c.logger.WarnContext(ctx, "unsafe setting allowed by option", "resource", c.name, "setting", f.Subject, "value", f.Found)
			continue
		}
		err = errors.Join(err, fmt.Errorf("%s is %s: %s. Mend it with: %s. Or accept it with postgres.Allow(%q)",
			f.Subject, f.Found, strings.TrimSuffix(f.Why, "."), f.Fix, f.Subject))
	}
	if err != nil {
		return c.openError(err) // S13
	}
	can := troth.CanPrepare
	if st.maxPrepared == 0 {
		can = 0
		c.logger.WarnContext(ctx, "this database cannot prepare: it can only hold the decision, one such database in a transaction; "+
			"to mend it: ALTER SYSTEM SET max_prepared_transactions = 100, then restart the server", "resource", c.name)
	}
	if table := c.table; cfg.NeedDecisions || can == 0 {
		can |= troth.CanDecide
		if table == nil {
			table = decisiontable.New(decisiontable.Postgres, c, decisiontable.Options{Schema: c.opts.Schema})
		}
		if err := table.Open(ctx, troth.RegisterConfig{Domain: cfg.Domain, Logger: cfg.Logger}); err != nil {
			return c.openError(err)
		}
		c.table = table
	}
	c.lifeMax = cfg.LifeMax
	if idle := time.Duration(st.idleMS) * time.Millisecond; idle > 0 && idle <= cfg.LifeMax {
		c.lifeMax = 0 // R5 is kept by the server's own setting
	}
	for level := range c.begins {
		// A level that PostgreSQL lacks has no text: Begin says so.
		c.begins[level], _ = beginSQL(sql.IsolationLevel(level), c.lifeMax)
	}
	c.can, c.system = can, st.system
	return nil
}

func (c *Core) openError(err error) error {
	if h := hint(err); h != "" {
		return fmt.Errorf("open resource %s: %w (%s)", c.name, err, h)
	}
	return fmt.Errorf("open resource %s: %w", c.name, err)
}

// BeginSQL is the text that begins a branch: one or more statements.
func (c *Core) BeginSQL(level sql.IsolationLevel) (string, error) {
	if c.can == 0 {
		return "", fmt.Errorf("resource %s is not open: pass it to troth.Open", c.name)
	}
	if level >= 0 && int(level) < len(c.begins) && c.begins[level] != "" {
		return c.begins[level], nil
	}
	return beginSQL(level, c.lifeMax)
}

// Close is as [troth.Resource] says.
func (c *Core) Close(ctx context.Context) error {
	var err error
	if c.table != nil {
		err = c.table.Close(ctx)
	}
	return errors.Join(err, c.closeReserve(ctx))
}

func (c *Core) closeReserve(ctx context.Context) error {
	c.mu.Lock()
	r := c.reserve
	c.reserve = nil
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	return r.Close(ctx)
}
