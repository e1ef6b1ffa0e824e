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
	seedsFlag = flag.Int("sim.seeds", 3000, "how many seeds to run")
	deepFlag  = flag.Bool("sim.deep", false, "the real resource managers over simulated SQL servers")
	firstFlag = flag.Uint64("sim.first", 0, "the first of them")
)

// failuresMax is how many failing seeds are told.
const failuresMax = 10

// TestSim runs seeds, one in a hundred of them twice.
func TestSim(t *testing.T) {
	if *seedFlag >= 0 {
		r := Run(t, Options{Seed: uint64(*seedFlag), Deep: *deepFlag, Trace: os.Stdout})
		for _, v := range r.Violations {
			t.Error(v)
		}
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a run leaves little, and soon all of it
	var next, steps, faults, committed, aborted, failures atomic.Int64
	next.Store(int64(*firstFlag))
	end := next.Load() + int64(*seedsFlag)
	start := time.Now()
	t.Run("all", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1) - 1; seed < end && failures.Load() < failuresMax; seed = next.Add(1) - 1 {
					r := Run(t, Options{Seed: uint64(seed), Deep: *deepFlag})
					steps.Add(int64(r.Steps))
					faults.Add(int64(r.Faults))
					committed.Add(int64(r.Committed))
					aborted.Add(int64(r.Aborted))
					if r.Steps > 5000 {
						t.Logf("seed %d: %d steps", seed, r.Steps)
					}
					if len(r.Violations) > 0 {
						failures.Add(1)
						t.Errorf("seed %d: %s (replay: make sim SEED=%d)", seed, r.Violations[0], seed)
					}
					if seed%100 == 0 && !*deepFlag { // there goroutines of database/sql race for a pool
						if again := Run(t, Options{Seed: uint64(seed), Deep: *deepFlag}); again.Hash != r.Hash {
							failures.Add(1)
							t.Errorf("seed %d: two runs differ: %d and %d steps", seed, r.Steps, again.Steps)
						}
					}
				}
			})
		}
	})
	took := time.Since(start)
	t.Logf("%d seeds in %v on %d cores, %.0f a second; %d calls, %d faults, %d transactions committed, %d aborted",
		*seedsFlag, took.Round(time.Millisecond), runtime.GOMAXPROCS(0), float64(*seedsFlag)/took.Seconds(), steps.Load(), faults.Load(), committed.Load(), aborted.Load())
}
