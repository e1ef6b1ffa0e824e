package embedded

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/storetest"
)

// The write-ahead log must not grow for ever while somebody always reads: SQLite begins
// it anew only in a moment without readers of it. So many changes write more than the
// limit below.
func TestLogStaysSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes for some seconds")
	}
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "s")
	s := mustOpen(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := s.List(context.WithoutCancel(ctx), store.Filter{Limit: 10}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer readers.Wait()
	defer cancel()
	var mu sync.Mutex
	changes, largest := 0, int64(0)
	load := storetest.Load{Prefix: "wal", Workers: 64, Confirmed: func(string, int64) {
		mu.Lock()
		defer mu.Unlock()
		if changes++; changes%1000 == 0 {
			if info, err := os.Stat(filepath.Join(dir, fileName+"-wal")); err == nil {
				largest = max(largest, info.Size())
			}
		}
		if changes == 25_000 {
			cancel()
		}
	}}
	began := time.Now()
	if err := load.Run(ctx, s); err != nil {
		t.Error(err)
	}
	t.Logf("%d changes in %v, the log had up to %d MB", changes, time.Since(began), largest>>20)
	if largest > 48<<20 {
		t.Errorf("the log has grown to %d MB", largest>>20)
	}
}
