package filelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/registertest"
)

// background outlives a test's own context.
var background = context.Background()

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		childMain(dir)
		return
	}
	if dir := os.Getenv(stepsVariable); dir != "" {
		stepsMain(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	registertest.Run(t, registertest.Factory{
		New: func(t *testing.T) func(t *testing.T) troth.Register {
			dir := filepath.Join(t.TempDir(), "log")
			return func(t *testing.T) troth.Register {
				l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem())
				if errors.Is(err, ErrLocked) {
					return lockedOut{err: err}
				}
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
		},
		SingleOwner:    true,
		AbortsVolatile: true,
	})
}

// lockedOut is what the suite's second owner gets: Open of the package, not of
// the register, is where a log refuses it.
type lockedOut struct {
	troth.Register
	err error
}

func (l lockedOut) Open(context.Context, troth.RegisterConfig) error { return l.err }

var epoch = time.Date(2026, 3, 14, 15, 9, 26, 535_897_932, time.UTC)

// small are settings for logs of which every byte can be tried.
func small(opts ...Option) settings {
	return must(newSettings(append([]Option{func(s *settings) {
		s.segmentSize, s.allowSmaller = 1024, true
		s.idleDelay, s.markDelay = time.Hour, time.Hour // no frame or mark that the test did not ask for
		s.identity = func() string { return "0123abcd" }
		s.now = func() time.Time { return epoch }
	}}, opts...)))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// gidNo returns a GID that sorts by n.
func gidNo(n int) troth.GID { return troth.GID(fmt.Sprintf("bank.0%025d", n)) }

func commitNo(n int) troth.Decision {
	return troth.Decision{GID: gidNo(n), Outcome: troth.Committed, Branches: []troth.BranchRecord{
		{Resource: "athos", Branch: 1, Evidence: fmt.Sprint(700 + n)}, {Resource: "porthos", Branch: 2},
	}}
}

func abortNo(n int) troth.Decision { return troth.Decision{GID: gidNo(n), Outcome: troth.Aborted} }

func openMem(t testing.TB, fs files, cfg settings) *Log {
	t.Helper()
	l, err := openFiles(fs, cfg, func() error { return nil })
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { closeLog(t, l) })
	return l
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(context.Background()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func decide(t testing.TB, l *Log, d troth.Decision, want troth.Outcome) {
	t.Helper()
	got, err := l.Decide(t.Context(), d)
	if err != nil || got != want {
		t.Fatalf("Decide(%s, %v) = %v, %v; want %v", d.GID, d.Outcome, got, err, want)
	}
}

func lookup(t testing.TB, l *Log, gid troth.GID, want troth.Outcome) {
	t.Helper()
	if got, err := l.Lookup(t.Context(), gid); err != nil || got != want {
		t.Fatalf("Lookup(%s) = %v, %v; want %v", gid, got, err, want)
	}
}

func committed(t testing.TB, l *Log) []troth.Decision {
	t.Helper()
	ds, err := l.Committed(t.Context(), 0, "", 1<<30)
	if err != nil {
		t.Fatalf("Committed: %v", err)
	}
	return ds
}

func TestFirstWriterWins(t *testing.T) {
	t.Parallel()
	l := openMem(t, newMemFiles(), small())
	decide(t, l, commitNo(1), troth.Committed)
	decide(t, l, abortNo(1), troth.Committed)
	decide(t, l, commitNo(1), troth.Committed)
	decide(t, l, abortNo(2), troth.Aborted)
	decide(t, l, commitNo(2), troth.Aborted)
	lookup(t, l, gidNo(1), troth.Committed)
	lookup(t, l, gidNo(2), troth.Aborted)
	lookup(t, l, gidNo(3), troth.Undecided)
}

func TestCommitsSurviveAndAbortsArePresumed(t *testing.T) {
	t.Parallel()
	fs := newMemFiles()
	l := openMem(t, fs, small())
	identity := l.Identity()
	decide(t, l, commitNo(1), troth.Committed)
	decide(t, l, abortNo(2), troth.Aborted)
	closeLog(t, l)

	l = openMem(t, fs, small(func(s *settings) { s.identity = func() string { return "zzzzzzzz" } }))
	if l.Identity() != identity {
		t.Errorf("the identity was %s and is %s", identity, l.Identity())
	}
	want := commitNo(1)
	want.At = epoch
	if diff := cmp.Diff([]troth.Decision{want}, committed(t, l), cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("Committed (-want +got):\n%s", diff)
	}
	lookup(t, l, gidNo(2), troth.Undecided)
}

func TestCommittedPages(t *testing.T) {
	t.Parallel()
	now := epoch
	l := openMem(t, newMemFiles(), small(func(s *settings) { s.now = func() time.Time { return now } }))
	for _, n := range []int{5, 1, 4, 2, 3} {
		decide(t, l, commitNo(n), troth.Committed)
		now = now.Add(time.Minute)
	}
	list := func(minAge time.Duration, after troth.GID, limit int) (out []troth.GID) {
		for _, d := range must(l.Committed(t.Context(), minAge, after, limit)) {
			out = append(out, d.GID)
		}
		return out
	}
	for _, c := range []struct {
		name string
		got  []troth.GID
		want []troth.GID
	}{
		{"all", list(0, "", 10), []troth.GID{gidNo(1), gidNo(2), gidNo(3), gidNo(4), gidNo(5)}},
		{"limit", list(0, "", 2), []troth.GID{gidNo(1), gidNo(2)}},
		{"after", list(0, gidNo(2), 2), []troth.GID{gidNo(3), gidNo(4)}},
		{"after the last", list(0, gidNo(5), 2), nil},
		{"old enough", list(3*time.Minute, "", 10), []troth.GID{gidNo(1), gidNo(4), gidNo(5)}},
		{"none", list(0, "", 0), nil},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestForgetAndExpire(t *testing.T) {
	t.Parallel()
	fs := newMemFiles()
	l := openMem(t, fs, small())
	for n := range 4 {
		decide(t, l, commitNo(n), troth.Committed)
		decide(t, l, abortNo(10+n), troth.Aborted)
	}
	if err := l.Forget(t.Context(), []troth.GID{gidNo(0), gidNo(1), gidNo(10), gidNo(99)}); err != nil {
		t.Fatal(err)
	}
	lookup(t, l, gidNo(0), troth.Undecided)
	lookup(t, l, gidNo(10), troth.Aborted) // Forget is about commits
	if n, err := l.Expire(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("Expire(1h) = %d, %v; want 0: the records are young", n, err)
	}
	if n, err := l.Expire(t.Context(), -time.Hour); n != 4 || err != nil {
		t.Errorf("Expire(-1h) = %d, %v; want 4", n, err)
	}
	lookup(t, l, gidNo(10), troth.Undecided)
	lookup(t, l, gidNo(2), troth.Committed) // Expire is about aborts (R4)
	closeLog(t, l)                          // which writes what was forgotten

	l = openMem(t, fs, small())
	if got := committed(t, l); len(got) != 2 || got[0].GID != gidNo(2) || got[1].GID != gidNo(3) {
		t.Errorf("after reopening Committed = %v; want 2 and 3", got)
	}
}

func TestDecideRefusesWhatItCouldNotReadBack(t *testing.T) {
	t.Parallel()
	l := openMem(t, newMemFiles(), small())
	long := commitNo(1)
	for n := range 100 {
		long.Branches = append(long.Branches, troth.BranchRecord{Resource: "athos", Branch: 1 + n})
	}
	bad := commitNo(1)
	bad.Branches[0].Evidence = "a b"
	for name, d := range map[string]troth.Decision{
		"gid":           {GID: "bank.x", Outcome: troth.Committed},
		"gid of abort":  {GID: "", Outcome: troth.Aborted},
		"outcome":       {GID: gidNo(1)},
		"branches":      bad,
		"over the size": long,
	} {
		if got, err := l.Decide(t.Context(), d); err == nil || got != troth.Undecided {
			t.Errorf("%s: Decide = %v, %v; want an error", name, got, err)
		}
	}
	lookup(t, l, gidNo(1), troth.Undecided)
	decide(t, l, commitNo(1), troth.Committed)
}

func TestContextEndsTheWaitNotTheWrite(t *testing.T) {
	t.Parallel()
	fs := newMemFiles()
	l := openMem(t, fs, small())
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fs.mu.Lock()
	fs.after = func() { once.Do(func() { close(reached); <-release }) }
	fs.mu.Unlock()
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	go func() {
		<-reached
		cancel(reason)
	}()
	if got, err := l.Decide(ctx, commitNo(1)); got != troth.Undecided || !errors.Is(err, reason) {
		t.Fatalf("Decide = %v, %v; want undecided and the cause", got, err)
	}
	close(release)
	decide(t, l, abortNo(1), troth.Committed) // the commit came first, and abort waits for it
	if _, err := l.Decide(ctx, commitNo(2)); !errors.Is(err, reason) {
		t.Errorf("Decide with an ended context: %v", err)
	}
	lookup(t, l, gidNo(2), troth.Undecided)
}

func TestOneManager(t *testing.T) {
	t.Parallel()
	l := openMem(t, newMemFiles(), small())
	if err := l.Open(t.Context(), troth.RegisterConfig{Domain: "bank"}); err != nil {
		t.Fatal(err)
	}
	if err := l.Open(t.Context(), troth.RegisterConfig{Domain: "bank"}); err == nil {
		t.Error("a second Manager opened the log")
	}
	closeLog(t, l)
	closeLog(t, l)
	_, err := l.Decide(t.Context(), commitNo(1))
	_, err2 := l.Lookup(t.Context(), gidNo(1))
	_, err3 := l.Committed(t.Context(), 0, "", 1)
	_, err4 := l.Expire(t.Context(), 0)
	_, err5 := l.Decide(t.Context(), abortNo(1))
	for i, err := range []error{err, err2, err3, err4, err5, l.Forget(t.Context(), nil), l.Open(t.Context(), troth.RegisterConfig{})} {
		if !errors.Is(err, troth.ErrClosed) {
			t.Errorf("call %d after Close: %v; want ErrClosed", i, err)
		}
	}
}

// The last frame before a pause is confirmed by another, so that damage to it can
// be told from a torn write.
func TestIdleLogConfirmsItsLastFrame(t *testing.T) {
	t.Parallel()
	fs := newMemFiles()
	synced := make(chan struct{}, 16)
	fs.fail = func(op string) error {
		if op == "sync" {
			synced <- struct{}{}
		}
		return nil
	}
	l := openMem(t, fs, small(func(s *settings) { s.idleDelay = time.Millisecond }))
	decide(t, l, commitNo(1), troth.Committed)
	for range 5 { // two segments, the mark, the commit, the frame behind it
		<-synced
	}
	closeLog(t, l)
	c := must(readSegment("x", fs.get(segmentName(1)), true))
	if n := len(c.frames); n != 3 {
		t.Fatalf("%d frames; want 3: the first, the commit, the one that confirms", n)
	}
}

// Committers of the same and of different transactions, forgetting and aborting,
// under the race detector.
func TestConcurrentCommitters(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "log")
	l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem())
	if err != nil {
		t.Fatal(err)
	}
	const committers, each = 64, 100
	outcomes := make([][]troth.Outcome, committers)
	var wg sync.WaitGroup
	for c := range committers {
		wg.Go(func() {
			for n := range each {
				d := commitNo(c/2*each + n) // two ask about each transaction
				if (c+n)%3 == 0 {
					d = troth.Decision{GID: d.GID, Outcome: troth.Aborted}
				}
				o, err := l.Decide(t.Context(), d)
				if err != nil {
					t.Error(err)
				}
				outcomes[c] = append(outcomes[c], o)
				if c == 0 && n%10 == 0 {
					_ = must(l.Committed(t.Context(), 0, "", 100))
				}
			}
		})
	}
	wg.Wait()
	closeLog(t, l)
	l, err = Open(dir, WithUnsafeFileSystem())
	if err != nil {
		t.Fatal(err)
	}
	defer closeLog(t, l)
	for c := 0; c < committers; c += 2 {
		for n := range each {
			a, b := outcomes[c][n], outcomes[c+1][n]
			if a != b {
				t.Fatalf("transaction %d of committer %d: %v and %v", n, c, a, b)
			}
			want := a
			if want == troth.Aborted {
				want = troth.Undecided // presumed
			}
			lookup(t, l, gidNo(c/2*each+n), want)
		}
	}
}

// Records are forgotten while they are being copied to a newer segment.
func TestForgetDuringCopy(t *testing.T) {
	t.Parallel()
	fs, w := newMemFiles(), newLedger()
	l := openMem(t, fs, small())
	fs.mu.Lock()
	fs.fail = func(op string) error { // called by the writer, among others, in the middle of a batch
		var gids []troth.GID
		l.mu.Lock()
		if r := l.index.oldest(); r != nil && op == "sync" && len(l.index.commits) > 20 {
			gids = []troth.GID{r.gid}
		}
		l.mu.Unlock()
		w.note(w.forgotten, gids...)
		return l.Forget(background, gids)
	}
	fs.mu.Unlock()
	if err := w.run(l, 200); err != nil {
		t.Fatal(err)
	}
	fs.mu.Lock()
	fs.fail = nil
	fs.mu.Unlock()
	before := len(committed(t, l))
	if before > 25 {
		t.Errorf("%d records are live", before)
	}
	closeLog(t, l)
	w.check(t, "reopened", fs)
	l = openMem(t, fs, small())
	if after := len(committed(t, l)); after != before {
		t.Errorf("%d records after reopening, %d before", after, before)
	}
}

// On a slow disk the writer waits for the callers that it just released, so that
// they share one sync and not two that take turns. In virtual time.
func TestGathering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := openMem(t, newMemFiles(), small(WithSyncDelay(time.Millisecond), WithSegmentSize(1<<20)))
		const callers, rounds = 8, 50
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for n := range rounds {
					time.Sleep(20 * time.Microsecond * time.Duration(c%3)) // not all come back at once
					if _, err := l.Decide(background, commitNo(c*rounds+n)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if got := l.syncs.Load(); got > rounds+10 {
			t.Errorf("%d syncs for %d rounds", got, rounds)
		}
	})
}

// 10^5 decisions that are forgotten, among some that stay, take constant space.
func TestSizeStaysConstant(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "log")
	open := func() *Log {
		l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem(), func(s *settings) { s.idleDelay = time.Hour })
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	const total, batch = 100_000, 500
	stay := func(n int) bool { return n%5000 == 0 }
	biggest := int64(0)
	for from := 0; from < total; from += batch {
		var wg sync.WaitGroup
		var done []troth.GID
		for n := from; n < from+batch; n++ {
			if !stay(n) {
				done = append(done, gidNo(n))
			}
			wg.Go(func() {
				if _, err := l.Decide(t.Context(), commitNo(n)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := l.Forget(t.Context(), done); err != nil {
			t.Fatal(err)
		}
		biggest = max(biggest, directorySize(t, dir))
	}
	if limit := int64(8 * segmentSizeMin); biggest > limit {
		t.Errorf("the log grew to %d bytes; want at most %d", biggest, limit)
	}
	check := func() {
		t.Helper()
		if got := committed(t, l); len(got) != total/5000 {
			t.Fatalf("%d records stay; want %d", len(got), total/5000)
		}
		for n := 0; n < total; n += 5000 {
			lookup(t, l, gidNo(n), troth.Committed)
		}
	}
	check()
	closeLog(t, l)
	l = open()
	defer func() { closeLog(t, l) }()
	check()
	if got, limit := directorySize(t, dir), int64(2*segmentSizeMin+markSize); got > limit {
		t.Errorf("after reopening the log has %d bytes; want at most %d", got, limit)
	}
}

// Many live decisions make the log long; forgetting them makes it short again.
func TestSizeReturns(t *testing.T) {
	t.Parallel()
	fs := newMemFiles()
	l := openMem(t, fs, small())
	var gids []troth.GID
	for n := range 1000 {
		decide(t, l, commitNo(n), troth.Committed)
		gids = append(gids, gidNo(n))
	}
	if n := len(must(fs.List())); n < 100 {
		t.Fatalf("only %d segments hold 1000 records", n)
	}
	if err := l.Forget(t.Context(), gids); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	fs.mu.Lock()
	var once sync.Once
	fs.after = func() {
		if len(must(fs.List())) <= 4 {
			once.Do(func() { close(gone) })
		}
	}
	fs.mu.Unlock()
	for n := range 200 { // forgotten records ride along
		decide(t, l, commitNo(2000+n), troth.Committed)
		if err := l.Forget(t.Context(), []troth.GID{gidNo(2000 + n)}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-gone:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%d segments are left", len(must(fs.List())))
	}
}

func directorySize(t testing.TB, dir string) (total int64) {
	t.Helper()
	for _, e := range must(os.ReadDir(dir)) {
		if info, err := e.Info(); err == nil { // else it was removed just now
			total += info.Size()
		}
	}
	return total
}
