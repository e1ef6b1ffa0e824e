package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troth-tx/troth"
)

// Options say what to run.
type Options struct {
	Seed  uint64
	Deep  bool      // the real resource managers over simulated SQL servers
	Trace io.Writer // nil: none
}

// A Result is what came of a run.
type Result struct {
	Seed       uint64
	Hash       uint64 // of everything that happened: equal for equal seeds
	Steps      int    // calls carried out
	Faults     int
	Committed  int
	Aborted    int
	Returned   int      // one-phase commits that a crash brought back as prepared
	Violations []string // empty if all is well
}

// Run runs one seed. t is only used for its bubble.
func Run(t *testing.T, o Options) Result {
	var r Result
	synctest.Test(t, func(*testing.T) { r = newWorld(o).run() })
	return r
}

// world is everything in one run.
type world struct {
	opt   Options
	rng   *rand.Rand // drawn from by the scheduler alone
	cfg   setting
	trace trace
	began time.Time

	kick  chan struct{} // a call came in while the scheduler was idle. Capacity 1
	idle  atomic.Bool   // the scheduler waits for a kick, see passTime
	alarm *time.Timer   // passTime's
	inbox struct {
		sync.Mutex
		calls []*call
		ended []*call // to be used again
	}
	taken []*call // settle's, from the inbox
	calls []*call // in flight; the scheduler's alone

	stirred bool // somebody else may have run since they all waited; the scheduler's alone

	here      *store // the process's own machine: where a program waits for its turn
	stores    []*store
	register  *store // where a register of its own keeps its decisions; nil: home participants
	processes []*process
	plans     []*plan
	todo      []*plan // not begun yet
	cut       map[link]bool
	faults    int
	started   bool
	healing   bool
	goroutine atomic.Int64 // goroutines of processes that have not ended
	book      book
}

// link is the way between a process's place and a store.
type link struct{ slot, store int }

func newWorld(o Options) *world {
	w := &world{
		opt:   o,
		rng:   rand.New(rand.NewPCG(o.Seed, 0x74726f7468)),
		kick:  make(chan struct{}, 1),
		alarm: time.NewTimer(time.Hour),
		cut:   make(map[link]bool),
		began: time.Now(),
	}
	w.trace.out = o.Trace
	w.book.init(w)
	w.cfg = drawSetting(w.rng, o.Deep)
	w.build()
	return w
}

// Bounds of a run, in virtual time.
const (
	faultsFor   = 40 * time.Second // the first phase, at most
	programsEnd = 5 * time.Minute  // after that, at most
	healsWithin = 30 * time.Second // and then nothing is in doubt any more (I4)

	forgetsWithin = 20 * time.Second // and what committed without a fault has left no record
)

func (w *world) run() Result {
	for slot := range w.cfg.processes {
		w.startProcess(slot)
	}
	w.until(w.cfg.faultsFor, func() bool { return w.programsDone() && w.since() > w.cfg.restless })
	w.heal()
	w.until(programsEnd, w.programsDone)
	if !w.programsDone() {
		w.book.violate("I7", "", "some program is not done, %v after all healed", programsEnd)
	}
	w.until(healsWithin, w.quiet)
	if w.cfg.asksLate {
		w.askAll()
		w.until(forgetsWithin, func() bool { return false })
		w.askAll()
	}
	w.book.checkEnd()
	w.shutDown()
	return Result{
		Seed: w.opt.Seed, Hash: w.trace.hash, Steps: w.trace.steps, Faults: w.faults,
		Committed: w.book.committed, Aborted: w.book.aborted, Returned: w.book.returned, Violations: w.book.violations,
	}
}

// until goes on until done, or until the time is up.
func (w *world) until(limit time.Duration, done func() bool) {
	began := time.Now()
	for w.settle(); !done() && time.Since(began) < limit; w.settle() {
		w.step()
	}
}

func (w *world) since() time.Duration { return time.Since(w.began) }

// programsDone reports whether every program is done with its plans. What the dead
// left undone goes to the living.
func (w *world) programsDone() bool {
	if w.healing && len(w.todo) > 0 {
		w.at(0).employ(w.todo)
		w.todo = nil
	}
	if len(w.todo) > 0 {
		return false
	}
	for _, p := range w.processes {
		if p.clients.Load() > 0 { // of the dead, too: they give back what they did not come to
			return false
		}
	}
	return true
}

// heal ends all faults, and starts what is down.
func (w *world) heal() {
	w.healing = true
	w.cfg.timeStep = min(w.cfg.timeStep, 10*time.Millisecond) // a network that is well
	w.note("heal")
	for _, s := range w.stores {
		w.restart(s)
	}
	clear(w.cut)
	for _, p := range w.processes {
		if p.frozen {
			w.thaw(p)
		}
	}
	for slot := range w.cfg.processes {
		if w.at(slot) == nil {
			w.startProcess(slot)
		}
	}
}

// quiet reports whether nothing is left to recover.
func (w *world) quiet() bool {
	for _, s := range w.stores {
		if s.busy() {
			return false
		}
	}
	for _, p := range w.plans {
		if p.begun && !w.book.settled(p) {
			return false
		}
	}
	return true
}

// askAll lets every process ask how every transaction ended.
func (w *world) askAll() {
	for _, p := range w.processes {
		if p.dead.Load() {
			continue
		}
		p.clients.Add(1)
		w.goes(func() {
			defer p.clients.Add(-1)
			<-p.opened
			for _, plan := range w.plans {
				p.askOutcome(plan)
			}
		})
	}
	w.until(programsEnd, w.programsDone)
}

// shutDown ends every process, the orderly way, and waits for its goroutines.
func (w *world) shutDown() {
	w.note("shut down")
	for _, p := range w.processes {
		if !p.dead.Load() {
			w.goes(func() { p.shut() })
		}
	}
	w.settle()
	for began := time.Now(); w.goroutine.Load() > 0 && time.Since(began) < time.Minute; w.settle() {
		w.step()
	}
	for _, p := range w.processes { // what still waits would keep the bubble from its end
		if !p.dead.Load() {
			w.crash(p)
		}
	}
	w.settle()
	for began := time.Now(); w.goroutine.Load() > 0; w.settle() {
		w.step()
		if time.Since(began) > time.Hour {
			w.book.violate("I12", "", "%d goroutines of dead processes do not end", w.goroutine.Load())
			panic(fmt.Sprintf("seed %d: %v", w.opt.Seed, w.book.violations))
		}
	}
}

// goes runs f on a goroutine that the run waits for. The scheduler alone calls it.
func (w *world) goes(f func()) {
	w.goroutine.Add(1)
	w.stirred = true
	go func() {
		defer func() {
			w.goroutine.Add(-1)
			w.wakeUp()
		}()
		f()
	}()
}

// wakeUp tells the scheduler to look again, if it does not anyway.
func (w *world) wakeUp() {
	if !w.idle.Load() {
		return
	}
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// trace is the log of a run, and its hash.
type trace struct {
	out   io.Writer
	hash  uint64
	steps int
}

// add mixes an entry into the hash (FNV-1a over words).
func (t *trace) add(words ...uint64) {
	if t.hash == 0 {
		t.hash = 14695981039346656037
	}
	for _, x := range words {
		t.hash = (t.hash ^ x) * 1099511628211
	}
}

// note tells the trace of something that is not a call.
func (w *world) note(format string, args ...any) {
	w.trace.add(uint64(w.since()), uint64(len(format)))
	if w.trace.out != nil {
		w.say("-- "+format, args...)
	}
}

// say writes a line of the trace.
func (w *world) say(format string, args ...any) {
	if w.trace.out != nil {
		_, _ = fmt.Fprintf(w.trace.out, "%12v  "+format+"\n", append([]any{w.since()}, args...)...) // a trace that cannot be written shows it
	}
}

// plan finds what a transaction is for; nil if it is none of ours.
func (w *world) plan(gid troth.GID) *plan { return w.book.byGID(gid) }
