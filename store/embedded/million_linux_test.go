package embedded

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

// A store with a million finished transactions and 10,000 open ones is cheap to keep, and
// one with 100,000 open ones is quick to open. It takes minutes, so it runs only if
// TROTH_STORE_MILLION is set; its value may be a smaller number.
func TestMillion(t *testing.T) {
	text := os.Getenv("TROTH_STORE_MILLION")
	if text == "" {
		t.Skip("set TROTH_STORE_MILLION=1000000 to run it")
	}
	var finished int
	if _, err := fmt.Sscan(text, &finished); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() + "/s"
	s := mustOpen(t, dir)
	began := time.Now()
	fill(t, s, "done", finished, true)
	fill(t, s, "open", 10_000, false)
	t.Logf("%d finished and 10,000 open made in %v", finished, time.Since(began))
	debug.FreeOSMemory()
	t.Logf("resident while open: %s", resident(t))
	timed(t, "List of the newest", func() error { _, _, err := s.List(t.Context(), store.Filter{}); return err })
	timed(t, "List of the open", func() error {
		page, _, err := s.List(t.Context(), store.Filter{States: []store.State{store.Submitted}})
		if len(page) != store.ListLimitDefault {
			t.Errorf("List has %d", len(page))
		}
		return err
	})
	timed(t, "List of the failed", func() error {
		_, _, err := s.List(t.Context(), store.Filter{States: []store.State{store.Failed}})
		return err
	})
	timed(t, "List of the stuck", func() error { _, _, err := s.List(t.Context(), store.Filter{Stuck: true}); return err })
	timed(t, "List of a prefix", func() error { _, _, err := s.List(t.Context(), store.Filter{GIDPrefix: "open-77"}); return err })
	timed(t, "Claim of 256", func() error { _, err := s.Claim(t.Context(), time.Now().Add(time.Hour), time.Minute, 256); return err })
	timed(t, "Purge of 1,000", func() error { _, err := s.Purge(t.Context(), time.Now(), 1000); return err })
	t.Logf("resident afterwards: %s", resident(t))
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	timed(t, "opening", func() error { s = mustOpen(t, dir); return nil })
	fill(t, s, "more", 90_000, false)
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	timed(t, "opening with 100,000 open and leased", func() error { s = mustOpen(t, dir); return nil })
	debug.FreeOSMemory()
	t.Logf("resident after opening: %s", resident(t))
	info, err := os.Stat(dir + "/" + fileName)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the file has %d MB", info.Size()>>20)
}

func timed(t *testing.T, what string, f func() error) {
	t.Helper()
	began := time.Now()
	if err := f(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	t.Logf("%s: %v", what, time.Since(began))
}

// fill makes n transactions, and ends them if done is set.
func fill(t *testing.T, s *Store, prefix string, n int, done bool) {
	t.Helper()
	const workers = 256
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				now := time.Now()
				x := &store.Transaction{
					GID: fmt.Sprintf("%s-%d", prefix, i*7919%n), Pattern: store.Saga, State: store.Submitted, Protocol: "http",
					Created: now, Updated: now, Due: now.Add(15 * time.Second), Leased: true, Interval: time.Second,
				}
				for b := range 4 {
					x.Branches = append(x.Branches, store.Branch{
						ID: fmt.Sprint(b), Op: store.Action, URL: "http://127.0.0.1:8080/api/action", Payload: []byte(strings.Repeat("x", 160)), State: store.BranchPrepared,
					})
				}
				if err := s.Create(t.Context(), x); err != nil {
					t.Error(err)
					return
				}
				if !done {
					continue
				}
				x.State, x.Finished, x.Due, x.Leased = store.Succeeded, now, time.Time{}, false
				if err := s.Save(t.Context(), x, 4); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// resident is what the process has in memory.
func resident(t *testing.T) string {
	t.Helper()
	runtime.GC()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") || strings.HasPrefix(line, "RssFile") || strings.HasPrefix(line, "VmHWM") {
			all = append(all, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(all, ", ")
}
