package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// testModel does the same to the store and to the one in memory, and compares what
// they say.
func testModel(t *testing.T, s store.Store) {
	rapid.Check(t, func(r *rapid.T) {
		m := &model{ctx: t.Context(), real: s, memory: memory.New(), known: make(map[string]*store.Transaction)}
		defer m.empty(r)
		r.Repeat(map[string]func(*rapid.T){
			"create": m.create,
			"save":   m.save,
			"get":    m.get,
			"claim":  m.claim,
			"list":   m.list,
			"purge":  m.purge,
			"":       m.nextDue,
		})
	})
}

type model struct {
	ctx          context.Context //nolint:containedctx // of the test
	real, memory store.Store
	known        map[string]*store.Transaction // as somebody read them last
	ticks        int
}

var modelGIDs = []string{"a", "ab", "abc", "b%", "b_", "ü", "A"}

// tick is a time that comes once, so that every order is the only one.
func (m *model) tick(r *rapid.T, label string) time.Time {
	m.ticks++
	return epoch.Add(time.Duration(rapid.IntRange(0, 100).Draw(r, label))*time.Second + time.Duration(m.ticks)*time.Microsecond)
}

func (m *model) create(r *rapid.T) {
	x := transaction(rapid.SampledFrom(modelGIDs).Draw(r, "gid"))
	x.Owner = rapid.SampledFrom([]string{"", "o", "O"}).Draw(r, "owner")
	x.Pattern = store.Pattern(rapid.IntRange(1, 5).Draw(r, "pattern"))
	x.Data = rapid.String().Draw(r, "data")
	x.Created = m.tick(r, "created")
	x.Branches = x.Branches[:rapid.IntRange(0, 2).Draw(r, "branches")]
	m.change(r, x)
	y := x.Clone()
	err := m.real.Create(m.ctx, x)
	m.same(r, "Create", err, m.memory.Create(m.ctx, y))
	m.equal(r, x, y)
	if err == nil {
		m.known[x.GID] = x
	}
}

// change draws what a Save may change.
func (m *model) change(r *rapid.T, x *store.Transaction) {
	x.Updated = m.tick(r, "updated")
	x.State = store.State(rapid.IntRange(1, 5).Draw(r, "state"))
	x.Due, x.Leased, x.Finished = m.tick(r, "due"), rapid.Bool().Draw(r, "leased"), time.Time{}
	if x.State.Over() {
		finish(x, x.State, m.tick(r, "finished"))
	}
	x.Attempts = rapid.IntRange(0, 3).Draw(r, "attempts")
	x.Reason, x.Result = rapid.String().Draw(r, "reason"), rapid.String().Draw(r, "result")
	x.Interval = time.Duration(rapid.Int64().Draw(r, "interval"))
	for i := range x.Branches {
		b := &x.Branches[i]
		b.State = store.BranchState(rapid.IntRange(1, 3).Draw(r, "branch"))
		b.Error = rapid.String().Draw(r, "error")
		if b.Called = (time.Time{}); rapid.Bool().Draw(r, "called") {
			b.Called = m.tick(r, "called at")
		}
	}
}

func (m *model) save(r *rapid.T) {
	gid := rapid.SampledFrom(modelGIDs).Draw(r, "gid")
	x := m.known[gid]
	known := x != nil
	if !known {
		x = transaction(gid) // of no version that there is
	}
	x = x.Clone()
	added := len(x.Branches)
	for range rapid.IntRange(0, 2).Draw(r, "added") {
		x.Branches = append(x.Branches, store.Branch{
			ID: fmt.Sprint(len(x.Branches)), Op: store.Confirm, URL: rapid.String().Draw(r, "url"),
			Payload: rapid.SliceOf(rapid.Byte()).Draw(r, "payload"), State: store.BranchPrepared,
		})
	}
	m.change(r, x)
	if known && rapid.IntRange(0, 5).Draw(r, "wrong") == 0 {
		x.Version++
	}
	y := x.Clone()
	err := m.real.Save(m.ctx, x, added)
	m.same(r, "Save", err, m.memory.Save(m.ctx, y, added))
	m.equal(r, x, y)
	if err == nil {
		m.known[gid] = x
	}
}

func (m *model) get(r *rapid.T) {
	gid := rapid.SampledFrom(modelGIDs).Draw(r, "gid")
	x, err := m.real.Get(m.ctx, gid)
	y, errMemory := m.memory.Get(m.ctx, gid)
	m.same(r, "Get", err, errMemory)
	if m.known[gid] = x; err == nil {
		m.equal(r, x, y)
	}
}

func (m *model) claim(r *rapid.T) {
	now, limit := m.tick(r, "now"), rapid.IntRange(0, 4).Draw(r, "limit")
	m.ticks += limit // every lease of its own
	lease := time.Duration(rapid.IntRange(1, 50).Draw(r, "lease")) * time.Second
	for range limit { // one at a time: what is claimed together has one Due
		lease += time.Microsecond
		xs, err := m.real.Claim(m.ctx, now, lease, 1)
		ys, errMemory := m.memory.Claim(m.ctx, now, lease, 1)
		m.same(r, "Claim", err, errMemory)
		m.equalAll(r, "Claim", xs, ys)
	}
}

func (m *model) nextDue(r *rapid.T) {
	x, err := m.real.NextDue(m.ctx)
	y, errMemory := m.memory.NextDue(m.ctx)
	m.same(r, "NextDue", err, errMemory)
	if !x.Equal(y) {
		r.Fatalf("NextDue is %v, want %v", x, y)
	}
}

func (m *model) list(r *rapid.T) {
	f := store.Filter{
		Pattern:   store.Pattern(rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(r, "pattern")),
		Owner:     rapid.SampledFrom([]string{"", "", "o", "O"}).Draw(r, "owner"),
		GIDPrefix: rapid.SampledFrom([]string{"", "", "a", "ab", "b%", "b", "ü"}).Draw(r, "prefix"),
		Stuck:     rapid.Bool().Draw(r, "stuck"),
		Limit:     rapid.IntRange(1, 3).Draw(r, "limit"),
	}
	for _, n := range rapid.SliceOfN(rapid.IntRange(1, 5), 0, 3).Draw(r, "states") {
		f.States = append(f.States, store.State(n))
	}
	if rapid.Bool().Draw(r, "from") {
		f.CreatedFrom = m.tick(r, "created from")
	}
	if rapid.Bool().Draw(r, "until") {
		f.CreatedUntil = m.tick(r, "created until")
	}
	g := f
	for {
		xs, next, err := m.real.List(m.ctx, f)
		ys, nextMemory, errMemory := m.memory.List(m.ctx, g)
		m.same(r, "List", err, errMemory)
		m.equalAll(r, "List", xs, ys)
		if (next == "") != (nextMemory == "") {
			r.Fatalf("List has the cursor %q, want %q", next, nextMemory)
		}
		if f.Cursor, g.Cursor = next, nextMemory; next == "" {
			return
		}
	}
}

func (m *model) purge(r *rapid.T) {
	before := m.tick(r, "before")
	x, err := m.real.Purge(m.ctx, before, len(modelGIDs))
	y, errMemory := m.memory.Purge(m.ctx, before, len(modelGIDs))
	m.same(r, "Purge", err, errMemory)
	if x != y {
		r.Fatalf("Purge removed %d, want %d", x, y)
	}
}

// empty ends and removes everything, for the next run.
func (m *model) empty(r *rapid.T) {
	for _, gid := range modelGIDs {
		x, err := m.real.Get(m.ctx, gid)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err == nil {
			finish(x, store.Failed, epoch)
			err = m.real.Save(m.ctx, x, len(x.Branches))
		}
		if err != nil {
			r.Fatalf("%q cannot be ended: %v", gid, err)
		}
	}
	if _, err := m.real.Purge(m.ctx, epoch.Add(time.Hour), 2*len(modelGIDs)); err != nil {
		r.Fatalf("Purge: %v", err)
	}
}

var sentinels = []error{nil, store.ErrExists, store.ErrNotFound, store.ErrConflict}

func (m *model) same(r *rapid.T, what string, err, want error) {
	if !slices.ContainsFunc(sentinels, func(x error) bool { return errors.Is(err, x) && errors.Is(want, x) }) {
		r.Fatalf("%s = %v, want %v", what, err, want)
	}
}

func (m *model) equal(r *rapid.T, x, y *store.Transaction) {
	if diff := differ(x, y); diff != "" {
		r.Fatalf("%q: %s", y.GID, diff)
	}
}

func (m *model) equalAll(r *rapid.T, what string, xs, ys []*store.Transaction) {
	if len(xs) != len(ys) {
		r.Fatalf("%s has %d, want %d", what, len(xs), len(ys))
	}
	for i := range xs {
		m.equal(r, xs[i], ys[i])
	}
}
