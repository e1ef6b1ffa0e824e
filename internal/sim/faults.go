package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// setting is what a seed draws for its world: swarm testing switches each kind of
// fault on or off for a whole run, because faults that never rest hide each other.
type setting struct {
	processes    int
	kinds        []kind
	register     registerKind
	plans        int
	clients      int // programs per process
	recoverEvery time.Duration
	restless     time.Duration // faults go on so long even if the programs are done

	timeOdds  int           // one step in so many lets time pass
	timeStep  time.Duration // at most so much
	faultsFor time.Duration // the first phase, at most
	asksLate  bool          // everybody asks for every outcome at the end, and again later

	crash, freeze, kill, partition, sessions bool
	loss, late, double                       int // one call in so many; 0: none
	faultOdds                                int // one step in so many
	faultsMax                                int
	powerCuts                                bool // a crash takes what was not synced with it
	clocks                                   time.Duration
	foreign                                  bool // prepared branches of other programs
	twoMessages                              bool // a decision and its commit go apart
	refusesReaders                           bool // at their end: what they read does not hold together
}

type registerKind uint8

const (
	homeRegister registerKind = iota
	fileRegister
	sqlRegister
)

func drawSetting(rng *rand.Rand, deep bool) setting {
	on := func() bool { return rng.IntN(2) == 0 }
	odds := func(n int) int {
		if on() {
			return n
		}
		return 0
	}
	s := setting{
		processes: 1 + rng.IntN(3),
		register:  registerKind(rng.IntN(3)),
		plans:     2 + rng.IntN(4),
		clients:   1 + rng.IntN(2),
		timeOdds:  4 + rng.IntN(60),
		timeStep:  []time.Duration{time.Millisecond, 100 * time.Millisecond, 3 * time.Second}[rng.IntN(3)],
		crash:     on(), freeze: on(), kill: on(), partition: on(), sessions: on(),
		loss: odds(10), late: odds(10), double: odds(10),
		restless:  time.Duration(rng.Int64N(int64(12 * time.Second))),
		faultOdds: 3 + rng.IntN(20),
		faultsMax: rng.IntN(9),
		powerCuts: on(),
		foreign:   on(),
		faultsFor: faultsFor,

		recoverEvery: 3 * time.Second,
		asksLate:     rng.IntN(4) == 0,
		twoMessages:  on(),
	}
	if on() {
		s.clocks = []time.Duration{time.Hour, 24 * 365 * 10 * time.Hour}[rng.IntN(2)]
	}
	if rng.IntN(16) == 0 { // a slow world, in which records grow old
		s.timeStep, s.faultsFor, s.restless, s.recoverEvery = 20*time.Second, 5*time.Minute, 3*time.Minute, 9*time.Second
	}
	n := 2 + rng.IntN(3)
	for range n {
		s.kinds = append(s.kinds, []kind{kindPostgres, kindMariaDB}[rng.IntN(2)])
	}
	if deep { // neither a file nor SQLite is simulated there; and everything takes more steps
		s.timeOdds *= 8
		s.faultOdds *= 4
		s.loss *= 6
		s.late *= 4
		s.register = []registerKind{homeRegister, sqlRegister}[rng.IntN(2)]
	} else if rng.IntN(4) == 0 {
		s.kinds[rng.IntN(n)] = kindSQLite
	}
	if s.register == fileRegister {
		s.processes = 1 // it has one owner
	}
	s.refusesReaders = rng.IntN(4) == 0
	return s
}

// fate is what the network does to a call.
type fate uint8

const (
	keep        fate = iota
	loseRequest      // it never arrives, and the connection breaks
	loseAnswer       // it is carried out, and the connection breaks
	loseTouch        // the caller gives up at once; it may be carried out later
	lateAnswer
	twice // what has no session is carried out again later
)

func (w *world) drawFate(c *call) fate {
	if !w.rough() || !c.to.remote {
		return keep
	}
	f := &w.cfg
	if f.loss > 0 && w.rng.IntN(f.loss) == 0 {
		return []fate{loseRequest, loseAnswer, loseTouch}[w.rng.IntN(3)]
	}
	if f.late > 0 && w.rng.IntN(f.late) == 0 {
		return lateAnswer
	}
	if f.double > 0 && w.rng.IntN(f.double) == 0 {
		return twice
	}
	return keep
}

// maybeFault lets something break now and then, or mend.
func (w *world) maybeFault() bool {
	if w.killCommitted() {
		return true
	}
	if w.rng.IntN(w.cfg.faultOdds) != 0 {
		return false
	}
	if w.rng.IntN(2) == 0 {
		return w.mend()
	}
	if w.faults >= w.cfg.faultsMax {
		return false
	}
	var kinds []func(*world) bool
	add := func(on bool, f func(*world) bool) {
		if on {
			kinds = append(kinds, f)
		}
	}
	add(w.cfg.crash, (*world).crashOne)
	add(w.cfg.crash, (*world).crashOne) // the most frequent, as in life
	add(w.cfg.freeze, (*world).freezeOne)
	add(w.cfg.kill, (*world).killOne)
	add(w.cfg.partition, (*world).partitionOne)
	add(w.cfg.sessions, (*world).endSessionOfOne)
	if len(kinds) == 0 || !kinds[w.rng.IntN(len(kinds))](w) {
		return false
	}
	w.faults++
	return true
}

// mend undoes one fault.
func (w *world) mend() bool {
	var ways []func()
	for slot := range w.cfg.processes {
		if w.at(slot) == nil {
			ways = append(ways, func() { w.startProcess(slot) })
		}
	}
	for _, p := range w.processes {
		if p.frozen {
			ways = append(ways, func() { w.thaw(p) })
		}
	}
	for _, s := range w.stores {
		if !s.up {
			ways = append(ways, func() { w.restart(s) })
		}
	}
	if len(w.cut) > 0 {
		ways = append(ways, func() { w.note("links mended"); clear(w.cut) })
	}
	if len(ways) == 0 {
		return false
	}
	ways[w.rng.IntN(len(ways))]()
	return true
}

// at is the living process of a slot, nil if there is none.
func (w *world) at(slot int) *process {
	for _, p := range w.processes {
		if p.slot == slot && !p.dead.Load() {
			return p
		}
	}
	return nil
}

func (w *world) crashOne() bool {
	p := w.at(w.rng.IntN(w.cfg.processes))
	if p == nil {
		return false
	}
	w.crash(p)
	return true
}

// crash is SIGKILL, or the loss of the machine.
func (w *world) crash(p *process) {
	w.note("crash p%d.%d", p.slot, p.incarnation)
	p.dead.Store(true)
	p.frozen = false
	for _, c := range slices.Clone(w.calls) {
		if c.by != p {
			continue
		}
		if c.state != callAnswered && w.rng.IntN(2) == 0 { // it is on its way already
			w.calls = append(w.calls, c.orphan())
		}
		w.remove(c)
		w.reply(c, nil, errDead)
	}
	for _, s := range w.stores {
		for _, sess := range slices.Clone(s.sessions) {
			if sess.slot == p.slot && sess.incarnation == p.incarnation {
				w.hangUp(sess)
			}
		}
	}
	if w.register != nil && w.cfg.register == fileRegister {
		w.register.backend.(*model).powerCut(w.cfg.powerCuts, w.rng)
	}
	w.goes(func() { p.bury() })
}

func (w *world) freezeOne() bool {
	p := w.at(w.rng.IntN(w.cfg.processes))
	if p == nil || p.frozen {
		return false
	}
	w.note("freeze p%d.%d", p.slot, p.incarnation)
	p.frozen = true
	for _, c := range w.calls {
		if c.by == p {
			c.inKernel = w.rng.IntN(2) == 0
		}
	}
	return true
}

func (w *world) thaw(p *process) {
	w.note("thaw p%d.%d", p.slot, p.incarnation)
	p.frozen = false
}

func (w *world) killOne() bool {
	return w.kill(w.stores[w.rng.IntN(len(w.stores))])
}

func (w *world) kill(s *store) bool {
	if !s.up || !s.remote {
		return false
	}
	w.note("kill s%d", s.no)
	s.up = false
	s.changed++
	for _, sess := range slices.Clone(s.sessions) {
		sess.end()
	}
	s.kill(w.rng)
	return true
}

func (w *world) restart(s *store) {
	if !s.up {
		w.note("restart s%d", s.no)
		s.up = true
		s.restarted()
		s.changed++
	}
}

func (w *world) partitionOne() bool {
	l := link{slot: w.rng.IntN(w.cfg.processes), store: w.rng.IntN(len(w.stores))}
	if !w.stores[l.store].remote {
		return false
	}
	w.note("cut p%d from s%d", l.slot, l.store)
	w.cut[l] = true
	return true
}

// endSessionOfOne is an administrator who ends a session.
func (w *world) endSessionOfOne() bool {
	s := w.stores[w.rng.IntN(len(w.stores))]
	if len(s.sessions) == 0 || !s.remote {
		return false
	}
	sess := s.sessions[w.rng.IntN(len(s.sessions))]
	w.note("end a session at s%d", s.no)
	sess.end()
	s.changed++
	return true
}
