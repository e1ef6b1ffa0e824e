package torture

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/sqlregister"
)

// PointsOptions say which points to come to, and what to do there.
type PointsOptions struct {
	Actions []string // of "kill", "freeze", "cut-before", "cut-after"; defaults to all
	Only    []string // names of points; defaults to all
	Seed    uint64
	First   int      // the first round: what differs between rounds depends on its number
	Rounds  int      // each comes to every point with every action once; defaults to 1
	Lanes   int      // cycles at the same time; defaults to 8
	Stop    bool     // begin no cycle after one that failed
	Command []string // of the program under torture, see PointsChild
	Dir     string   // for logs and SQLite's files; made if it is not there
	Out     io.Writer
}

// Points brings programs to every named fault point, does each action there, and
// looks from outside what came of it, on all pairs of databases and with all
// registers in turns. If a promise was broken, or a point was not reached, the error
// wraps ErrViolation, and what was printed holds the command that does it again.
func Points(ctx context.Context, o PointsOptions) error {
	r := &pointsRun{opts: o, begun: time.Now(), cells: make(map[string]*pointCell)}
	cycles, err := r.plan()
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if r.world, err = newWorld(ctx, dir, []string{"ma1", "ma2", "pg1", "pg2"}, 1); err != nil {
		return err
	}
	defer r.world.close()
	lanes := o.Lanes
	if lanes <= 0 {
		lanes = 8 // a cycle waits more than it works
	}
	for _, d := range r.world.databases {
		if err := d.plantForeign(ctx); err != nil {
			return err
		}
		d.db.SetMaxIdleConns(lanes) // nobody kills its server here
		r.printf("%s is %s", d.name, d.version(ctx))
	}
	r.printf("seed %d: %d cycles, %d at a time", o.Seed, len(cycles), lanes)
	r.cyclesBegun = time.Now()
	err = r.runLanes(ctx, dir, lanes, cycles)
	r.table()
	return errors.Join(err, r.verdict())
}

// A pointsRun is a run of Points.
type pointsRun struct {
	opts        PointsOptions
	begun       time.Time
	cyclesBegun time.Time
	world       *world
	accounts    atomic.Int64 // given out

	mu     sync.Mutex // guards what follows, and Out
	cells  map[string]*pointCell
	done   int
	failed int
	lost   int
	memory []remembered
}

// remembered is what was said in a cycle, to be compared once more at the end.
type remembered struct {
	cycle *cycle
	told  map[string]string
}

func (r *pointsRun) remember(c *cycle, told map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.memory = append(r.memory, remembered{c, told})
}

func (r *pointsRun) printf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintf(r.opts.Out, format+"\n", args...)
}

// plan draws the cycles of all rounds.
func (r *pointsRun) plan() ([]*cycle, error) {
	actions := pointActions
	if len(r.opts.Actions) > 0 {
		actions = nil
		for _, name := range r.opts.Actions {
			if !slices.Contains(pointActions, pointAction(name)) {
				return nil, fmt.Errorf("there is no action %q: use some of %v", name, pointActions)
			}
			actions = append(actions, pointAction(name))
		}
	}
	points := faultpoint.Points()
	for _, name := range r.opts.Only {
		if !slices.ContainsFunc(points, func(p faultpoint.Point) bool { return p.Name == name }) {
			return nil, fmt.Errorf("there is no fault point %q", name)
		}
	}
	var out []*cycle
	for round := r.opts.First; round < r.opts.First+max(r.opts.Rounds, 1); round++ {
		for _, p := range points {
			if len(r.opts.Only) > 0 && !slices.Contains(r.opts.Only, p.Name) {
				continue
			}
			for _, a := range actions {
				c, err := r.draw(p, a, round)
				if err != nil {
					return nil, err
				}
				c.number = len(out)
				out = append(out, c)
			}
		}
	}
	// Cycles that take long are neighbours in the list: spread them over the lanes.
	rng := rand.New(rand.NewPCG(r.opts.Seed, 0))
	rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out, nil
}

// draw chooses where a cycle plays. It depends on the seed, the point, the action
// and the round alone, so that a run of this cycle alone repeats it. The rounds
// take turns through all places, and so do the actions.
func (r *pointsRun) draw(p faultpoint.Point, a pointAction, round int) (*cycle, error) {
	all, s, err := fitting(p)
	if err != nil {
		return nil, err
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, p.Name)
	rng := rand.New(rand.NewPCG(r.opts.Seed, h.Sum64()))
	turn := rng.IntN(len(all)) + slices.Index(pointActions, a) + len(pointActions)*round
	c := &cycle{run: r, point: p, action: a, round: round, nth: 1, scenario: s, variant: all[turn%len(all)]}
	c.draw = rand.New(rand.NewPCG(r.opts.Seed, h.Sum64()+uint64(turn)))
	if round > 0 {
		c.nth += c.draw.IntN(3)
	}
	return c, nil
}

// runLanes runs the cycles, and looks at the end that nothing has changed since.
func (r *pointsRun) runLanes(ctx context.Context, dir string, lanes int, cycles []*cycle) error {
	queue := make(chan *cycle)
	var wg sync.WaitGroup
	errs := make([]error, lanes)
	all := make([]*lane, lanes)
	for i := range lanes {
		l := &lane{run: r, no: i, dir: filepath.Join(dir, fmt.Sprintf("lane-%d", i)), handles: make(map[string]*sql.DB)}
		all[i] = l
		if err := l.open(ctx); err != nil {
			return errors.Join(err, l.close())
		}
		wg.Go(func() {
			for c := range queue {
				if errs[i] == nil {
					errs[i] = l.cycle(ctx, c)
				}
			}
		})
	}
	for _, c := range cycles {
		if ctx.Err() != nil || r.opts.Stop && r.failures() > 0 {
			break
		}
		queue <- c
	}
	close(queue)
	wg.Wait()
	errs = append(errs, ctx.Err())
	if ctx.Err() == nil {
		r.compareAgain(ctx)
	}
	for _, l := range all {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// compareAgain holds what was said in all cycles against the databases at the end
// of the run (I3: for ever).
func (r *pointsRun) compareAgain(ctx context.Context) {
	for _, m := range r.memory {
		a, b, err := m.cycle.journals(ctx)
		if err == nil {
			err = m.cycle.compare(m.told, a, b)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.fail(m.cycle, fmt.Errorf("at the end of the run: %w", err))
		}
	}
}

// A lane runs one cycle at a time. Its programs have a domain of their own, so that
// the lanes, which share the databases, leave each other alone (R7).
type lane struct {
	run     *pointsRun
	no      int
	lives   int // domains so far
	dir     string
	domain  string
	lite    *database
	handles map[string]*sql.DB
	planted map[string]string // a branch of our domain and another cluster, by database
	foreign []string          // their gids

	mu         sync.Mutex // guards what follows
	complaints []error
}

func (l *lane) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complaints = append(l.complaints, fmt.Errorf(format, args...))
}

func (l *lane) open(ctx context.Context) error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	var err error
	if l.lite, err = startDatabase(ctx, l.dir, "lite"); err != nil {
		return err
	}
	if err := l.lite.fill(ctx, 1, 1); err != nil {
		return err
	}
	return l.renew(ctx)
}

// renew gives the lane another domain, so that a failed cycle does not spoil those
// after it, and plants another cluster's branch in it on every server.
func (l *lane) renew(ctx context.Context) error {
	l.domain = fmt.Sprintf("points-%d-%d", l.no, l.lives)
	l.lives++
	l.planted, l.foreign = make(map[string]string), nil
	for _, d := range l.run.world.databases {
		// The same database's name, but not its register.
		place := troth.Place{Resource: d.name, Identity: troth.NewIdentity()}
		x := troth.XID{GID: troth.NewGID(l.domain, time.Now()), Place: place, Branch: 1}
		native := "'" + x.String() + "'"
		if d.engine == engineMariaDB {
			native = nativeXA(troth.FormatID, x.GTRID(), x.BQUAL())
		}
		if err := d.prepareForeign(ctx, plant{what: "another cluster of " + l.domain, native: native}); err != nil {
			return fmt.Errorf("%s: plant a branch: %w", d.name, err)
		}
		l.planted[d.name] = native
		l.foreign = append(l.foreign, string(x.GID))
	}
	return nil
}

// owns reports whether a prepared branch is of the lane's domain.
func (l *lane) owns(native string) bool {
	return strings.Contains(native, ":"+l.domain+".") || strings.Contains(native, hex.EncodeToString([]byte(l.domain+".")))
}

// handle is this process's own connection to a database.
func (l *lane) handle(d *database) (*sql.DB, error) {
	if db := l.handles[d.name]; db != nil {
		return db, nil
	}
	driver := map[engine]string{enginePostgres: "pgx", engineMariaDB: "mysql", engineSQLite: "sqlite"}[d.engine]
	db, err := openHandle(driver, d.dsn)
	if err == nil {
		l.handles[d.name] = db
	}
	return db, err
}

// openRegister is openPointsRegister, for this process.
func (l *lane) openRegister(d *database, spec string) (troth.Register, error) {
	if !strings.HasPrefix(spec, "pgx=") {
		return openPointsRegister(spec)
	}
	db, err := l.handle(d)
	if err != nil {
		return nil, err
	}
	return sqlregister.New(db), nil
}

func (l *lane) close() error {
	var errs []error
	for _, db := range l.handles {
		errs = append(errs, db.Close())
	}
	if l.lite != nil && l.lite.db != nil {
		errs = append(errs, l.lite.db.Close())
	}
	return errors.Join(errs...)
}

// cycle runs one cycle and notes what came of it. An error is the harness's own.
func (l *lane) cycle(ctx context.Context, c *cycle) error {
	if ctx.Err() != nil {
		return nil // told once, by the run
	}
	c.lane = l
	err := c.torture(ctx)
	if errors.Is(err, errNotReached) && c.nth > 1 { // not every point is hit so often
		c.nth, c.victims, c.frozen, c.lost = 1, nil, nil, 0
		err = c.torture(ctx)
	}
	l.mu.Lock()
	err = errors.Join(append(l.complaints, err)...)
	l.complaints = nil
	l.mu.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	l.run.finish(c, err)
	if err != nil {
		return l.renew(ctx)
	}
	return os.RemoveAll(c.logDir())
}
