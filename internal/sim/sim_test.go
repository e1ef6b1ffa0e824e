package sim

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Int64("sim.seed", -1, "run this seed alone and print its trace")
	seedsFlag = flag.Int64("sim.seeds", 1000, "how many seeds to run")
	firstFlag = flag.Int64("sim.first", 0, "the first of them")
	againFlag = flag.Int64("sim.again", 100, "run every so manieth seed twice")
	deepFlag  = flag.Bool("sim.deep", false, "the real resource managers over simulated SQL servers")
)

// failuresMax is how many failing seeds are told.
const failuresMax = 10

// TestSim runs seeds; see the flags. CI and "make sim" run more than the default.
func TestSim(t *testing.T) {
	if *seedFlag >= 0 {
		r := Run(t, Options{Seed: uint64(*seedFlag), Deep: *deepFlag, Trace: os.Stdout})
		for _, v := range r.Violations {
			t.Error(v)
		}
		return
	}
	simulate(t, *deepFlag, *firstFlag, *seedsFlag)
}

// TestDeep runs some deep seeds.
func TestDeep(t *testing.T) { simulate(t, true, *firstFlag, *seedsFlag/20) }

// simulate runs seeds on all cores.
func simulate(t *testing.T, deep bool, first, n int64) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a run leaves little, and soon all of it
	roomyStacks(t)
	replay := "make sim SEED=%d"
	if deep {
		replay += " DEEP=1"
	}
	var next, steps, faults, committed, aborted, returned, worlds, failures atomic.Int64
	next.Store(first)
	start := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1) - 1; seed < first+n && failures.Load() < failuresMax; seed = next.Add(1) - 1 {
					r := Run(t, Options{Seed: uint64(seed), Deep: deep})
					steps.Add(int64(r.Steps))
					faults.Add(int64(r.Faults))
					committed.Add(int64(r.Committed))
					aborted.Add(int64(r.Aborted))
					if returned.Add(int64(r.Returned)); r.Returned > 0 {
						worlds.Add(1)
					}
					if len(r.Violations) > 0 {
						failures.Add(1)
						t.Errorf("seed %d: %s ("+replay+")", seed, r.Violations[0], seed)
					}
					if deep || seed%*againFlag != 0 { // in deep worlds goroutines of database/sql race for a pool
						continue
					}
					if again := Run(t, Options{Seed: uint64(seed)}); again.Hash != r.Hash {
						failures.Add(1)
						t.Errorf("seed %d: two runs differ: %d and %d steps", seed, r.Steps, again.Steps)
					}
				}
			})
		}
	})
	took := time.Since(start)
	t.Logf("%d seeds in %v on %d cores, %.0f a second; %d calls, %d faults, %d transactions committed, %d aborted, %d one-phase commits came back prepared, in %d worlds",
		n, took.Round(time.Millisecond), runtime.GOMAXPROCS(0), float64(n)/took.Seconds(), steps.Load(), faults.Load(), committed.Load(), aborted.Load(), returned.Load(), worlds.Load())
	if !deep && n >= 1000 && failures.Load() == 0 && returned.Load() == 0 {
		t.Error("no one-phase commit came back prepared: the worlds do not reach what they should")
	}
}
