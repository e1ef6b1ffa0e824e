//go:build linux

package servercrash

import (
	"fmt"
	"testing"
)

// TestCalm shows that without faults each kind of transaction ends as it is meant to, and
// that the checks see it: what they demand under faults is not demanded of nothing.
func TestCalm(t *testing.T) {
	path := program(t)
	for _, store := range storeKinds(t) {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "calm-"+store, &mischief{}, 0)
			p, err := start(path, newStore(t, store), "")
			if err == nil {
				err = p.awaitReady()
			}
			if err != nil {
				t.Fatal(err)
			}
			w.add(p)
			w.requireEnds(t)
			sum, err := w.check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if sum.never > 0 || sum.succeeded == 0 || sum.failed == 0 {
				t.Errorf("got %+v", sum)
			}
			w.report(t, "no faults", p)
			w.remove(p)
			if err := p.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// requireEnds makes a transaction of each kind, which must end as it is meant to.
func (w *world) requireEnds(t *testing.T) {
	t.Helper()
	w.calm.Store(true)
	var all []*plan
	for i, k := range kinds {
		gid := fmt.Sprintf("%s-calm-%d", w.name, i)
		all = append(all, w.begin(k, gid, drawFor(uint64(i), gid)))
	}
	w.awaitOver(endsWithin)
	for _, p := range all {
		if got := w.seen(p); got != p.kind.ends && p.kind.ends != "" || !got.Over() {
			t.Errorf("a %s ended %q, want %q; its program was told: %v", p.kind.name, got, p.kind.ends, p.err)
		}
	}
}
