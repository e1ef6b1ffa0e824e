package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say how to torture.
type Options struct {
	Duration  time.Duration // of the whole run; at least one epoch is run
	Epochs    int           // not 0: so many epochs, and Duration does not count
	First     int           // the number of the first epoch: those before are left out
	Epoch     time.Duration // under faults, of one epoch; defaults to 60 s
	Calm      time.Duration // before and after, to measure the load; defaults to 3 s
	Seed      uint64
	Register  string   // "home", "sql", "file", or "all" in turns
	Databases []string // defaults to all
	Command   []string // of the child's program, see Child
	Mines     bool     // the child's program has fault points
	Dir       string   // for what a failing epoch leaves; made if it is not there
	Keep      bool     // what good epochs leave, too
	Out       io.Writer

	// MinLoad is how many transactions a second the clients must commit before the
	// faults for the run to count, and LoadUnder which part of that under faults.
	MinLoad   float64
	LoadUnder float64

	// MinCycles is how many kill-and-recover cycles a second the run must make, from
	// its first start of a database to its last check, to count.
	MinCycles float64

	// MinServerKills is how many kills of databases a minute under faults must have, on
	// average, for the run to count if it has [epochsMin] epochs or more: only every
	// second has any.
	MinServerKills float64

	replay *epochPlan // run this one epoch
}

// ErrViolation says that a promise was broken.
var ErrViolation = errors.New("torture: a promise was broken")

// ErrTooLittle says that nothing was found, and too little was done for that to mean much.
var ErrTooLittle = errors.New("torture: too little was done for the run to count")

// Random tortures with schedules drawn from the seed, until the duration is over
// or a promise is broken: then the error wraps ErrViolation, and the epoch's
// directory holds its plan, histories and logs.
func Random(ctx context.Context, o Options) error {
	r, err := begin(ctx, o)
	if err != nil {
		return err
	}
	defer r.world.close()
	err = r.epochs(ctx)
	took := time.Since(r.begun)
	r.report.table(took)
	if err = errors.Join(err, r.verdict(took)); err == nil && !o.Keep {
		r.clean()
	}
	return err
}

// clean removes what a good run leaves, and the directory if it then is empty.
func (r *run) clean() {
	for _, name := range []string{logDir, "bank.db", "bank.db-wal", "bank.db-shm"} {
		_ = os.RemoveAll(filepath.Join(r.opts.Dir, name)) // what stays is seen and harmless
	}
	_ = os.Remove(r.opts.Dir)
}

// begin starts the databases, and plants what must stay as it is. The caller
// closes the world.
func begin(ctx context.Context, o Options) (*run, error) {
	if len(o.Databases) == 0 {
		o.Databases = allDatabases
	}
	if o.Epoch == 0 {
		o.Epoch = time.Minute
	}
	if o.Calm == 0 {
		o.Calm = 3 * time.Second
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	r := &run{opts: o, begun: time.Now(), report: newReport(o.Out)}
	r.report.printf("seed %d", o.Seed)
	if r.world, err = newWorld(ctx, o.Dir, o.Databases, accounts); err != nil {
		return nil, err
	}
	for _, d := range r.world.databases {
		if err := d.plantForeign(ctx); err != nil {
			r.world.close()
			return nil, err
		}
		r.report.versions = append(r.report.versions, d.name+" "+d.version(ctx))
	}
	return r, nil
}

// accounts is how many each database has, besides the pots.
const accounts = 1000

// Many managers with few clients: what the death of a process costs is above all the
// sessions that the next one has to open, six milliseconds of work each on PostgreSQL.
const (
	managers = 6
	clients  = 3 // of each
)

// A run is a run of Random.
type run struct {
	opts    Options
	begun   time.Time
	world   *world
	report  *report
	started atomic.Int64
	start   map[string]map[int]int64

	mu         sync.Mutex // guards what follows
	violations []string
	stop       func() // ends the faults of the epoch
}

// fail takes note of a violation.
func (r *run) fail(format string, args ...any) {
	v := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.violations = append(r.violations, v)
	n, stop := len(r.violations), r.stop
	r.mu.Unlock()
	if stop != nil {
		stop() // what comes after a violation explains nothing
	}
	if n <= violationsShown {
		r.report.printf("VIOLATION %s", clip(v))
	}
}

// violationsShown is how many are printed as they are found.
const violationsShown = 20

func (r *run) failures() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.violations)
}

func (r *run) verdict(took time.Duration) error {
	if n := len(r.failures()); n > 0 {
		return fmt.Errorf("%w: %d violations", ErrViolation, n)
	}
	return r.report.enough(r.opts, took)
}

func (r *run) epochs(ctx context.Context) error {
	balances := make(map[string]map[int]int64)
	for _, d := range r.world.databases {
		balances[d.name] = make(map[int]int64)
		for a := 1; a <= accounts; a++ {
			balances[d.name][a] = startBalance
		}
		for a := range len(pairs(len(r.world.databases))) * pots {
			balances[d.name][-1-a] = startBalance
		}
	}
	r.start = balances
	if r.opts.replay != nil {
		return r.epoch(ctx, r.opts.replay)
	}
	for n := 0; ctx.Err() == nil && (n < max(r.opts.Epochs, 1) || r.opts.Epochs == 0 && time.Since(r.begun) < r.opts.Duration); n++ {
		if err := r.epoch(ctx, r.plan(r.opts.First+n)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// plan decides everything about an epoch.
func (r *run) plan(n int) *epochPlan {
	rng := seeded(r.opts.Seed, n, purposePlan)
	e := &epochPlan{
		Run: r.opts.Seed, Epoch: n, Register: r.opts.Register, Databases: r.opts.Databases,
		Managers: managers, Spared: 1, Clients: clients, Accounts: accounts, Length: r.opts.Epoch,
	}
	if e.Register == "all" {
		e.Register = []string{"home", "sql", "file"}[n%3]
	}
	if rng.IntN(3) == 0 {
		e.Accounts = 20 // so few that transactions wait for each other
	}
	// Short enough for records to be forgotten under way, or so long that every
	// outcome can be told.
	e.Keep = []time.Duration{time.Second, 2 * time.Minute}[rng.IntN(2)]
	e.drawFaults(r.opts.Mines)
	return e
}

// epoch runs one epoch and its checks. An error means that the harness failed.
func (r *run) epoch(ctx context.Context, plan *epochPlan) error {
	dir := filepath.Join(r.opts.Dir, fmt.Sprintf("epoch-%d", plan.Epoch))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := plan.store(filepath.Join(dir, planFile)); err != nil {
		return err
	}
	if err := r.world.newLists(ctx, plan.keys()); err != nil {
		return err
	}
	f, err := newFleet(r.world, plan, dir)
	if err != nil {
		return err
	}
	f.command, f.started, f.said, f.failed = r.opts.Command, &r.started, r.heard, r.fail
	defer f.abandon()
	l, err := newLedger(f, filepath.Join(dir, "history-polls.jsonl"), r.fail)
	if err != nil {
		return err
	}
	e := &epochRun{run: r, plan: plan, fleet: f, ledger: l, health: newHealth(r.world, l.cluster, r.fail), dir: dir}
	err = e.all(ctx)
	if err != nil {
		err = fmt.Errorf("epoch %d: %w", plan.Epoch, err)
	}
	if err == nil && len(r.failures()) == 0 {
		if r.opts.Keep {
			return nil
		}
		return os.RemoveAll(dir)
	}
	r.leave(dir)
	if err == nil {
		err = errStop
	}
	return err
}

// errStop ends a run after an epoch with violations, which say the rest.
var errStop = errors.New("stopped")

// leave says what a failed epoch has left, and how to run it again.
func (r *run) leave(dir string) {
	var b strings.Builder
	for _, v := range r.failures() {
		fmt.Fprintln(&b, v)
	}
	_ = os.WriteFile(filepath.Join(dir, "violations.txt"), []byte(b.String()), 0o644) // they were printed too
	for _, d := range r.world.databases {
		if d.server != nil {
			_ = os.WriteFile(filepath.Join(dir, d.name+".log"), []byte(d.server.Log()), 0o644)
		}
	}
	r.report.printf("seed %d; plan, histories and logs are in %s; to run its faults again:", r.opts.Seed, dir)
	r.report.printf("  go run -tags faultpoint ./cmd/torture replay %s", filepath.Join(dir, planFile))
}

const planFile = "plan.json"

func (e *epochPlan) store(path string) error {
	b, err := json.MarshalIndent(e, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

// heard takes what a child says unasked.
func (r *run) heard(p *process, kind, rest string) {
	switch kind {
	case "violation":
		r.fail("%s", rest)
	case "heuristic":
		r.fail("I8: nobody touched a branch, and manager %d, process %d, reports: %s", p.slot, p.number, rest)
	default:
		r.fail("harness: manager %d, process %d, says: %s %s", p.slot, p.number, kind, rest)
	}
}
