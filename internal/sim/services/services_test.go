package services

import (
	"flag"
	"os"
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Int64("services.seed", -1, "run this seed alone and print its trace")
	seedsFlag = flag.Int64("services.seeds", 1000, "how many seeds to run")
	againFlag = flag.Int64("services.again", 100, "run every so manieth seed twice")
)

// failuresMax is how many failing seeds are told.
const failuresMax = 10

// TestServices runs seeds; see the flags. CI and "make sim" run more than the default.
func TestServices(t *testing.T) {
	if *seedFlag >= 0 {
		for _, v := range Run(t, Options{Seed: uint64(*seedFlag), Trace: os.Stdout}).Violations {
			t.Error(v)
		}
		return
	}
	var next, repeated, calls, faults, succeeded, failed, failures atomic.Int64
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for seed := next.Add(1) - 1; seed < *seedsFlag && failures.Load() < failuresMax; seed = next.Add(1) - 1 {
					r := Run(t, Options{Seed: uint64(seed)})
					calls.Add(int64(r.Calls))
					faults.Add(int64(r.Faults))
					succeeded.Add(int64(r.Succeeded))
					failed.Add(int64(r.Failed))
					if len(r.Violations) > 0 {
						failures.Add(1)
						t.Errorf("seed %d: %s (make sim SEED=%d SERVICES=1)", seed, r.Violations[0], seed)
					}
					if seed%*againFlag == 0 {
						repeated.Add(1)
						if again := Run(t, Options{Seed: uint64(seed)}); !reflect.DeepEqual(again, r) {
							failures.Add(1)
							t.Errorf("seed %d: a second run differs: %+v, the first was %+v", seed, again, r)
						}
					}
				}
			})
		}
	})
	t.Logf("%d seeds, %.0f a second; %d ran twice, alike; %d calls of participants, %d faults, %d transactions succeeded, %d failed",
		*seedsFlag, float64(*seedsFlag)/time.Since(began).Seconds(), repeated.Load(), calls.Load(), faults.Load(), succeeded.Load(), failed.Load())
	if *seedsFlag >= 1000 && (faults.Load() == 0 || succeeded.Load() == 0 || failed.Load() == 0) {
		t.Error("the worlds do not reach what they should")
	}
}
