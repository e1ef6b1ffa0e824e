package history

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// A Violation is a promise that was broken.
type Violation struct {
	// Invariant is "I1" to "I15"; "isolation" for what one database owes alone;
	// "history" if the history itself cannot be right, so that its recorder is at
	// fault and nothing is proved.
	Invariant string

	// Anomaly names the kind of violation in a few constant words.
	Anomaly string

	Sentence string
	GIDs     []string // that it is about, may be empty
}

func (v Violation) String() string { return v.Invariant + ", " + v.Anomaly + ": " + v.Sentence }

// Rules say what else may happen in a history.
type Rules struct {
	// Hidden: others than the history's clients decide too, as recovery does. So an
	// abort may be answered that nobody in the history asked for.
	Hidden bool

	// Forgets: records are forgotten, or not written for aborts. So Undecided may
	// be answered after a decision was. The opposite decision never may.
	Forgets bool

	// Level is what each database promises on its own. 0: lists are not checked
	// for isolation.
	Level Level
}

// Check runs every checker.
func Check(events []Event, final Final, rules Rules) []Violation {
	out := CheckShape(events)
	out = append(out, CheckBank(events, final)...)
	out = append(out, CheckLockedReads(events, final)...)
	out = append(out, CheckAppends(events, final)...)
	out = append(out, CheckMonotone(events, final, rules)...)
	out = append(out, CheckRegister(events, rules)...)
	if rules.Level != 0 {
		for _, db := range final.Databases {
			out = append(out, CheckLists(events, final, rules.Level, db.Name)...)
		}
	}
	return out
}

// CheckShape finds what no recorder may write: without it the other checkers
// would compare things that do not belong together.
func CheckShape(events []Event) []Violation {
	var out []Violation
	type id struct{ process, op int }
	open := map[id]Event{}  // invoked, not completed
	ended := map[id]bool{}  // completed
	current := map[int]id{} // what each process is at
	bad := func(e Event, what string) {
		out = append(out, Violation{"history", "bad history", fmt.Sprintf("process %d, operation %d (%s %s at %d) %s", e.Process, e.Op, e.Kind, e.Phase, e.Time, what), gids(e.GID)})
	}
	for _, e := range events {
		i := id{e.Process, e.Op}
		invoked, isOpen := open[i]
		switch {
		case e.Phase == Invoke && (isOpen || ended[i]):
			bad(e, "is invoked twice")
		case e.Phase == Invoke:
			if before, ok := current[e.Process]; ok && !ended[before] {
				bad(e, fmt.Sprintf("begins before operation %d of the same process has ended", before.op))
			}
			open[i], current[e.Process] = e, i
		case !isOpen:
			bad(e, "ends and has not begun, or ends twice")
		case invoked.Kind != e.Kind || invoked.Time > e.Time || (invoked.GID != "" && e.GID != "" && invoked.GID != e.GID):
			bad(e, "does not fit its invocation")
		default:
			delete(open, i)
			ended[i] = true
		}
	}
	return out
}

// An operation is an invocation with its completion, if there is one.
type operation struct {
	Event // what both say; Phase is the completion's, or Unknown
	begin int64
	end   int64 // forever if Phase is Unknown
	ran   bool  // Lists is what was executed, not only what was planned
}

const forever = math.MaxInt64

// told is what the operation's client was told about the transaction.
func (o operation) told() Answer {
	switch {
	case o.Kind == Decide || o.Kind == Lookup:
		return o.Answer
	case o.Phase == OK || o.Phase == Pending:
		return Committed
	case o.Phase == RolledBack:
		return Aborted
	}
	return ""
}

// operations pairs the events, in the order of their invocations.
func operations(events []Event) []operation {
	type id struct{ process, op int }
	at := map[id]int{}
	var out []operation
	for _, e := range events {
		i := id{e.Process, e.Op}
		n, ok := at[i]
		if !ok {
			n, at[i] = len(out), len(out)
			out = append(out, operation{Event: e, begin: e.Time, end: forever})
			out[n].Phase = Unknown
		}
		if e.Phase != Invoke {
			out[n].complete(e)
		}
	}
	return out
}

func (o *operation) complete(e Event) {
	o.Phase = e.Phase
	if e.Phase != Unknown {
		o.end = e.Time
	}
	o.GID = cmp.Or(e.GID, o.GID)
	o.Answer = cmp.Or(e.Answer, o.Answer)
	o.Want = cmp.Or(e.Want, o.Want)
	o.Locked = o.Locked || e.Locked
	if e.Changes != nil {
		o.Changes = e.Changes
	}
	if e.Balances != nil {
		o.Balances = e.Balances
	}
	if e.Lists != nil {
		o.Lists, o.ran = e.Lists, true
	}
}

// answers collects what anybody was told about each transaction, and what a
// Lookup says in the end.
func answers(ops []operation, final Final) map[string]map[Answer]bool {
	out := map[string]map[Answer]bool{}
	add := func(gid string, a Answer) {
		if gid == "" || a == "" {
			return
		}
		if out[gid] == nil {
			out[gid] = map[Answer]bool{}
		}
		out[gid][a] = true
	}
	for _, o := range ops {
		if o.Kind != Read { // which leaves nothing behind, and no record
			add(o.GID, o.told())
		}
	}
	for gid, a := range final.Outcomes {
		add(gid, a)
	}
	return out
}

func gids(of ...string) []string {
	return slices.DeleteFunc(slices.Clone(of), func(s string) bool { return s == "" })
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func list[T any](items []T) string {
	s := make([]string, len(items))
	for i, it := range items {
		s[i] = fmt.Sprint(it)
	}
	return strings.Join(s, ", ")
}
