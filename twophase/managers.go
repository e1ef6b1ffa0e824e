package twophase

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth"
)

// domain keeps the transactions of this package apart from those of programs that
// use troth itself on the same databases.
const domain = "twophase"

// closeTimeout is how long a group that nobody uses may take to end.
const closeTimeout = time.Minute

// A group is the databases that were used together, with the Manager that they
// share. It never changes: to grow it is replaced.
type group struct {
	members map[*sql.DB]*member
	mgr     *troth.Manager

	// Guarded by registry.mu.
	users   int // calls of Do, Recover and Outcome
	retired bool

	closing atomic.Bool   // somebody closes the Manager
	gone    chan struct{} // closed once it is
	err     error         // of its Close; set before gone is closed
}

// A member is a pool and the resource for it, which several pools on one database
// share.
type member struct {
	*database
	resource troth.Resource
	branch   func(context.Context, *troth.Tx) (*sql.DB, error) // the resource's DB method
}

// enlist begins a branch on each of the databases, and returns their handles. It
// takes the sessions in the same order in every transaction: two that name their
// participants in different orders do not wait for each other's in small pools. And
// a database that cannot prepare takes part before any other must know the home.
func (g *group) enlist(ctx context.Context, tx *troth.Tx, dbs []*sql.DB) (map[*sql.DB]*sql.DB, error) {
	order := slices.Clone(dbs)
	slices.SortStableFunc(order, func(a, b *sql.DB) int { return strings.Compare(g.members[a].identity, g.members[b].identity) })
	handles := make(map[*sql.DB]*sql.DB, len(order))
	for _, db := range order {
		if handles[db] != nil {
			continue
		}
		var err error
		if handles[db], err = g.members[db].branch(ctx, tx); err != nil {
			return nil, err
		}
	}
	return handles, nil
}

func (g *group) close(ctx context.Context) error {
	if g.closing.CompareAndSwap(false, true) {
		g.err = g.mgr.Close(ctx)
		close(g.gone)
	}
	select {
	case <-g.gone:
		return g.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *group) has(dbs []*sql.DB) bool {
	for _, db := range dbs {
		if g.members[db] == nil {
			return false
		}
	}
	return true
}

func (g *group) closed() bool {
	for db := range g.members {
		if isClosed(db) {
			return true
		}
	}
	return false
}

// isClosed asks a pool whether it is closed. With a context that has ended, that is
// all it looks at.
func isClosed(db *sql.DB) bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return !errors.Is(db.PingContext(ctx), context.Canceled)
}

// A registry holds the groups of a process. A database is in at most one of them,
// so that whoever recovers knows all transactions that this process drives on it.
type registry struct {
	growing chan struct{} // holds one element while a group is made; taken before mu

	mu      sync.Mutex // guards what follows and some of group; never held across I/O
	groups  map[*sql.DB]*group
	retired map[*group]struct{} // no longer in groups, not yet gone
}

var managers = registry{
	growing: make(chan struct{}, 1),
	groups:  make(map[*sql.DB]*group),
	retired: make(map[*group]struct{}),
}

// lease returns the group that has all dbs, and makes it if need be. The caller
// must release it.
func (r *registry) lease(ctx context.Context, dbs []*sql.DB) (*group, error) {
	if g := r.find(dbs); g != nil {
		return g, nil
	}
	select {
	case r.growing <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-r.growing }()
	if g := r.find(dbs); g != nil {
		return g, nil
	}
	return r.grow(ctx, dbs)
}

func (r *registry) find(dbs []*sql.DB) *group {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.groups[dbs[0]]
	if g == nil || !g.has(dbs) {
		return nil
	}
	g.users++
	return g
}

func (r *registry) release(g *group) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g.users--
	r.endLocked(g)
}

// grow makes a group of dbs and of all databases that share a group with one of
// them, and puts it in the place of those groups.
func (r *registry) grow(ctx context.Context, dbs []*sql.DB) (*group, error) {
	known := r.together(dbs)
	for _, db := range dbs {
		if slices.ContainsFunc(known, func(d *database) bool { return d.pool == db }) {
			continue
		}
		d, err := identify(ctx, db)
		if err != nil {
			return nil, fmt.Errorf("twophase: %w", err)
		}
		for _, other := range known {
			if err := d.mayShare(ctx, other); err != nil {
				return nil, fmt.Errorf("twophase: %w", err)
			}
		}
		known = append(known, d)
	}
	g, err := r.open(ctx, known)
	if err != nil {
		return nil, fmt.Errorf("twophase: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for db := range g.members {
		if old := r.groups[db]; old != nil {
			r.retireLocked(old)
		}
	}
	for db := range g.members {
		r.groups[db] = g
	}
	g.users++
	return g, nil
}

// together returns the databases that share a group with one of dbs.
func (r *registry) together(dbs []*sql.DB) []*database {
	r.mu.Lock()
	defer r.mu.Unlock()
	var known []*database
	for _, db := range dbs {
		g := r.groups[db]
		if g == nil {
			continue
		}
		for _, m := range g.members {
			if !slices.Contains(known, m.database) && !isClosed(m.pool) {
				known = append(known, m.database)
			}
		}
	}
	return known
}

// open makes a group. A database that was reached before and is not now joins when
// it is back.
func (r *registry) open(ctx context.Context, known []*database) (*group, error) {
	g := &group{members: make(map[*sql.DB]*member, len(known)), gone: make(chan struct{})}
	first := make(map[string]*member) // by identity
	var resources []troth.Resource
	for _, d := range known {
		m := &member{database: d}
		if same := first[d.identity]; same != nil {
			m.resource, m.branch = same.resource, same.branch
		} else {
			m.resource, m.branch = d.kind.resource(namePrefix+d.identity, d.pool)
			first[d.identity] = m
			resources = append(resources, m.resource)
		}
		g.members[d.pool] = m
	}
	var err error
	g.mgr, err = troth.Open(ctx, troth.Config{
		Domain:           domain,
		Resources:        resources,
		Logger:           slog.Default(),
		Observer:         &troth.Observer{RecoverPass: func(int, int, time.Duration) { r.passed(g) }},
		LifeMax:          timeoutMax,
		AllowUnreachable: true,
	})
	return g, err
}

// passed lets a group end if one of its databases was closed. The others get a
// new one with their next use.
func (r *registry) passed(g *group) {
	if !g.closed() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for db := range g.members {
		if r.groups[db] == g { // false for a group that is only being opened
			r.retireLocked(g)
			return
		}
	}
}

// retireLocked takes a group away from new users. It ends with its last one.
func (r *registry) retireLocked(g *group) {
	if g.retired {
		return
	}
	for db := range g.members {
		delete(r.groups, db)
	}
	g.retired = true
	r.retired[g] = struct{}{}
	r.endLocked(g)
}

func (r *registry) endLocked(g *group) {
	if !g.retired || g.users > 0 {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := g.close(ctx); err != nil {
			slog.Default().WarnContext(ctx, "twophase: end of a manager", "err", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.retired, g)
	}()
}

func (r *registry) shutdown(ctx context.Context, dbs []*sql.DB) error {
	r.mu.Lock()
	ending := make(map[*group]struct{})
	concerned := func(g *group) bool {
		return len(dbs) == 0 || slices.ContainsFunc(dbs, func(db *sql.DB) bool { return g.members[db] != nil })
	}
	for g := range r.retired {
		if concerned(g) {
			ending[g] = struct{}{}
		}
	}
	for _, g := range r.groups {
		if concerned(g) {
			ending[g] = struct{}{}
			r.retireLocked(g)
		}
	}
	r.mu.Unlock()

	results := make(chan error, len(ending))
	for g := range ending {
		go func() { results <- g.close(ctx) }()
	}
	var errs []error
	for range ending {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}
