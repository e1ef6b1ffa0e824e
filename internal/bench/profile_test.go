package bench

import (
	"os"
	"testing"
	"time"
)

// TestOneWay measures one way on one pair for BENCH_WAY, for a profile:
// go test ./internal/bench -run OneWay -cpuprofile cpu.out
func TestOneWay(t *testing.T) {
	name := os.Getenv("BENCH_WAY")
	if name == "" {
		t.Skip("BENCH_WAY names no way")
	}
	w, err := newWorld(t.Context(), Delayed)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.close() }()
	ways, err := w.ways(t.Context(), pairs["PG+PG"])
	if err != nil {
		t.Fatal(err)
	}
	for _, y := range ways {
		if y.name == name {
			rate, err := run(t.Context(), y, 32, 4*time.Second)
			t.Logf("%s: %.0f a second, %v", name, rate, err)
		}
		_ = y.close()
	}
}
