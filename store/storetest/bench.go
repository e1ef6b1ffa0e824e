package storetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

// Bench measures sagas: each is a Create with 4 branches of about 200 bytes, two Saves
// and a last one that ends it, at 1, 8 and 64 goroutines. cpu-µs/saga is what this
// process takes of the processors, in user and system mode; server-cpu-µs/saga is what the
// processes take that work in serverDir, the directory of a database server.
func Bench(b *testing.B, open func(testing.TB) store.Store, serverDir string) {
	for _, workers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("goroutines=%d", workers), func(b *testing.B) {
			s := open(b)
			run := rand.Uint64()
			began, cpu, server := time.Now(), cpuTime(b), CPUOf(serverDir)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					for i := w; i < b.N; i += workers {
						if err := saga(b.Context(), s, fmt.Sprintf("%016x-%08x", rand.Uint64(), run+uint64(i))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "sagas/s")
			if serverDir != "" {
				b.ReportMetric(float64((CPUOf(serverDir)-server).Microseconds())/float64(b.N), "server-cpu-µs/saga")
			}
			b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/saga")
		})
	}
}

// BenchGet measures reading what Bench writes.
func BenchGet(b *testing.B, open func(testing.TB) store.Store) {
	s := open(b)
	const n = 1000
	for i := range n {
		if err := saga(b.Context(), s, fmt.Sprint("get-", i)); err != nil {
			b.Fatal(err)
		}
	}
	cpu := cpuTime(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Get(b.Context(), fmt.Sprint("get-", rand.IntN(n))); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/get")
}

var benchPayload = bytes.Repeat([]byte("0123456789abcdef"), 10)

// saga does to a store what the engine does for a saga that succeeds.
func saga(ctx context.Context, s store.Store, gid string) error {
	now := time.Now()
	t := &store.Transaction{
		GID: gid, Pattern: store.Saga, Protocol: "http", State: store.Submitted,
		Created: now, Updated: now, Due: now.Add(15 * time.Second), Leased: true, Interval: 10 * time.Second,
	}
	for i := range 2 {
		for _, op := range []store.Op{store.Compensate, store.Action} {
			t.Branches = append(t.Branches, store.Branch{
				ID: fmt.Sprintf("%02d", i+1), Op: op, URL: "http://127.0.0.1:8080/api/busi/" + op.String(),
				Payload: benchPayload, State: store.BranchPrepared,
			})
		}
	}
	if err := s.Create(ctx, t); err != nil {
		return err
	}
	for i := range 2 {
		action := &t.Branches[2*i+1]
		action.Called, action.Finished, action.State = now, now, store.BranchSucceeded
		t.Updated, t.Due = time.Now(), time.Now().Add(15*time.Second)
		if err := s.Save(ctx, t, len(t.Branches)); err != nil {
			return err
		}
	}
	t.State, t.Finished, t.Due, t.Leased = store.Succeeded, time.Now(), time.Time{}, false
	t.Updated = t.Finished
	return s.Save(ctx, t, len(t.Branches))
}

// cpuTime is what this process has taken of the processors.
func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
