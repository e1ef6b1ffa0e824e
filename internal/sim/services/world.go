package services

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store/memory"
)

// Options say what to run.
type Options struct {
	Seed  uint64
	Trace io.Writer // nil: none
}

// A Result is what came of a run: the same for the same seed.
type Result struct {
	Hash       uint64 // of everything that happened, and when
	Calls      int    // of participants
	Faults     int
	Succeeded  int
	Failed     int
	Violations []string // empty if all is well
}

// Run runs one seed. t is only used for its bubble.
func Run(t *testing.T, o Options) Result {
	var r Result
	synctest.Test(t, func(t *testing.T) { r = newWorld(t, o).run() })
	return r
}

// The phases of a run, in virtual time.
const (
	faultsFor = 2 * time.Minute
	endsAfter = 6 * time.Hour // pauses grow to 10 min, and what was frozen wakes before
)

type world struct {
	t     *testing.T
	opt   Options
	cfg   setting
	began time.Time

	disk *memory.Store
	late sync.WaitGroup // calls that are on their way for long

	mu        sync.Mutex // guards what follows
	nth       map[string]int
	processes []*process // by slot; a slot's process is replaced when it dies
	book      book
	services  services
	trace     *trace
}

// setting is what a seed draws first: which kinds of faults there are, and how many of
// everything.
type setting struct {
	processes, programs int

	storeLoses, callsLost, late, twice, unwilling, ongoing, deaths, freezes, vanish bool

	narrow bool // engines have room for little: calls are put off, and transactions forgotten
}

func newWorld(t *testing.T, o Options) *world {
	w := &world{t: t, opt: o, began: time.Now(), disk: memory.New(), nth: make(map[string]int)}
	rng := w.draw("setting")
	on := func() bool { return rng.IntN(2) == 0 }
	w.cfg = setting{
		processes: 1 + rng.IntN(3), programs: 4 + rng.IntN(12),
		storeLoses: on(), callsLost: on(), late: on(), twice: on(), unwilling: on(), ongoing: on(), deaths: on(), freezes: on(), vanish: on(),
		narrow: on(),
	}
	w.trace = &trace{out: o.Trace}
	w.services.init(w)
	w.book.init(w)
	return w
}

// draw returns the choices that the seed makes for a crossing. key says who asks what.
func (w *world) draw(key string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // never fails
	return rand.New(rand.NewPCG(w.opt.Seed, h.Sum64()))
}

// again returns the choices for a key's next occurrence.
func (w *world) again(key string) (rng *rand.Rand, n int) {
	w.mu.Lock()
	w.nth[key]++
	n = w.nth[key]
	w.mu.Unlock()
	return w.draw(fmt.Sprint(key, "#", n)), n
}

// takes is how long something takes: never the same time twice.
func takes(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Microsecond + time.Duration(rng.Int64N(int64(most)))
}

func (w *world) faulty() bool { return time.Since(w.began) < faultsFor }

// fault reports whether a fault of a kind that this world has happens now.
func (w *world) fault(kind bool, rng *rand.Rand, oneIn int) bool {
	if !kind || rng.IntN(oneIn) > 0 || !w.faulty() {
		return false
	}
	w.mu.Lock()
	w.book.faults++
	w.mu.Unlock()
	return true
}

func (w *world) run() Result {
	for slot := range w.cfg.processes {
		w.processes = append(w.processes, nil)
		w.start(slot)
	}
	var all sync.WaitGroup
	for i := range w.cfg.programs {
		all.Go(func() { w.program(i) })
	}
	stop := make(chan struct{})
	for slot := range w.cfg.processes {
		all.Go(func() { w.disturb(slot, stop) })
	}
	time.Sleep(faultsFor)
	close(stop)
	all.Wait()
	for until := time.Now().Add(endsAfter); time.Now().Before(until) && !w.over(); {
		time.Sleep(time.Minute)
	}
	w.late.Wait()
	w.check()
	for _, p := range w.processes {
		p.close()
	}
	b := &w.book
	return Result{Hash: w.trace.sum, Calls: w.services.calls, Faults: b.faults, Succeeded: b.succeeded, Failed: b.failed, Violations: b.violations}
}

// A process runs an engine. When it is dead nothing that it does has an effect.
type process struct {
	world  *world
	name   string
	engine *engine.Engine

	mu     sync.Mutex
	dead   bool
	thawed chan struct{} // closed: it runs
}

func (w *world) start(slot int) {
	_, n := w.again(fmt.Sprint("process", slot))
	p := &process{world: w, name: fmt.Sprintf("p%d.%d", slot, n), thawed: make(chan struct{})}
	close(p.thawed)
	cfg := engine.Config{Caller: caller{p}, Jitter: func(d time.Duration) time.Duration { return d }}
	if w.cfg.narrow {
		cfg.CallsMax, cfg.CallsPerHostMax, cfg.WaitingMax, cfg.BytesMax, cfg.ClaimMax = 3, 2, 1, 6<<10, 3
		cfg.CacheMax = 1 // of several that nobody holds an engine forgets any
	}
	e, err := engine.Open(context.Background(), &disk{Store: w.disk, process: p}, cfg)
	if err != nil {
		panic(err) // the configuration is ours
	}
	p.engine = e
	w.mu.Lock()
	w.processes[slot] = p
	w.mu.Unlock()
}

// disturb kills and freezes the process of a slot now and then.
func (w *world) disturb(slot int, stop <-chan struct{}) {
	for n := 0; ; n++ {
		rng := w.draw(fmt.Sprint("disturb", slot, "#", n))
		select {
		case <-stop:
			return
		case <-time.After(takes(rng, 30*time.Second)):
		}
		w.mu.Lock()
		p := w.processes[slot]
		w.mu.Unlock()
		switch {
		case w.fault(w.cfg.deaths, rng, 2):
			w.note("%s dies", p.name)
			p.kill()
			time.Sleep(takes(rng, 20*time.Second))
			w.start(slot)
		case w.fault(w.cfg.freezes, rng, 2):
			w.note("%s freezes", p.name)
			p.freeze(takes(rng, time.Minute))
		}
	}
}

func (p *process) kill() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.close()
}

func (p *process) close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.engine.Close(ctx)
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

func (p *process) freeze(d time.Duration) {
	thawed := make(chan struct{})
	p.mu.Lock()
	p.thawed = thawed
	p.mu.Unlock()
	time.Sleep(d)
	close(thawed)
}

// cross is where a process reaches the world outside: it takes time, longer if the
// process is frozen, and comes to nothing if it is dead. Whoever returns is the only one
// that wakes at that instant: two that wake together would run in any order.
func (p *process) cross(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
	case <-ctx.Done():
		time.Sleep(d) // as below: calls that began together have no more time together
		return ctx.Err()
	}
	p.mu.Lock()
	thawed := p.thawed
	p.mu.Unlock()
	select {
	case <-thawed:
	default:
		<-thawed
		time.Sleep(d) // all wake at once, and go on one after the other
	}
	if p.isDead() {
		return errDead
	}
	return nil
}
