package filelog

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth"
)

// BenchmarkDecide measures durable commits followed by a lazy forget, as the
// Manager uses the log.
func BenchmarkDecide(b *testing.B) {
	for _, delay := range []time.Duration{0, time.Millisecond} {
		for _, committers := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("delay=%v/committers=%d", delay, committers), func(b *testing.B) {
				l, err := Open(b.TempDir()+"/log", WithSyncDelay(delay), WithUnsafeFileSystem())
				if err != nil {
					b.Fatal(err)
				}
				defer closeLog(b, l)
				branches := []troth.BranchRecord{{Resource: "athos", Branch: 1, Evidence: "123456"}, {Resource: "porthos", Branch: 2}}
				ctx := context.Background()
				before := l.syncs.Load()
				b.ResetTimer()
				var next atomic.Int64
				var wg sync.WaitGroup
				for range committers {
					wg.Go(func() {
						for next.Add(1) <= int64(b.N) {
							gid := troth.NewGID("bank", time.Now())
							if _, err := l.Decide(ctx, troth.Decision{GID: gid, Outcome: troth.Committed, Branches: branches}); err != nil {
								b.Error(err)
								return
							}
							if err := l.Forget(ctx, []troth.GID{gid}); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(l.syncs.Load()-before)/float64(b.N), "syncs/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
			})
		}
	}
}
