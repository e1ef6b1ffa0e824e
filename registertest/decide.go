package registertest

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/troth-tx/troth"
)

func testDecide(t *testing.T, b *bench) {
	reg := b.open()
	one, two := newGID(), newGID()
	b.lookup(reg, one, troth.Undecided)
	for range 3 { // idempotent
		b.decide(reg, commit(one), troth.Committed)
		b.decide(reg, abort(two), troth.Aborted)
	}
	b.decide(reg, abort(one), troth.Committed)
	b.decide(reg, commit(two), troth.Aborted)
	b.lookup(reg, one, troth.Committed)
	b.lookup(reg, two, troth.Aborted)
	b.lookup(reg, newGID(), troth.Undecided)
}

func testDecideRefusesNonsense(t *testing.T, b *bench) {
	reg := b.open()
	gid := newGID()
	for _, d := range []troth.Decision{
		{GID: gid, Outcome: troth.Undecided},
		{GID: gid, Outcome: 77},
		{GID: "", Outcome: troth.Committed},
		{GID: "bank.x", Outcome: troth.Committed},
		{GID: gid + "'; DROP TABLE troth_decision; --", Outcome: troth.Committed},
		{GID: gid, Outcome: troth.Committed, Branches: []troth.BranchRecord{{Resource: "a'b", Branch: 1}}},
		{GID: gid, Outcome: troth.Committed, Branches: []troth.BranchRecord{{Resource: "a", Branch: 0}}},
		{GID: gid, Outcome: troth.Committed, Branches: []troth.BranchRecord{{Resource: "a", Branch: 1, Evidence: "x y"}}},
	} {
		if outcome, err := reg.Decide(t.Context(), d); err == nil || outcome != troth.Undecided {
			t.Errorf("Decide(%+v) = %v, %v, want an error", d, outcome, err)
		}
	}
	b.lookup(reg, gid, troth.Undecided)
	if list := b.committed(reg, 0, "", 10); len(list) != 0 {
		t.Errorf("Committed = %v, want nothing", list)
	}
}

// All callers hear the same about one transaction, whatever they want.
func testFirstWriterWins(t *testing.T, b *bench) {
	reg := b.open()
	for range 20 {
		b.contend([]troth.Register{reg}, 16)
	}
}

// Several processes share the storage.
func testTwoOwners(t *testing.T, b *bench) {
	if b.f.SingleOwner {
		one := b.open()
		two := b.make(t)
		if err := two.Open(t.Context(), troth.RegisterConfig{Domain: domain}); err == nil {
			b.close(two)
			t.Fatal("a second owner could open the storage")
		}
		b.decide(one, commit(newGID()), troth.Committed)
		return
	}
	regs := []troth.Register{b.open(), b.open(), b.open()}
	for range 20 {
		b.contend(regs, 4)
	}
}

// contend has n callers for each register decide one transaction, half of them
// each way, and checks that all hear what Lookup says afterwards.
func (b *bench) contend(regs []troth.Register, n int) {
	b.t.Helper()
	gid := newGID()
	heard := make([]troth.Outcome, n*len(regs))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range heard {
		wg.Go(func() {
			d := commit(gid)
			if i%2 == 1 {
				d = abort(gid)
			}
			<-start
			outcome, err := regs[i%len(regs)].Decide(b.t.Context(), d)
			if err != nil {
				b.t.Errorf("Decide(%v): %v", d.Outcome, err)
			}
			heard[i] = outcome
		})
	}
	close(start)
	wg.Wait()
	if b.t.Failed() {
		b.t.FailNow()
	}
	for i, outcome := range heard {
		if outcome != heard[0] || outcome == troth.Undecided {
			b.t.Fatalf("caller 0 heard %v, caller %d heard %v", heard[0], i, outcome)
		}
	}
	for _, reg := range regs {
		b.lookup(reg, gid, heard[0])
	}
}

// Decisions about different transactions do not disturb each other, with a
// conflict among them.
func testManyAtOnce(t *testing.T, b *bench) {
	reg := b.open()
	const n = 200
	gids := make([]troth.GID, n)
	want := make([]troth.Outcome, n)
	for i := range gids {
		gids[i], want[i] = newGID(), troth.Committed
		if i%5 == 0 {
			want[i] = troth.Aborted
			b.decide(reg, abort(gids[i]), troth.Aborted)
		}
	}
	var wg sync.WaitGroup
	for i, gid := range gids {
		wg.Go(func() {
			if got, err := reg.Decide(t.Context(), commit(gid)); err != nil || got != want[i] {
				t.Errorf("Decide(%s) = %v, %v, want %v", gid, got, err, want[i])
			}
		})
	}
	wg.Wait()
	for i, gid := range gids {
		b.lookup(reg, gid, want[i])
	}
	if list := b.committed(reg, 0, "", n); len(list) != n*4/5 {
		t.Errorf("%d commit records, want %d", len(list), n*4/5)
	}
}

func testReopen(t *testing.T, b *bench) {
	one, two := newGID(), newGID()
	reg := b.open()
	b.decide(reg, commit(one), troth.Committed)
	b.decide(reg, abort(two), troth.Aborted)
	before := b.committed(reg, 0, "", 10)
	b.close(reg)

	reg = b.open()
	b.lookup(reg, one, troth.Committed)
	b.decide(reg, abort(one), troth.Committed)
	if !b.f.AbortsVolatile {
		b.lookup(reg, two, troth.Aborted)
		b.decide(reg, commit(two), troth.Aborted)
	}
	after := b.committed(reg, 0, "", 10)
	if len(after) != 1 || !after[0].At.Equal(before[0].At) || !reflect.DeepEqual(after[0].Branches, before[0].Branches) {
		t.Errorf("Committed = %+v after reopening, was %+v", after, before)
	}
}

func testIdentity(t *testing.T, b *bench) {
	reg := b.open()
	identity := reg.Identity()
	if !troth.ValidIdentity(identity) {
		t.Fatalf("Identity %q is not valid", identity)
	}
	if !b.f.SingleOwner {
		if again := b.open().Identity(); again != identity {
			t.Errorf("Identity %s in another process, %s here", again, identity)
		}
	}
	b.close(reg)
	if again := b.open().Identity(); again != identity {
		t.Errorf("Identity %s after reopening, was %s", again, identity)
	}
	other := &bench{t: t, f: b.f, make: b.f.New(t)}
	if another := other.open().Identity(); another == identity {
		t.Errorf("two registers have the identity %s", identity)
	}
}

// A call whose ctx has ended gets an error, never an answer that would be
// taken for one (R3).
func testCancelledContext(t *testing.T, b *bench) {
	reg := b.open()
	gid := newGID()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(reg, gid) {
		if err := call(ctx); err == nil {
			t.Errorf("%s with a cancelled ctx gives no error", name)
		}
	}
	outcome, err := reg.Lookup(t.Context(), gid) // it works on
	if err != nil {
		t.Fatal(err)
	}
	if outcome != troth.Undecided {
		b.decide(reg, abort(gid), outcome) // it went in all the same, which is allowed
	}
}

func testClosed(t *testing.T, b *bench) {
	reg := b.open()
	gid := newGID()
	b.decide(reg, commit(gid), troth.Committed)
	b.close(reg)
	for name, call := range calls(reg, gid) {
		if err := call(t.Context()); err == nil {
			t.Errorf("%s of a closed register gives no error", name)
		}
	}
	b.close(reg) // again is fine
}

// calls are one call of each method that can fail, with an error if the answer
// that came with the error is an answer.
func calls(reg troth.Register, gid troth.GID) map[string]func(context.Context) error {
	outcome := func(o troth.Outcome, err error) error {
		if err != nil && o != troth.Undecided {
			panic(fmt.Sprintf("outcome %v comes with the error %v", o, err))
		}
		return err
	}
	return map[string]func(context.Context) error{
		"Decide(commit)": func(ctx context.Context) error { return outcome(reg.Decide(ctx, commit(gid))) },
		"Decide(abort)":  func(ctx context.Context) error { return outcome(reg.Decide(ctx, abort(gid))) },
		"Lookup":         func(ctx context.Context) error { return outcome(reg.Lookup(ctx, gid)) },
		"Committed": func(ctx context.Context) error {
			_, err := reg.Committed(ctx, 0, "", 1)
			return err
		},
		"Expire": func(ctx context.Context) error {
			_, err := reg.Expire(ctx, 0)
			return err
		},
		"Forget": func(ctx context.Context) error { return reg.Forget(ctx, []troth.GID{newGID()}) },
	}
}
