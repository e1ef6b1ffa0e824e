package history

import (
	"fmt"
	"slices"
	"testing"
)

// txn is an Append transaction of a client of its own.
func txn(gid string, phase Phase, steps ...ListOp) []Event {
	process := 0
	_, _ = fmt.Sscanf(gid, "t%d", &process)
	plan := slices.Clone(steps)
	for i := range plan {
		plan[i].Read = nil
	}
	e := []Event{{Process: process, Op: 1, GID: gid, Kind: Append, Phase: Invoke, Time: 1, Lists: plan}}
	if phase != Invoke {
		e = append(e, Event{Process: process, Op: 1, GID: gid, Kind: Append, Phase: phase, Time: 2, Lists: steps})
	}
	return e
}

func put(key int, value int64) ListOp   { return ListOp{DB: "a", Key: key, Value: value} }
func get(key int, read ...int64) ListOp { return ListOp{DB: "a", Key: key, Read: read} }

// anomalies are the names of what was found, sorted, each once.
func anomalies(found []Violation) []string {
	var out []string
	for _, v := range found {
		out = append(out, v.Anomaly)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func require(t *testing.T, what string, found []Violation, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := anomalies(found); !slices.Equal(got, want) {
		t.Errorf("%s: found %q, want %q: %v", what, got, want, found)
	}
	for _, v := range found {
		if v.Invariant == "" || len(v.Sentence) < 10 {
			t.Errorf("%s: a violation without words: %+v", what, v)
		}
	}
}

func lists(key int, values ...int64) map[int][]int64 { return map[int][]int64{key: values} }

func TestLists(t *testing.T) {
	t.Parallel()
	type lists = map[int][]int64
	for name, c := range map[string]struct {
		txns  [][]Event
		final lists    // nil: not observed
		at    Level    // the level that forbids it first
		want  []string // found there; below nothing, above the same
	}{
		"clean": {
			txns:  [][]Event{txn("t1", OK, put(1, 1)), txn("t2", Pending, get(1, 1), put(1, 2), get(1, 1, 2)), txn("t3", OK, get(1, 1, 2), get(2))},
			final: lists{1: {1, 2}},
			at:    ReadCommitted,
		},
		"dirty write": {
			txns:  [][]Event{txn("t1", OK, put(1, 1), put(2, 1)), txn("t2", OK, put(1, 2), put(2, 2))},
			final: lists{1: {1, 2}, 2: {2, 1}},
			at:    ReadCommitted, want: []string{"G0"},
		},
		"aborted read": {
			txns: [][]Event{txn("t1", RolledBack, put(1, 1)), txn("t2", OK, get(1, 1))},
			at:   ReadCommitted, want: []string{"G1a"},
		},
		"aborted append at the end": {
			txns:  [][]Event{txn("t1", RolledBack, put(1, 1))},
			final: lists{1: {1}},
			at:    ReadCommitted, want: []string{"G1a"},
		},
		"intermediate read": {
			txns: [][]Event{txn("t1", OK, put(1, 1), put(1, 2)), txn("t2", OK, get(1, 1))},
			at:   ReadCommitted, want: []string{"G1b"},
		},
		"circular reads": {
			txns: [][]Event{txn("t1", OK, put(1, 1), get(2, 2)), txn("t2", OK, put(2, 2), get(1, 1))},
			at:   ReadCommitted, want: []string{"G1c"},
		},
		"circular reads of three, with a write between": {
			txns: [][]Event{
				txn("t1", OK, put(1, 1), get(3, 3)),
				txn("t2", OK, put(1, 2), put(2, 2)),
				txn("t3", OK, get(2, 2), put(3, 3)),
			},
			final: lists{1: {1, 2}, 2: {2}, 3: {3}},
			at:    ReadCommitted, want: []string{"G1c"},
		},
		"two orders": {
			txns: [][]Event{txn("t1", OK, put(1, 1)), txn("t2", OK, put(1, 2)), txn("t3", OK, get(1, 1, 2)), txn("t4", OK, get(1, 2))},
			at:   ReadCommitted, want: []string{"incompatible order"},
		},
		"the end is another": {
			txns:  [][]Event{txn("t1", OK, put(1, 1)), txn("t2", OK, put(1, 2)), txn("t3", OK, get(1, 1, 2))},
			final: lists{1: {2, 1}},
			at:    ReadCommitted, want: []string{"incompatible order"},
		},
		"the end forgot": {
			txns:  [][]Event{txn("t1", OK, put(1, 1)), txn("t2", OK, put(1, 2)), txn("t3", OK, get(1, 1, 2))},
			final: lists{1: {1}},
			at:    ReadCommitted, want: []string{"incompatible order", "lost append"},
		},
		"lost append": {
			txns:  [][]Event{txn("t1", OK, put(1, 1)), txn("t2", OK, put(1, 2))},
			final: lists{1: {2}},
			at:    ReadCommitted, want: []string{"lost append"},
		},
		"doubled append": {
			txns: [][]Event{txn("t1", OK, put(1, 1)), txn("t2", OK, get(1, 1, 1))},
			at:   ReadCommitted, want: []string{"doubled append"},
		},
		"a value of nobody": {
			txns: [][]Event{txn("t1", OK, get(1, 7))},
			at:   ReadCommitted, want: []string{"unknown value"},
		},
		"a value of nobody at the end": {
			final: lists{1: {7}},
			at:    ReadCommitted, want: []string{"unknown value"},
		},
		"own append not seen": {
			txns: [][]Event{txn("t1", OK, put(1, 1), get(1))},
			at:   ReadCommitted, want: []string{"own appends"},
		},
		"own append seen too early": {
			txns: [][]Event{txn("t1", OK, get(1, 1), put(1, 1))},
			at:   ReadCommitted, want: []string{"own appends"},
		},
		"values are not unique": {
			txns: [][]Event{txn("t1", OK, put(1, 1)), txn("t2", OK, put(1, 1))},
			at:   ReadCommitted, want: []string{"bad history"},
		},
		"read not repeatable": {
			txns: [][]Event{txn("t1", OK, put(1, 1)), txn("t2", OK, get(1), get(1, 1))},
			at:   Snapshot, want: []string{"G-single", "read not repeatable"},
		},
		"read skew": {
			txns:  [][]Event{txn("t1", OK, put(1, 1), put(2, 2)), txn("t2", OK, get(1, 1), get(2))},
			final: lists{1: {1}, 2: {2}},
			at:    Snapshot, want: []string{"G-single"},
		},
		"lost update": {
			txns:  [][]Event{txn("t1", OK, get(1), put(1, 1)), txn("t2", OK, get(1), put(1, 2))},
			final: lists{1: {1, 2}},
			at:    Snapshot, want: []string{"lost update"},
		},
		"write skew": {
			txns:  [][]Event{txn("t1", OK, get(1), put(2, 2)), txn("t2", OK, get(2), put(1, 1))},
			final: lists{1: {1}, 2: {2}},
			at:    Serializable, want: []string{"G2"},
		},
		"unknown and never seen": {
			txns:  [][]Event{txn("t1", Unknown, put(1, 1)), txn("t2", Invoke, put(1, 2)), txn("t3", OK, get(1), put(1, 3))},
			final: lists{1: {3}},
			at:    ReadCommitted,
		},
		"a read that was only planned": {
			txns:  [][]Event{txn("t1", Invoke, get(1), put(2, 2)), txn("t2", OK, get(2), put(1, 1))},
			final: lists{1: {1}, 2: {2}},
			at:    ReadCommitted,
		},
		"unknown and seen": {
			txns: [][]Event{txn("t1", Unknown, put(1, 1), put(2, 2)), txn("t2", OK, get(1, 1), get(2)), txn("t3", OK, get(2, 2))},
			at:   Snapshot, want: []string{"G-single"},
		},
		"unknown, seen by one that is unknown and seen": {
			txns: [][]Event{txn("t1", Unknown, put(1, 1), put(1, 2)), txn("t2", Unknown, get(1, 1), put(2, 2)), txn("t3", OK, get(2, 2))},
			at:   ReadCommitted, want: []string{"G1b"},
		},
		"what a rolled back transaction read does not count": {
			txns:  [][]Event{txn("t1", OK, put(1, 1)), txn("t2", RolledBack, get(1, 7))},
			final: lists{1: {1}},
			at:    ReadCommitted,
		},
	} {
		final := Final{}
		if c.final != nil {
			final.Databases = []Database{{Name: "a", Lists: c.final}}
		}
		for level := ReadCommitted; level <= Serializable; level++ {
			want := c.want
			if level < c.at {
				want = nil
			}
			require(t, fmt.Sprintf("%s at level %d", name, level), CheckLists(slices.Concat(c.txns...), final, level, "a"), want...)
		}
		require(t, name+", in another database", CheckLists(slices.Concat(c.txns...), final, Serializable, "b"))
	}
}

// The same steps in two databases: each serializable, both together not.
func TestListsOfSeveralDatabasesAsOne(t *testing.T) {
	t.Parallel()
	b := func(op ListOp) ListOp { op.DB = "b"; return op }
	events := slices.Concat(txn("t1", OK, put(1, 1), b(put(1, 1))), txn("t2", OK, get(1, 1), b(get(1))))
	final := Final{Databases: []Database{{Name: "a", Lists: lists(1, 1)}, {Name: "b", Lists: lists(1, 1)}}}
	require(t, "a alone", CheckLists(events, final, Serializable, "a"))
	require(t, "b alone", CheckLists(events, final, Serializable, "b"))
	require(t, "both", CheckLists(events, final, Serializable), "G-single")
}

func TestAppendsAreAtomic(t *testing.T) {
	t.Parallel()
	both := []ListOp{{DB: "a", Key: 1, Value: 1}, {DB: "b", Key: 1, Value: 1}}
	nowhere := map[int][]int64{}
	for name, c := range map[string]struct {
		phase Phase
		a, b  map[int][]int64
		want  []string
	}{
		"committed":           {OK, lists(1, 1), lists(1, 1), nil},
		"unknown, everywhere": {Unknown, lists(1, 1), lists(1, 1), nil},
		"unknown, nowhere":    {Invoke, nowhere, nowhere, nil},
		"unknown, torn":       {Invoke, lists(1, 1), nowhere, []string{"atomicity"}},
		"pending, lost":       {Pending, nowhere, nowhere, []string{"lost commit"}},
		"rolled back, there":  {RolledBack, lists(1, 1), lists(1, 1), []string{"aborted but done"}},
		"b not observed":      {OK, lists(1, 1), nil, nil},
	} {
		final := Final{Databases: []Database{{Name: "a", Lists: c.a}, {Name: "b", Lists: c.b}}}
		require(t, name, CheckAppends(txn("t1", c.phase, both...), final), c.want...)
	}
	final := Final{Databases: []Database{{Name: "a", Lists: lists(1, 1)}, {Name: "b", Lists: lists(1, 1)}}, Outcomes: map[string]Answer{"t1": Aborted}}
	require(t, "unknown, against the outcome", CheckAppends(txn("t1", Unknown, both...), final), "aborted but done")
}

// A long history takes no time to speak of, and no deep stack.
func TestListsOfALongHistory(t *testing.T) {
	t.Parallel()
	var events []Event
	var values []int64
	for n := range 20_000 {
		tail := values[max(0, len(values)-20):]
		if n%20 == 0 {
			values = nil
			tail = nil
		}
		key := n / 20
		events = append(events, txn(fmt.Sprintf("t%d", n+1), OK, get(key, tail...), put(key, int64(n+1)), put(100_000, int64(n+1)))...)
		values = append(values, int64(n+1))
	}
	require(t, "long", CheckLists(events, Final{}, Serializable, "a"))
}
