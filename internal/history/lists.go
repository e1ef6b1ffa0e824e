package history

import (
	"fmt"
	"slices"
)

// A Level is an isolation level, as Adya (1999) and Elle (Kingsbury, Alvaro 2020)
// define them. Each forbids what those before it forbid, and more.
type Level int

// The levels.
const (
	// ReadCommitted forbids dirty writes (G0), aborted, intermediate and circular
	// reads (G1a, G1b, G1c), lost appends and lists whose order changes.
	ReadCommitted Level = iota + 1
	// Snapshot forbids lost updates, reads that do not repeat, and cycles with one
	// anti-dependency (G-single).
	Snapshot
	// Serializable forbids every cycle (G2).
	Serializable
)

// CheckAppends checks the atomicity of Append transactions (I1, I2, I3) against
// the lists at the end.
func CheckAppends(events []Event, final Final) []Violation {
	type element struct {
		db    string
		key   int
		value int64
	}
	there, observed := map[element]bool{}, map[string]bool{}
	for _, db := range final.Databases {
		observed[db.Name] = db.Lists != nil
		for key, values := range db.Lists {
			for _, v := range values {
				there[element{db.Name, key, v}] = true
			}
		}
	}
	ops := operations(events)
	told := answers(ops, final)
	var out []Violation
	for _, o := range ops {
		if o.Kind != Append || o.GID == "" {
			continue
		}
		e := effects{}
		for _, l := range o.Lists {
			if l.Value != 0 && observed[l.DB] {
				e.note(l.DB, there[element{l.DB, l.Key, l.Value}])
			}
		}
		out = append(out, e.check(o.GID, told[o.GID])...)
	}
	return out
}

// CheckLists checks the isolation of one database, or of several that are to be
// taken for one; of all if none is named. The order of a list's elements is the
// order in which its versions came about, and every read shows a version; from
// that follow the dependencies between transactions, and no level allows every
// cycle of them.
//
// A transaction that nobody was told the end of counts as committed if anybody
// saw what it appended, and as if it had never been otherwise (Elle, 4.2.3).
func CheckLists(events []Event, final Final, level Level, databases ...string) []Violation {
	h := newListHistory(events, final, databases)
	if len(h.out) > 0 {
		return h.out // values are not unique: nothing can be inferred
	}
	h.adopt()
	for _, key := range h.keys {
		h.order(key)
	}
	for _, t := range h.txns {
		if t.committed {
			h.readsOf(t, level)
		}
	}
	h.lostAppends()
	g := h.dependencies()
	return append(h.out, g.violations(level)...)
}

type listKey struct {
	db  string
	key int
}

func (k listKey) String() string { return fmt.Sprintf("list %d of %s", k.key, k.db) }

// A listTxn is an Append transaction as far as it touched the databases checked.
type listTxn struct {
	name      string // its GID, or what tells it apart without one
	gid       string
	told      Answer
	committed bool // told so, or seen
	steps     []ListOp
	appends   map[listKey][]int64
	reads     []listRead
}

// A listRead is a read without what the transaction itself had appended before.
type listRead struct {
	key   listKey
	whole []int64
	outer []int64
}

type listHistory struct {
	txns    []*listTxn
	writer  map[listKey]map[int64]*listTxn
	keys    []listKey
	final   map[listKey][]int64 // only what was observed
	watched map[string]bool     // databases whose lists were observed at the end
	version map[listKey][]int64 // the longest list that was seen
	out     []Violation
}

func newListHistory(events []Event, final Final, databases []string) *listHistory {
	h := &listHistory{writer: map[listKey]map[int64]*listTxn{}, final: map[listKey][]int64{}, watched: map[string]bool{}, version: map[listKey][]int64{}}
	in := func(db string) bool { return len(databases) == 0 || slices.Contains(databases, db) }
	known := map[listKey]bool{}
	for _, o := range operations(events) {
		if o.Kind != Append {
			continue
		}
		t := &listTxn{name: o.GID, gid: o.GID, told: o.told(), appends: map[listKey][]int64{}}
		if t.name == "" {
			t.name = fmt.Sprintf("operation %d of process %d", o.Op, o.Process)
		}
		t.committed = t.told == Committed
		for _, s := range o.Lists {
			if in(s.DB) && (o.ran || s.Value != 0) {
				known[listKey{s.DB, s.Key}] = true
				h.step(t, s)
			}
		}
		h.txns = append(h.txns, t)
	}
	for _, db := range final.Databases {
		if in(db.Name) && db.Lists != nil {
			h.watched[db.Name] = true
			for key, values := range db.Lists {
				known[listKey{db.Name, key}] = true
				h.final[listKey{db.Name, key}] = values
			}
		}
	}
	for k := range known {
		h.keys = append(h.keys, k)
	}
	slices.SortFunc(h.keys, func(a, b listKey) int {
		return slices.Compare([]string{a.db, fmt.Sprintf("%020d", a.key)}, []string{b.db, fmt.Sprintf("%020d", b.key)})
	})
	return h
}

func (h *listHistory) step(t *listTxn, s ListOp) {
	key := listKey{s.DB, s.Key}
	if s.Value == 0 {
		t.reads = append(t.reads, listRead{key: key, whole: s.Read, outer: without(s.Read, t.appends[key])})
		t.steps = append(t.steps, s)
		return
	}
	if h.writer[key] == nil {
		h.writer[key] = map[int64]*listTxn{}
	}
	if other := h.writer[key][s.Value]; other != nil {
		h.add("history", "bad history", []*listTxn{other, t}, "%d is appended to %v twice, by %s and %s", s.Value, key, other.name, t.name)
	}
	h.writer[key][s.Value] = t
	t.appends[key] = append(t.appends[key], s.Value)
	t.steps = append(t.steps, s)
}

func without(values, own []int64) []int64 {
	return slices.DeleteFunc(slices.Clone(values), func(v int64) bool { return slices.Contains(own, v) })
}

func (h *listHistory) add(invariant, anomaly string, about []*listTxn, format string, args ...any) {
	var names []string
	for _, t := range about {
		names = append(names, t.gid)
	}
	h.out = append(h.out, Violation{invariant, anomaly, fmt.Sprintf(format, args...), gids(names...)})
}

// adopt takes for committed whatever a committed transaction, or the end, has
// seen.
func (h *listHistory) adopt() {
	var queue []*listTxn
	see := func(key listKey, values []int64) {
		for _, v := range values {
			if w := h.writer[key][v]; w != nil && !w.committed && w.told != Aborted {
				w.committed = true
				queue = append(queue, w)
			}
		}
	}
	for _, t := range h.txns {
		if t.committed {
			queue = append(queue, t)
		}
	}
	for key, values := range h.final {
		see(key, values)
	}
	for len(queue) > 0 {
		t := queue[0]
		queue = queue[1:]
		for _, r := range t.reads {
			see(r.key, r.whole)
		}
	}
}

// order finds the versions of a list: it is the longest that was seen, and every
// other must be its beginning.
func (h *listHistory) order(key listKey) {
	longest, by := h.final[key], "the end"
	shown := func(t *listTxn, r listRead) bool { return t.committed && r.key == key }
	for _, t := range h.txns {
		for _, r := range t.reads {
			if shown(t, r) && len(r.whole) > len(longest) {
				longest, by = r.whole, t.name
			}
		}
	}
	h.version[key] = longest
	seen := map[int64]bool{}
	for _, v := range longest {
		if seen[v] {
			h.add("isolation", "doubled append", nil, "%d is in %v twice, as %s saw it", v, key, by)
		}
		seen[v] = true
	}
	incompatible := func(t *listTxn, name string, values []int64) {
		h.add("isolation", "incompatible order", []*listTxn{t}, "%s saw %v as %v, and %s saw it as %v", name, key, values, by, longest)
	}
	if h.watched[key.db] && !slices.Equal(h.final[key], longest) {
		incompatible(&listTxn{}, "the end", h.final[key])
	}
	for _, t := range h.txns {
		for _, r := range t.reads {
			if shown(t, r) && !isPrefix(r.whole, longest) {
				incompatible(t, t.name, r.whole)
			}
		}
	}
}

func isPrefix(a, b []int64) bool { return len(a) <= len(b) && slices.Equal(a, b[:len(a)]) }

// readsOf checks each read of a committed transaction alone: whose appends it
// shows, and whether it agrees with the transaction's own steps before.
func (h *listHistory) readsOf(t *listTxn, level Level) {
	own := map[listKey][]int64{}
	before := map[listKey]*listRead{}
	next := 0
	for _, s := range t.steps {
		key := listKey{s.DB, s.Key}
		if s.Value != 0 {
			own[key] = append(own[key], s.Value)
			continue
		}
		r := &t.reads[next]
		next++
		if !slices.Equal(r.whole, append(slices.Clone(r.outer), own[key]...)) {
			h.add("isolation", "own appends", []*listTxn{t}, "%s appended %v to %v and then read %v", t.name, own[key], key, r.whole)
		}
		if b := before[key]; b != nil && level >= Snapshot && !slices.Equal(b.outer, r.outer) {
			h.add("isolation", "read not repeatable", []*listTxn{t}, "%s read %v as %v, and then as %v", t.name, key, b.outer, r.outer)
		}
		before[key] = r
		h.sources(t, *r)
	}
}

// sources checks where the elements of a read come from.
func (h *listHistory) sources(t *listTxn, r listRead) {
	for _, v := range r.outer {
		switch w := h.writer[r.key][v]; {
		case w == nil:
			h.add("isolation", "unknown value", []*listTxn{t}, "%s read %d in %v, which nobody appended", t.name, v, r.key)
		case w == t:
			h.add("isolation", "own appends", []*listTxn{t}, "%s read %d in %v before it appended it", t.name, v, r.key)
		case w.told == Aborted:
			h.add("isolation", "G1a", []*listTxn{w, t}, "%s read %d in %v, which %s appended and rolled back", t.name, v, r.key, w.name)
		}
	}
	if len(r.outer) == 0 {
		return
	}
	last := r.outer[len(r.outer)-1]
	if w := h.writer[r.key][last]; w != nil && w != t {
		if of := w.appends[r.key]; of[len(of)-1] != last {
			h.add("isolation", "G1b", []*listTxn{w, t}, "%s read %v up to %d, and %s went on to append %d", t.name, r.key, last, w.name, of[len(of)-1])
		}
	}
}

// lostAppends looks for what was told to be committed in the lists at the end.
func (h *listHistory) lostAppends() {
	for _, key := range h.keys {
		if !h.watched[key.db] {
			continue
		}
		for _, v := range h.final[key] {
			if w := h.writer[key][v]; w == nil {
				h.add("isolation", "unknown value", nil, "%d is in %v at the end, and nobody appended it", v, key)
			} else if w.told == Aborted {
				h.add("isolation", "G1a", []*listTxn{w}, "%d is in %v at the end, and %s, which appended it, was rolled back", v, key, w.name)
			}
		}
		for _, t := range h.txns {
			for _, v := range t.appends[key] {
				if t.committed && !slices.Contains(h.final[key], v) {
					h.add("isolation", "lost append", []*listTxn{t}, "%s committed, and %d, which it appended to %v, is not there at the end", t.name, v, key)
				}
			}
		}
	}
}
