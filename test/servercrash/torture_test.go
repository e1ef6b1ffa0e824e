//go:build linux

package servercrash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/faultpoint"
)

const (
	programs = 16               // that make transactions, one after the other; half beside other tests
	epoch    = 15 * time.Second // of faults; a longer torture has more of them
	healed   = 4 * time.Minute  // I7: see endsWithin; there are more of them

	// What an epoch of a torture by itself has to reach, or it proves little: faults and
	// transactions a second.
	killsMin, transactionsMin = 0.5, 2
)

// together is how long a torture may be that runs beside the other tests.
const together = time.Minute

// TestTorture breaks everything at random, for -servercrash.duration in all: servers are
// killed, at points and anywhere, and frozen; the store's database is killed; participants
// answer late, twice, wrongly or not at all. Then all is mended, and every invariant
// demanded. A seed makes the same choices again, if not in the same instants. A short
// torture runs beside the other tests, and its epochs beside each other.
func TestTorture(t *testing.T) {
	if *durationFlag <= together {
		t.Parallel()
	}
	path, seed, stores := program(t), *seedFlag, storeKinds(t)
	if seed < 0 {
		seed = time.Now().UnixNano() % 1e6
	}
	epochs := max(len(stores), int(*durationFlag/epoch))
	each := *durationFlag / time.Duration(epochs)
	for n := range epochs {
		store := stores[n%len(stores)]
		t.Run(fmt.Sprintf("%d-%s", n, store), func(t *testing.T) {
			if *durationFlag <= together {
				t.Parallel()
			}
			key := fmt.Sprintf("%d-%s", n, store)
			w := &torture{t: t, path: path, kind: store, key: key, seed: uint64(seed)}
			own := &mischief{seed: uint64(seed), oneIn: 8}
			if n == 0 || *durationFlag > together {
				w.xaDatabases = []database{dbtest.SharedPostgres(t, 2), dbtest.SharedMariaDB(t, 2)}
				w.world = newWorld(t, key, own, 2)
			} else { // others are at work there
				w.world = newWorld(t, key, own, 0)
			}
			w.replay = fmt.Sprintf("make server-torture SEED=%d DURATION=%v%s", seed, *durationFlag, onlyStore())
			w.run(each)
		})
	}
}

func onlyStore() string {
	if *storeFlag == "" {
		return ""
	}
	return " STORE=" + *storeFlag
}

// A torture is one epoch on one store.
type torture struct {
	*world
	t           *testing.T
	path        string
	kind, key   string
	seed        uint64
	replay      string
	store       string
	database    database   // of the store; nil if it is a directory
	xaDatabases []database // of the participants of XA; none if they are not this epoch's
	slots       []*slot
	mending     atomic.Bool // no faults any more

	kills, atPoints, freezes, databaseKills atomic.Int64
	xaKills, xaFreezes, xaDatabaseKills     atomic.Int64
}

// A database is a server that can be killed.
type database interface {
	Kill() error
	Restart(ctx context.Context) error
	MustOwn(t testing.TB)
}

func (w *torture) run(faultsFor time.Duration) {
	w.openStore()
	for i := range w.servers() {
		w.slots = append(w.slots, w.openSlot(i))
	}
	began := time.Now()
	stop := make(chan struct{})
	var all sync.WaitGroup
	n := programs
	if *durationFlag <= together {
		n /= 2
	}
	for i := range n {
		all.Go(func() { w.program(i, stop) })
	}
	all.Go(func() { w.disturb(stop) })
	if w.database != nil {
		all.Go(func() { w.disturbDatabase("database", w.database, &w.databaseKills, stop) })
	}
	for i, d := range w.xaDatabases {
		all.Go(func() { w.disturbDatabase(fmt.Sprint("XA database", i), d, &w.xaDatabaseKills, stop) })
	}
	all.Go(func() { w.disturbXA(stop) })
	time.Sleep(faultsFor)
	close(stop)
	all.Wait()
	under := time.Since(began)
	made := len(w.made())
	took := w.mend()
	w.requireEnds(w.t) // what is made now is as if nothing had been
	w.end()
	sum, err := w.check(context.WithoutCancel(w.t.Context()))
	if err != nil {
		w.t.Error(err)
	}
	w.tell(sum, made, under, took)
	var last []*process
	for _, s := range w.slots {
		last = append(last, s.process())
	}
	w.report(w.t, w.replay, last...)
}

func (w *torture) openStore() {
	for _, d := range w.xaDatabases {
		d.MustOwn(w.t)
	}
	switch w.kind {
	case "postgres":
		p := dbtest.SharedPostgres(w.t, 1) // not the one with the bank
		w.database, w.store = p, p.NewDatabase(w.t)
	case "mysql":
		m := dbtest.SharedMariaDB(w.t, 1)
		w.database, w.store = m, mysqlURL(w.t, m.NewDatabase(w.t))
	default:
		w.store = filepath.Join(w.t.TempDir(), "store")
		return
	}
	w.database.MustOwn(w.t)
}

// servers is how many servers the store has.
func (w *torture) servers() int {
	if w.database == nil {
		return 1
	}
	return 2
}

// program makes one transaction after the other.
func (w *torture) program(i int, stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		gid := fmt.Sprintf("%s-%d-%d", w.key, i, n)
		rng := drawFor(w.seed, gid)
		p := w.begin(kinds[rng.IntN(len(kinds))], gid, rng)
		select {
		case <-p.returned:
		case <-time.After(time.Second): // it hangs on a server: others go on
		}
	}
}

// A slot has one server at a time: when it is gone the next is started.
type slot struct {
	w    *torture
	name string
	done chan struct{} // closed: it will start none any more

	mu      sync.Mutex // guards what follows
	current *process
	frozen  bool
	closed  bool
}

func (w *torture) openSlot(i int) *slot {
	s := &slot{w: w, name: fmt.Sprint("slot", i), done: make(chan struct{})}
	first := make(chan struct{})
	go s.run(first)
	select {
	case <-first:
	case <-s.done:
		w.t.Fatal("a server was not started")
	}
	return s
}

// run keeps a server up until the slot is closed. first is closed when the first is ready.
func (s *slot) run(first chan struct{}) {
	defer close(s.done)
	for n := 0; !s.isClosed(); n++ {
		p, err := start(s.w.path, s.w.store, s.fault(n))
		if err != nil {
			s.w.violate("start", s.name, "%v", err)
			return
		}
		if p.awaitReady() != nil { // its database is down, or it was killed at a point
			p.kill()
			s.count(p)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s.w.add(p)
		s.mu.Lock()
		s.current, s.frozen = p, false
		s.mu.Unlock()
		if first != nil {
			close(first)
			first = nil
		}
		<-p.exited
		s.w.remove(p)
		s.count(p)
	}
}

// fault lets about every third server kill itself at a point.
func (s *slot) fault(n int) string {
	rng := drawFor(s.w.seed, fmt.Sprint(s.w.key, s.name, "#", n))
	if n == 0 || s.w.mending.Load() || rng.IntN(3) > 0 {
		return ""
	}
	all := faultpoint.ServerPoints()
	return fmt.Sprintf("%s:%d:kill", all[rng.IntN(len(all))].Name, 2+rng.IntN(40))
}

// count notes how a server ended that nobody killed.
func (s *slot) count(p *process) {
	if p.byUs.Load() || !p.killedItself() {
		return
	}
	s.w.atPoints.Add(1)
}

func (s *slot) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *slot) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// freeze stops the server for a while, unless it is.
func (s *slot) freeze(d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		return false
	}
	p := s.current
	s.frozen = true
	p.freeze()
	time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.current == p {
			s.frozen = false
		}
		p.wake()
	})
	return true
}

// disturb kills and freezes servers.
func (w *torture) disturb(stop <-chan struct{}) {
	most := 2500 * time.Millisecond // longer than the lease: the other takes over, and it wakes as a zombie
	if w.database == nil {
		most = 600 * time.Millisecond
	}
	for n := 0; ; n++ {
		rng := drawFor(w.seed, fmt.Sprint(w.key, "disturb", n))
		select {
		case <-stop:
			return
		case <-time.After(between(rng, 100*time.Millisecond, 400*time.Millisecond)):
		}
		s := w.slots[rng.IntN(len(w.slots))]
		p := s.process()
		switch {
		case p.gone(): // the next is being started
		case rng.IntN(3) > 0:
			w.kills.Add(1)
			p.byUs.Store(true)
			p.kill()
		case s.freeze(between(rng, 100*time.Millisecond, most)):
			w.freezes.Add(1)
		}
	}
}

// disturbDatabase kills a database now and then.
func (w *torture) disturbDatabase(name string, d database, kills *atomic.Int64, stop <-chan struct{}) {
	for n := 0; ; n++ {
		rng := drawFor(w.seed, fmt.Sprint(w.key, name, n))
		select {
		case <-stop:
			return
		case <-time.After(between(rng, time.Second, 4*time.Second)):
			kills.Add(1)
			w.killDatabase(d, between(rng, 50*time.Millisecond, 400*time.Millisecond))
		}
	}
}

// disturbXA kills and freezes the participants of XA.
func (w *torture) disturbXA(stop <-chan struct{}) {
	for n := 0; ; n++ {
		rng := drawFor(w.seed, fmt.Sprint(w.key, "XA", n))
		select {
		case <-stop:
			return
		case <-time.After(between(rng, 200*time.Millisecond, 2*time.Second)):
		}
		if rng.IntN(3) == 0 {
			w.xaFreezes.Add(1)
			w.xa.signal(syscall.SIGSTOP)
			time.Sleep(between(rng, 100*time.Millisecond, 2500*time.Millisecond))
			w.xa.signal(syscall.SIGCONT)
			continue
		}
		w.xaKills.Add(1)
		w.restartXA()
	}
}

func (w *torture) restartXA() {
	w.xa.kill()
	if err := w.xa.start(); err != nil {
		w.violate("start", w.key, "%v", err)
	}
}

func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

func (w *torture) killDatabase(d database, down time.Duration) {
	if err := d.Kill(); err != nil {
		w.violate("database", w.key, "%v", err)
	}
	time.Sleep(down)
	if err := d.Restart(context.WithoutCancel(w.t.Context())); err != nil {
		w.violate("database", w.key, "%v", err)
	}
}

// mend stops all faults and waits until everything is over. What is frozen wakes when its
// time is over.
func (w *torture) mend() time.Duration {
	w.mending.Store(true)
	w.own.off.Store(true)
	deadline := time.Now().Add(patience)
	for _, s := range w.slots {
		for p := s.process(); p.gone() || p.fault != ""; p = s.process() {
			p.byUs.Store(true) // one that would kill itself at a point
			p.kill()
			time.Sleep(5 * time.Millisecond)
			if time.Now().After(deadline) {
				w.violate("start", s.name, "no server is up %v after the faults\n%s", patience, p.said())
				return 0
			}
		}
	}
	w.restartXA() // the next has no connection that a kill of its database has cut
	return w.awaitOver(healed)
}

// end stops the servers in good order.
func (w *torture) end() {
	for _, s := range w.slots {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		p := s.process()
		w.remove(p)
		w.transport.CloseIdleConnections()
		if err := p.stop(); err != nil {
			w.t.Error(err)
		}
		<-s.done
	}
}

// tell says what was done, and whether it was enough.
func (w *torture) tell(sum tally, made int, under, took time.Duration) {
	mishaps := 0
	for f := busy; f < faultsEnd; f++ {
		mishaps += w.own.count[f]
	}
	kills := w.kills.Load() + w.atPoints.Load()
	seconds := under.Seconds()
	w.t.Logf("%s: %.1f s of faults: %d transactions (%.1f a second): %d succeeded, %d failed, %d never begun, with the last ones; "+
		"%d kills of servers (%d at points), %d freezes, %d kills of the database; "+
		"%d kills and %d freezes of XA's participants, %d kills of their databases; %d calls, %d with faults; "+
		"%d looks at states; all over %.1f s after the faults; total %v; %s",
		w.kind, seconds, made, float64(made)/seconds, sum.succeeded, sum.failed, sum.never,
		kills, w.atPoints.Load(), w.freezes.Load(), w.databaseKills.Load(),
		w.xaKills.Load(), w.xaFreezes.Load(), w.xaDatabaseKills.Load(), mishaps+w.own.count[fine], mishaps,
		w.looks, took.Seconds(), w.inAll, w.replay)
	if *durationFlag <= together { // beside the other tests, which may take the machine
		return
	}
	if float64(kills)/seconds < killsMin || float64(made)/seconds < transactionsMin || mishaps == 0 || w.xaKills.Load() == 0 || sum.succeeded == 0 || sum.failed == 0 {
		tooLittle.Store(true)
		w.t.Errorf("too little happened to prove anything: want %.1f kills and %d transactions a second", killsMin, transactionsMin)
	}
}
