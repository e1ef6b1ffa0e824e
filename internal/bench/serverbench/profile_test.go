package main

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/metrics"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store/embedded"
)

// BenchmarkServer runs clients, server and participants in one process, to be profiled:
//
//	go test ./internal/bench/serverbench -run - -bench Server/saga -cpuprofile /tmp/cpu
func BenchmarkServer(b *testing.B) {
	for _, y := range patterns {
		b.Run(y.name, func(b *testing.B) {
			addr, branches := startInProcess(b)
			const clients = 64
			b.SetParallelism(clients / 2)
			b.ReportAllocs()
			before := ownCPU()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				w, err := newWorker(addr, branches)
				if err != nil {
					b.Error(err)
					return
				}
				defer w.close()
				for pb.Next() {
					if err := y.run(w); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64((ownCPU()-before).Microseconds())/float64(b.N), "us-cpu/op")
		})
	}
}

// Each pattern is over when its last request is answered, having called each
// participant twice as often as there are transactions; a TCC's are tried too.
func TestPatterns(t *testing.T) {
	t.Parallel()
	for i, y := range patterns {
		t.Run(y.name, func(t *testing.T) {
			t.Parallel()
			addr, _ := startInProcess(t)
			var calls atomic.Int64
			p, err := newParticipant(func([]byte) bool { calls.Add(1); return true })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.stop)
			w, err := newWorker(addr, p.addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(w.close)
			const n = 10
			for range n {
				if err := y.run(w); err != nil {
					t.Fatal(err)
				}
			}
			if want := int64([]int{2, 2, 4}[i] * n); calls.Load() != want {
				t.Errorf("%d calls, want %d", calls.Load(), want)
			}
		})
	}
}

func startInProcess(tb testing.TB) (addr, branches string) {
	tb.Helper()
	st, err := embedded.Open(tb.Context(), filepath.Join(tb.TempDir(), "store"), nil)
	if err != nil {
		tb.Fatal(err)
	}
	caller, err := outbound.New(outbound.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	meter := metrics.NewServer()
	eng, err := engine.Open(tb.Context(), st, engine.Config{Caller: caller, Observer: meter.Observer()})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := server.New(server.Config{
		Engine: eng, Store: st, Meter: meter, HTTPAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0", Check: caller.Check,
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.Start(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	p, err := newParticipant(nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			tb.Error(err)
		}
		p.stop()
		_ = caller.Close()
	})
	onHTTP, _ := s.Addrs()
	return onHTTP.String(), p.addr
}
