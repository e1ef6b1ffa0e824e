package registertest

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
)

func testBranches(t *testing.T, b *bench) {
	reg := b.open()
	many := make([]troth.BranchRecord, 64) // the longest there is
	for i := range many {
		many[i] = troth.BranchRecord{Resource: strings.Repeat("r", 24), Branch: 936 + i, Evidence: strings.Repeat("E", 40)}
	}
	want := map[troth.GID][]troth.BranchRecord{
		newGID(): nil,
		newGID(): {{Resource: "porthos", Branch: 2, Evidence: "4711"}},
		newGID(): {{Resource: "a-b_c", Branch: 1}, {Resource: "0", Branch: 999, Evidence: "aZ09_-"}},
		newGID(): many,
	}
	begin := time.Now()
	for gid, branches := range want {
		b.decide(reg, troth.Decision{GID: gid, Outcome: troth.Committed, Branches: branches}, troth.Committed)
	}
	list := b.committed(reg, 0, "", 10)
	if len(list) != len(want) {
		t.Fatalf("%d commit records, want %d", len(list), len(want))
	}
	for _, d := range list {
		if !reflect.DeepEqual(d.Branches, want[d.GID]) {
			t.Errorf("%s binds %v, want %v", d.GID, d.Branches, want[d.GID])
		}
		// Another machine's clock may differ, but not by hours, as a mistaken time
		// zone would.
		if off := d.At.Sub(begin).Abs(); off > 10*time.Minute {
			t.Errorf("%s was decided at %v, want about %v", d.GID, d.At, begin)
		}
	}
}

func testCommittedPages(t *testing.T, b *bench) {
	reg := b.open()
	var want []troth.GID
	for range 25 {
		gid := newGID()
		b.decide(reg, commit(gid), troth.Committed)
		b.decide(reg, abort(newGID()), troth.Aborted) // not listed
		want = append(want, gid)
	}
	slices.Sort(want)
	for _, limit := range []int{1, 10, 25, 100} {
		var got []troth.GID
		var after troth.GID
		for {
			page := b.committed(reg, 0, after, limit)
			if len(page) > limit {
				t.Fatalf("a page of %d, limit %d", len(page), limit)
			}
			if len(page) == 0 {
				break
			}
			for _, d := range page {
				got = append(got, d.GID)
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d list %v, want %v", limit, got, want)
		}
	}
}

func testCommittedAge(t *testing.T, b *bench) {
	reg := b.open()
	gid := oldGID() // what counts is when the record was written
	b.decide(reg, commit(gid), troth.Committed)
	if list := b.committed(reg, time.Minute, "", 10); len(list) != 0 {
		t.Errorf("Committed(1m) = %v, want nothing", list)
	}
	const age = 50 * time.Millisecond
	begin := time.Now()
	for len(b.committed(reg, age, "", 10)) == 0 {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("Committed(%v) does not list the record", age)
		}
		time.Sleep(age / 5) // the clock is the register's: it can only be asked
	}
}

func testForget(t *testing.T, b *bench) {
	reg := b.open()
	var gids []troth.GID
	for range 3 {
		gids = append(gids, newGID())
		b.decide(reg, commit(gids[len(gids)-1]), troth.Committed)
	}
	aborted := newGID()
	b.decide(reg, abort(aborted), troth.Aborted)
	for range 2 { // idempotent; unknown ones do no harm, and abort records stay
		if err := reg.Forget(t.Context(), []troth.GID{gids[0], gids[2], newGID(), aborted}); err != nil {
			t.Fatal(err)
		}
	}
	if err := reg.Forget(t.Context(), nil); err != nil {
		t.Errorf("Forget(nil): %v", err)
	}
	b.lookup(reg, gids[0], troth.Undecided)
	b.lookup(reg, gids[1], troth.Committed)
	b.lookup(reg, gids[2], troth.Undecided)
	b.lookup(reg, aborted, troth.Aborted)
	if list := b.committed(reg, 0, "", 10); len(list) != 1 || list[0].GID != gids[1] {
		t.Errorf("Committed = %v, want %s alone", list, gids[1])
	}

	var many []troth.GID // more than any batch
	for range 1200 {
		many = append(many, newGID())
	}
	if err := reg.Forget(t.Context(), append(many, gids[1])); err != nil {
		t.Fatal(err)
	}
	b.lookup(reg, gids[1], troth.Undecided)
}

func testExpire(t *testing.T, b *bench) {
	reg := b.open()
	committed, aborted := oldGID(), oldGID()
	b.decide(reg, commit(committed), troth.Committed)
	b.decide(reg, abort(aborted), troth.Aborted)
	if n := b.expire(reg, 30*time.Minute); n != 0 {
		t.Errorf("Expire(30m) dropped %d records that were written just now", n)
	}
	b.lookup(reg, aborted, troth.Aborted)
	time.Sleep(5 * time.Millisecond) // for clocks of a millisecond
	if n := b.expire(reg, 0); n != 1 {
		t.Errorf("Expire(0) dropped %d records, want 1", n)
	}
	b.lookup(reg, aborted, troth.Undecided)
	b.lookup(reg, committed, troth.Committed) // never by age (R4)
}

func testExpireBatches(t *testing.T, b *bench) {
	reg := b.open()
	const n = 520 // more than a batch
	for range n {
		b.decide(reg, abort(oldGID()), troth.Aborted)
	}
	time.Sleep(5 * time.Millisecond) // for clocks of a millisecond
	if dropped := b.expire(reg, 0); dropped != n {
		t.Errorf("Expire dropped %d records, want %d", dropped, n)
	}
}

// A coordinator that wakes up after its abort record expired must not commit
// (R5).
func testFloor(t *testing.T, b *bench) {
	if !b.f.Floor {
		t.Skip("the register has no floor")
	}
	reg := b.open()
	zombie, fresh, decided := oldGID(), newGID(), oldGID()
	b.decide(reg, abort(zombie), troth.Aborted)
	b.decide(reg, commit(decided), troth.Committed)
	time.Sleep(5 * time.Millisecond) // for clocks of a millisecond
	if n, err := reg.Expire(t.Context(), 30*time.Minute); err != nil || n != 0 {
		t.Fatalf("Expire(30m) = %d, %v, want 0", n, err)
	}
	b.decide(reg, commit(oldGID()), troth.Aborted) // the floor is up at once
	b.decide(reg, commit(decided), troth.Committed)
	b.decide(reg, commit(fresh), troth.Committed)
	if n := b.expire(reg, 0); n != 1 {
		t.Fatalf("Expire(0) dropped %d records, want 1", n)
	}
	b.lookup(reg, zombie, troth.Undecided)
	b.decide(reg, commit(zombie), troth.Aborted)
	b.decide(reg, commit(decided), troth.Committed)
	if !b.f.SingleOwner {
		b.decide(b.open(), commit(zombie), troth.Aborted)
	}
	b.close(reg)
	b.decide(b.open(), commit(zombie), troth.Aborted) // durable
}

func testDomains(t *testing.T, b *bench) {
	if !b.f.SharedByDomains {
		t.Skip("the register belongs to one domain")
	}
	// Neighbours in every order, and one a prefix of the other.
	domains := []string{"bank", "bank-1", "bank_", "bank0", "ban", "a"}
	regs := make(map[string]troth.Register)
	gids := make(map[string][2]troth.GID)
	for _, d := range domains {
		regs[d] = b.openFor(d)
		long := time.Now().Add(-time.Hour)
		gids[d] = [2]troth.GID{troth.NewGID(d, long), troth.NewGID(d, long)}
		b.decide(regs[d], commit(gids[d][0]), troth.Committed)
		b.decide(regs[d], abort(gids[d][1]), troth.Aborted)
	}
	for _, d := range domains {
		if list := b.committed(regs[d], 0, "", 10); len(list) != 1 || list[0].GID != gids[d][0] {
			t.Errorf("Committed of %s = %v, want %s alone", d, list, gids[d][0])
		}
	}
	time.Sleep(5 * time.Millisecond) // for clocks of a millisecond
	if n := b.expire(regs["bank"], 0); n != 1 {
		t.Errorf("Expire dropped %d records, want the domain's own", n)
	}
	for _, d := range domains[1:] {
		b.lookup(regs["bank"], gids[d][1], troth.Aborted)
	}
}
