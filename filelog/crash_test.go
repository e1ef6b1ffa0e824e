package filelog

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"syscall"
	"testing"

	"github.com/troth-tx/troth"
)

// A ledger notes what a program was told, as H of the invariants: it is
// what a reopened log is held against.
type ledger struct {
	mu        sync.Mutex
	attempted map[troth.GID]bool
	confirmed map[troth.GID]bool
	forgotten map[troth.GID]bool // Forget was called, or about to be
}

func newLedger() *ledger {
	return &ledger{attempted: map[troth.GID]bool{}, confirmed: map[troth.GID]bool{}, forgotten: map[troth.GID]bool{}}
}

func (w *ledger) note(m map[troth.GID]bool, gids ...troth.GID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, gid := range gids {
		m[gid] = true
	}
}

func (w *ledger) copyOf(m map[troth.GID]bool) map[troth.GID]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(m)
}

// check opens the log and holds it against the ledger. It closes it again.
func (w *ledger) check(t testing.TB, what string, fs files) {
	t.Helper()
	w.requireOpen(t, what, fs)
}

// requireOpen is check, and returns what the log holds.
func (w *ledger) requireOpen(t testing.TB, what string, fs files) map[troth.GID]bool {
	t.Helper()
	l, err := openFiles(fs, small(), func() error { return nil })
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	defer closeLog(t, l)
	if l.Identity() != small().identity() {
		t.Fatalf("%s: the identity is %s", what, l.Identity())
	}
	got := map[troth.GID]bool{}
	for _, d := range committed(t, l) {
		got[d.GID] = true
		if len(d.Branches) != 2 || d.Branches[0].Resource != "athos" {
			t.Fatalf("%s: %s has the branches %v", what, d.GID, d.Branches)
		}
		if !w.attempted[d.GID] {
			t.Fatalf("%s: nobody decided %s", what, d.GID)
		}
	}
	for gid := range w.confirmed {
		if !got[gid] && !w.forgotten[gid] {
			t.Fatalf("%s: the confirmed decision %s is lost", what, gid)
		}
	}
	return got
}

// run decides in batches of several callers and forgets most of it again, so that
// segments are rolled, copied and removed. It ends at the first error, and returns
// it.
func (w *ledger) run(l *Log, rounds int) error {
	for round := range rounds {
		callers := 1 + round%4
		errs := make([]error, callers)
		var done []troth.GID
		var wg sync.WaitGroup
		for c := range callers {
			n := round*10 + c
			wg.Go(func() {
				w.note(w.attempted, gidNo(n))
				outcome, err := l.Decide(background, commitNo(n))
				if errs[c] = err; err == nil && outcome == troth.Committed {
					w.note(w.confirmed, gidNo(n))
				}
			})
			if round%5 != 0 {
				done = append(done, gidNo(n))
			}
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		w.note(w.forgotten, done...)
		if err := l.Forget(background, done); err != nil {
			return err
		}
	}
	return nil
}

// A scene is a directory at some moment, and what had been told until then.
type scene struct {
	fs *memFiles
	*ledger
}

// film takes a scene after every change to the directory.
func film(fs *memFiles, w *ledger) func() []scene {
	var mu sync.Mutex
	var scenes []scene
	fs.mu.Lock()
	fs.after = func() {
		mu.Lock()
		defer mu.Unlock()
		s := scene{ledger: &ledger{confirmed: w.copyOf(w.confirmed)}} // what was told before,
		s.fs = fs.clone()
		s.forgotten, s.attempted = w.copyOf(w.forgotten), w.copyOf(w.attempted) // what may have been done since
		scenes = append(scenes, s)
	}
	fs.mu.Unlock()
	return func() []scene {
		mu.Lock()
		defer mu.Unlock()
		return scenes
	}
}

// subsets calls f with every subset of up to sizeMax (at most 3) of n things, and
// with its complement, as functions that say what is kept.
func subsets(n, sizeMax int, f func(what string, keep func(i int) bool)) {
	each := func(set ...int) {
		in := func(i int) bool {
			for _, s := range set {
				if s == i {
					return true
				}
			}
			return false
		}
		f(fmt.Sprintf("only %v kept", set), in)
		if n > sizeMax || len(set) == 0 {
			f(fmt.Sprintf("%v lost", set), func(i int) bool { return !in(i) })
		}
	}
	each()
	for a := range n {
		each(a)
		for b := range a {
			if sizeMax >= 2 {
				each(a, b)
			}
			for c := range b {
				if sizeMax >= 3 {
					each(a, b, c)
				}
			}
		}
	}
}

// The power may fail at any moment, and any of what was not synced may be lost.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	fs, w := newMemFiles(), newLedger()
	scenes := film(fs, w)
	l := openMem(t, fs, small())
	if err := w.run(l, 30); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	if first := must(load(fs)); first.highest < 8 {
		t.Fatalf("the trace has %d segments only", first.highest)
	}
	tried := 0
	for i, s := range scenes() {
		subsets(s.fs.cuttable(), 3, func(what string, keep func(int) bool) {
			s.check(t, fmt.Sprintf("power cut after operation %d, %s", i, what), s.fs.cut(keep))
			tried++
		})
	}
	t.Logf("%d operations, %d power cuts", len(scenes()), tried)
}

// Also while a log is opened after a power cut, and again while that is.
func TestPowerCutWhileOpening(t *testing.T) {
	t.Parallel()
	fs, w := newMemFiles(), newLedger()
	l := openMem(t, fs, small())
	if err := w.run(l, 12); err != nil {
		t.Fatal(err)
	}
	var cut func(what string, fs *memFiles, depth int)
	cut = func(what string, fs *memFiles, depth int) {
		scenes := film(fs, w)
		w.check(t, what, fs)
		if depth == 0 {
			return
		}
		for i, s := range scenes() {
			n := s.fs.cuttable()
			subsets(min(n, 1), 1, func(lost string, keep func(int) bool) {
				cut(fmt.Sprintf("%s, then after operation %d, %s", what, i, lost), s.fs.cut(keep), depth-1)
			})
		}
	}
	cut("in use", fs.cut(func(int) bool { return true }), 2)
}

// Any operation of the disk may fail, once or from then on until the program is
// started again. The log then says so for ever, and nothing that was confirmed is
// lost, whether the program is started again or the power fails too.
func TestFailNth(t *testing.T) {
	t.Parallel()
	for _, injected := range []error{fmt.Errorf("%w: %w", errInjected, syscall.EIO), fmt.Errorf("%w: %w", errInjected, syscall.ENOSPC), errShort} {
		for _, lasting := range []bool{false, true} {
			for n, fired := 1, true; fired; n++ {
				fired = failNth(t, n, injected, lasting)
			}
		}
	}
}

func failNth(t *testing.T, n int, injected error, lasting bool) (fired bool) {
	fs, w := newMemFiles(), newLedger()
	var mu sync.Mutex
	calls, failedOp := 0, ""
	fs.fail = func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		calls++
		if calls == n {
			failedOp = op
		}
		if calls == n || (lasting && calls > n) {
			return injected
		}
		return nil
	}
	var poisoned bool
	l, err := openFiles(fs, small(), func() error { return nil })
	if err == nil {
		if err = w.run(l, 25); errors.Is(err, ErrFailed) {
			poisoned = true
			requireFailed(t, l)
		}
		closeLog(t, l)
	}
	mu.Lock()
	defer mu.Unlock()
	what := fmt.Sprintf("operation %d, %s, failed with %v", n, failedOp, injected)
	if err != nil && !errors.Is(err, errInjected) {
		t.Fatalf("%s: the log says %v", what, err)
	}
	if poisoned && !lasting && failedOp != "write" && failedOp != "sync" {
		t.Fatalf("%s: that poisoned the log", what)
	}
	fs.fail = nil
	lost := fs.cut(func(int) bool { return false })
	kept := fs.cut(func(int) bool { return true })
	w.check(t, what+"; started again", fs)
	w.check(t, what+"; started again, then a power cut", fs.cut(func(int) bool { return false }))
	w.check(t, what+"; a power cut", lost)
	w.check(t, what+"; a power cut that lost nothing", kept)
	return failedOp != ""
}

// requireFailed checks that a log that failed answers nothing any more.
func requireFailed(t *testing.T, l *Log) {
	t.Helper()
	_, err1 := l.Decide(t.Context(), commitNo(1_000_000))
	_, err2 := l.Decide(t.Context(), abortNo(1_000_001))
	_, err3 := l.Lookup(t.Context(), gidNo(0))
	_, err4 := l.Committed(t.Context(), 0, "", 1)
	_, err5 := l.Expire(t.Context(), 0)
	for i, err := range []error{err1, err2, err3, err4, err5, l.Forget(t.Context(), []troth.GID{gidNo(0)})} {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("call %d on a log that failed: %v; want ErrFailed", i, err)
		}
	}
}

// A full disk stops new decisions when the prepared space is used up, and no
// longer: nothing was written, so nothing is unknown.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	fs := newMemFiles()
	l := openMem(t, fs, small())
	full := true
	fs.mu.Lock()
	fs.fail = func(op string) error {
		if full && op == "create" {
			return syscall.ENOSPC
		}
		return nil
	}
	fs.mu.Unlock()
	n := 0
	var err error
	for ; err == nil && n < 1000; n++ {
		_, err = l.Decide(t.Context(), commitNo(n))
	}
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrFailed) {
		t.Fatalf("decision %d on a full disk: %v", n, err)
	}
	lookup(t, l, gidNo(n-1), troth.Undecided)
	lookup(t, l, gidNo(n-2), troth.Committed)
	if err := l.Forget(t.Context(), []troth.GID{gidNo(0)}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Decide(t.Context(), commitNo(n-1)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("once more on a full disk: %v", err)
	}
	fs.mu.Lock()
	full = false
	fs.mu.Unlock()
	decide(t, l, commitNo(n-1), troth.Committed)
	closeLog(t, l)
	w := newLedger()
	for i := range n {
		w.note(w.attempted, gidNo(i))
		w.note(w.confirmed, gidNo(i))
	}
	w.note(w.forgotten, gidNo(0))
	w.check(t, "after the disk was full", fs)
	lookup(t, openMem(t, fs, small()), gidNo(0), troth.Undecided) // it waited with the decision that failed
}

// Closing a log whose disk is full ends.
func TestCloseOnFullDisk(t *testing.T) {
	t.Parallel()
	fs := newMemFiles()
	l := openMem(t, fs, small())
	fs.mu.Lock()
	fs.fail = func(op string) error {
		if op == "create" {
			return syscall.ENOSPC
		}
		return nil
	}
	fs.mu.Unlock()
	var err error
	var gids []troth.GID
	for n := 0; err == nil; n++ {
		_, err = l.Decide(t.Context(), commitNo(n))
		gids = append(gids, gidNo(n))
	}
	if err := l.Forget(t.Context(), gids); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
}
