package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/filelog"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlite"
	"github.com/troth-tx/troth/sqlregister"
)

const (
	// openTimeout bounds opening one database, so that one that does not answer
	// leaves time for the others; see patience.
	openTimeout  = 10 * time.Second
	closeTimeout = 5 * time.Second
)

// patience is how long an attempt to open one database may take. Recovery makes up
// to three, and the other databases want to be asked in between.
func patience(timeout time.Duration) time.Duration { return min(openTimeout, timeout/4) }

// newResource is where a kind of database becomes a resource manager.
func newResource(t target, db *sql.DB) troth.Resource {
	switch t.engine {
	case enginePostgres:
		return postgres.New(t.name, db)
	case engineMySQL:
		return mysql.New(t.name, db)
	case engineSQLite:
		return sqlite.New(t.name, db)
	}
	panic(fmt.Sprintf("troth: engine %d", t.engine))
}

// A world is a Manager over the configured databases, which only looks: nothing
// is ended but by Recover and Resolve.
type world struct {
	mgr      *troth.Manager
	watched  []*watched
	register *watchedRegister // nil: home participants
	pools    []*sql.DB
}

// openWorld connects to what can be reached. What cannot is in trouble().
func (a *app) openWorld(ctx context.Context, s settings, grace time.Duration) (*world, error) {
	w := new(world)
	cfg := troth.Config{
		Domain: s.domain, AllowUnreachable: true, NoRecovery: true, RecoverEvery: -1, Grace: grace,
		Logger: slog.New(notices{a}),
	}
	for _, t := range s.targets {
		r := &watched{Resource: unopened{t.name}, attempt: attempt{patience: patience(s.timeout)}}
		db, err := t.open()
		if r.fail(err) == nil {
			w.pools = append(w.pools, db)
			r.Resource = newResource(t, db)
		}
		w.watched = append(w.watched, r)
		cfg.Resources = append(cfg.Resources, r)
	}
	if !s.register.none() {
		w.register = &watchedRegister{Register: unopenedRegister{}, attempt: attempt{patience: patience(s.timeout)}}
		cfg.Register = w.register
		reg, err := w.openRegister(s.register)
		if w.register.fail(err) == nil {
			w.register.Register = reg
		}
	}
	mgr, err := troth.Open(ctx, cfg)
	if err != nil {
		w.closePools()
		return nil, err
	}
	w.mgr = mgr
	return w, nil
}

func (w *world) openRegister(r registerAddress) (troth.Register, error) {
	if r.db == nil {
		if err := r.usable(); err != nil {
			return nil, err
		}
		log, err := filelog.Open(r.dir)
		if errors.Is(err, filelog.ErrLocked) {
			err = fmt.Errorf("%w; its program recovers by itself; to look from here, stop it first", err)
		}
		if err != nil {
			return nil, err
		}
		return log, nil
	}
	db, err := r.db.open()
	if err != nil {
		return nil, err
	}
	w.pools = append(w.pools, db)
	return sqlregister.New(db), nil
}

// look runs f over the configured databases, for as long as --timeout says.
func (a *app) look(cmd *cobra.Command, f func(context.Context, settings, *world) error) error {
	s, err := a.prepare()
	if err != nil {
		return err
	}
	return a.lookWith(cmd, s, f)
}

// lookAt is look for one transaction, in the domain that its id names.
func (a *app) lookAt(cmd *cobra.Command, id troth.GID, f func(context.Context, settings, *world) error) error {
	s, err := a.prepareFor(id)
	if err != nil {
		return err
	}
	return a.lookWith(cmd, s, f)
}

func (a *app) lookWith(cmd *cobra.Command, s settings, f func(context.Context, settings, *world) error) error {
	ctx, cancel := limited(cmd.Context(), s.timeout)
	defer cancel()
	w, err := a.openWorld(ctx, s, 0)
	if err != nil {
		return err
	}
	defer w.close()
	return f(ctx, s, w)
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = w.mgr.Close(ctx) // nothing is under way; what was found out is said
	w.closePools()
}

func (w *world) closePools() {
	for _, db := range w.pools {
		_ = db.Close() // as above
	}
}

// trouble is a database, or the register, that did not answer.
type trouble struct {
	Resource string `json:"resource"` // empty: the register, or a decision that could not be read
	Error    string `json:"error"`
}

func (a *app) trouble(w *world) []trouble {
	list := []trouble{}
	if w.register != nil {
		if err := w.register.failure(); err != nil {
			list = append(list, trouble{"", "the register: " + a.text(err)})
		}
	}
	for _, r := range w.watched {
		if err := r.lastError(); err != nil {
			list = append(list, trouble{r.Name(), a.text(err)})
		}
	}
	return list
}

// explained adds to an error why the context ended, if it did: drivers say
// "context deadline exceeded" at best.
func explained(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// An attempt at opening something has a limit of its own, and its failure is
// remembered: that of the last one.
type attempt struct {
	patience time.Duration

	mu  sync.Mutex
	err error
}

func (a *attempt) try(ctx context.Context, open func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.patience, fmt.Errorf("no answer within %v", a.patience))
	defer cancel()
	return a.fail(explained(ctx, open(ctx)))
}

// fail records an error, or that there is none, and returns it.
func (a *attempt) fail(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
	return err
}

func (a *attempt) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// watched remembers why a resource did not answer: the Manager goes on without
// it, and a person wants to know.
type watched struct {
	troth.Resource
	attempt

	mu      sync.Mutex // guards listing
	listing error
}

// Open implements [troth.Resource].
func (r *watched) Open(ctx context.Context, cfg troth.ResourceConfig) error {
	if _, never := r.Resource.(unopened); never {
		return r.failure()
	}
	return r.try(ctx, func(ctx context.Context) error { return r.Resource.Open(ctx, cfg) })
}

// Recover implements [troth.Resource].
func (r *watched) Recover(ctx context.Context) ([]troth.Prepared, error) {
	list, err := r.Resource.Recover(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listing = err
	return list, err
}

// Blocked implements [troth.Inspector].
func (r *watched) Blocked(ctx context.Context, native string) ([]troth.Blocked, error) {
	if i, ok := r.Resource.(troth.Inspector); ok {
		return i.Blocked(ctx, native)
	}
	return nil, nil
}

// Sweep implements [troth.Sweeper].
func (r *watched) Sweep(ctx context.Context, minAge time.Duration, forgotten func(context.Context, troth.Place, troth.GID) (bool, error)) (int, error) {
	if s, ok := r.Resource.(troth.Sweeper); ok {
		return s.Sweep(ctx, minAge, forgotten)
	}
	return 0, nil
}

func (r *watched) lastError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.failure(), r.listing)
}

// unopened stands for a database whose driver would not even begin: a file that
// is not there.
type unopened struct{ name string }

var errUnopened = errors.New("not opened")

func (u unopened) Name() string                                    { return u.name }
func (unopened) Open(context.Context, troth.ResourceConfig) error  { return errUnopened }
func (unopened) Can() troth.Capability                             { return 0 }
func (unopened) Recover(context.Context) ([]troth.Prepared, error) { return nil, errUnopened }
func (unopened) Decisions() troth.Register                         { return nil }
func (unopened) Close(context.Context) error                       { return nil }
func (unopened) Begin(context.Context, troth.BranchConfig) (troth.Branch, error) {
	return nil, errUnopened
}

func (unopened) Finish(context.Context, troth.XID, troth.Outcome, string) error {
	return errUnopened
}

// watchedRegister is watched for the register.
type watchedRegister struct {
	troth.Register
	attempt
}

// Open implements [troth.Register].
func (r *watchedRegister) Open(ctx context.Context, cfg troth.RegisterConfig) error {
	if _, never := r.Register.(unopenedRegister); never {
		return r.failure()
	}
	return r.try(ctx, func(ctx context.Context) error { return r.Register.Open(ctx, cfg) })
}

// unopenedRegister stands for a register that could not be made; the Manager
// calls only Open on one that it could not open.
type unopenedRegister struct{ troth.Register }

// notices shows what the library logs as lines on the standard error: a person
// reads them. What could not be reached is in the command's own output.
type notices struct{ a *app }

// Enabled implements [slog.Handler].
func (n notices) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements [slog.Handler].
func (n notices) Handle(_ context.Context, rec slog.Record) error {
	switch rec.Message {
	case "not everything could be opened":
		return nil
	case "decision log needs a look": // told to the log's own program, which can change it
		return nil
	}
	text := rec.Message
	rec.Attrs(func(at slog.Attr) bool {
		text += fmt.Sprintf(" %s=%v", at.Key, at.Value)
		return true
	})
	_, err := fmt.Fprintf(n.a.err, "troth: %s: %s\n", rec.Level, n.a.text(errors.New(text)))
	return err
}

// WithAttrs implements [slog.Handler].
func (n notices) WithAttrs([]slog.Attr) slog.Handler { return n }

// WithGroup implements [slog.Handler].
func (n notices) WithGroup(string) slog.Handler { return n }
