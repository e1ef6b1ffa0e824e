package filelog

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth"
)

var (
	long = flag.Bool("filelog.long", false, "try many traces with all subsets, and every bit of a big log: about an hour")
	seed = flag.Uint64("filelog.seed", 0, "the seed of the only trace to try; 0: those that are always tried")
)

const traceLength = 200

// A trace is a log in use: by a program that decides, forgets, expires, closes,
// and is killed and started again.
type trace struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	fs      *memFiles
	ledger  *ledger
	log     *Log
	n       int         // the next transaction
	live    []troth.GID // decided and not forgotten
	did     map[string]int
	mu      sync.Mutex
	scenes  []scene
	highest uint32
}

func newTrace(t *testing.T, seed uint64) *trace {
	tr := &trace{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), ledger: newLedger(), did: map[string]int{}}
	fs := newMemFiles()
	fs.inodes = 1
	tr.use(fs)
	tr.open()
	return tr
}

// use goes on in that directory, and takes a scene after every change to it.
func (tr *trace) use(fs *memFiles) {
	tr.fs = fs
	fs.after = func() {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		s := scene{ledger: &ledger{confirmed: tr.ledger.copyOf(tr.ledger.confirmed)}} // what was told before,
		s.fs = fs.clone()
		s.forgotten, s.attempted = tr.ledger.copyOf(tr.ledger.forgotten), tr.ledger.copyOf(tr.ledger.attempted) // what may have been done since
		tr.scenes = append(tr.scenes, s)
	}
}

func (tr *trace) open() {
	l, err := openFiles(tr.fs, small(func(s *settings) {
		if tr.seed%2 == 1 {
			withMark(s)
		}
	}), func() error { return nil })
	if err != nil {
		tr.t.Fatalf("open in the trace: %v", err)
	}
	tr.log = l
}

// step does one operation.
func (tr *trace) step() {
	switch k := tr.rng.IntN(200); {
	case k < 90:
		tr.decide(1)
	case k < 120:
		tr.decide(2 + tr.rng.IntN(4))
	case k < 136:
		tr.abort()
	case k < 184:
		tr.forget()
	case k < 194:
		tr.expire()
	case k < 197:
		tr.did["close"]++
		closeLog(tr.t, tr.log)
		tr.open()
	default:
		tr.kill()
	}
}

func (tr *trace) decide(callers int) {
	tr.did["decide"]++
	before := tr.log.Identity()
	var wg sync.WaitGroup
	for range callers {
		d := commitNo(tr.n)
		tr.n++
		tr.live = append(tr.live, d.GID)
		tr.ledger.note(tr.ledger.attempted, d.GID)
		wg.Go(func() {
			if outcome, err := tr.log.Decide(background, d); err != nil || outcome != troth.Committed {
				tr.t.Errorf("decide %s: %v, %v", d.GID, outcome, err)
			}
			tr.ledger.note(tr.ledger.confirmed, d.GID)
		})
	}
	wg.Wait()
	if tr.log.Identity() != before {
		tr.t.Error("the identity changed")
	}
}

func (tr *trace) abort() {
	tr.did["abort"]++
	if outcome, err := tr.log.Decide(background, abortNo(tr.n)); err != nil || outcome != troth.Aborted {
		tr.t.Errorf("abort: %v, %v", outcome, err)
	}
	tr.n++
}

// forget drops some of the youngest that are live: the old ones must be copied.
func (tr *trace) forget() {
	tr.did["forget"]++
	var gone []troth.GID
	for range 1 + tr.rng.IntN(6) {
		if len(tr.live) == 0 {
			break
		}
		i := len(tr.live) - 1 - tr.rng.IntN(min(len(tr.live), 6))
		gone = append(gone, tr.live[i])
		tr.live = append(tr.live[:i], tr.live[i+1:]...)
	}
	tr.ledger.note(tr.ledger.forgotten, gone...)
	if err := tr.log.Forget(background, gone); err != nil {
		tr.t.Errorf("forget: %v", err)
	}
}

func (tr *trace) expire() {
	tr.did["expire"]++
	if _, err := tr.log.Expire(background, -time.Hour); err != nil {
		tr.t.Errorf("expire: %v", err)
	}
}

// kill starts the program again in the directory as it is, with what the kernel
// still holds unsynced.
func (tr *trace) kill() {
	tr.did["kill"]++
	dead := tr.fs
	tr.use(dead.clone())
	dead.mu.Lock()
	dead.after = nil // what the goroutines of the dead still do happens nowhere
	dead.mu.Unlock()
	closeLog(tr.t, tr.log)
	tr.open()
}

// note counts what the log did by itself: segments begun, and records that are in
// two segments because they were copied.
func (tr *trace) note() {
	fs := tr.fs.clone() // the keeper may be at work
	s := must(load(fs))
	if s.highest > tr.highest {
		tr.did["segments"] += int(s.highest - tr.highest)
		tr.highest = s.highest
	}
	in := map[troth.GID]int{}
	for _, name := range must(fs.List()) {
		if _, ok := parseSegmentName(name); !ok {
			continue
		}
		c, err := readSegment(name, fs.get(name), true)
		if err != nil {
			tr.t.Fatal(err)
		}
		here := map[troth.GID]bool{}
		for _, f := range c.frames {
			for _, e := range must(decodeEntries(f.body)) {
				if e.kind == kindCommit {
					here[e.gid] = true
				}
			}
		}
		for gid := range here {
			in[gid]++
		}
	}
	for _, n := range in {
		if n > 1 {
			tr.did["compactions"]++
			return
		}
	}
}

// After every prefix of a trace the power may fail, and any of up to three of the
// unsynced changes may be lost, or alone be kept: sectors, files, names; without
// -filelog.long only single ones where there are many. The log
// then holds what was confirmed; and what it shows once, it shows for ever, also
// if the power fails again at once.
func TestTrace(t *testing.T) {
	t.Parallel()
	seeds := []uint64{1, 2}
	if *long {
		for s := uint64(3); s <= 25; s++ {
			seeds = append(seeds, s)
		}
	}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	var total atomic.Int64
	var mu sync.Mutex
	did := map[string]int{}
	t.Run("seeds", func(t *testing.T) {
		for _, s := range seeds {
			t.Run(fmt.Sprint(s), func(t *testing.T) {
				t.Parallel()
				states, some := tryTrace(t, s)
				total.Add(int64(states))
				mu.Lock()
				defer mu.Unlock()
				for what, n := range some {
					did[what] += n
				}
			})
		}
	})
	t.Logf("%d traces of %d operations, %d states reopened", len(seeds), traceLength, total.Load())
	for _, what := range []string{"decide", "abort", "forget", "expire", "close", "kill", "segments", "compactions"} {
		if what == "compactions" && !*long {
			continue // on a busy machine two traces may end before the keeper comes to one
		}
		if did[what] == 0 && *seed == 0 {
			t.Errorf("the traces lack %q: %v", what, did)
		}
	}
}

func tryTrace(t *testing.T, seed uint64) (states int, did map[string]int) {
	defer func() {
		if t.Failed() {
			t.Logf("try it again with: go test ./filelog -run '^TestTrace$' -filelog.seed=%d", seed)
		}
	}()
	tr := newTrace(t, seed)
	for range traceLength {
		tr.step()
		tr.note()
	}
	closeLog(t, tr.log)
	for i, s := range tr.scenes {
		n, sizeMax := s.fs.cuttable(), 3
		if n > 3 && !*long {
			sizeMax = 1
		}
		subsets(n, sizeMax, func(what string, keep func(int) bool) {
			s.checkTwice(t, fmt.Sprintf("power cut after change %d, %s", i, what), s.fs.cut(keep))
			states += 2
		})
	}
	t.Logf("seed %d: %d changes to the directory, %d states reopened, %v", seed, len(tr.scenes), states, tr.did)
	return states, tr.did
}

// checkTwice is check, and then a power cut that takes all that was not synced
// while the log was being opened.
func (w *ledger) checkTwice(t testing.TB, what string, fs *memFiles) {
	t.Helper()
	first := w.requireOpen(t, what, fs)
	again := w.requireOpen(t, what+", and again at once", fs.cut(func(int) bool { return false }))
	if !maps.Equal(first, again) {
		t.Fatalf("%s: the log showed %d decisions, and %d after another power cut", what, len(first), len(again))
	}
}
