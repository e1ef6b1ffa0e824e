package history

import "testing"

// call is an operation from begin to end about transaction t; end 0: it was
// never answered.
func call(process int, kind Kind, begin, end int64, phase Phase, want, answer Answer) []Event {
	e := []Event{{Process: process, Op: int(begin), GID: "t", Kind: kind, Phase: Invoke, Time: begin, Want: want}}
	if end != 0 {
		e = append(e, Event{Process: process, Op: int(begin), GID: "t", Kind: kind, Phase: phase, Time: end, Answer: answer})
	}
	return e
}

func TestRegister(t *testing.T) {
	t.Parallel()
	decide := func(process int, begin, end int64, want, answer Answer) []Event {
		return call(process, Decide, begin, end, OK, want, answer)
	}
	lookup := func(process int, begin, end int64, answer Answer) []Event {
		return call(process, Lookup, begin, end, OK, "", answer)
	}
	transfer := func(process int, begin, end int64, phase Phase) []Event {
		return call(process, Transfer, begin, end, phase, "", "")
	}
	strict, hidden, forgets := Rules{}, Rules{Hidden: true}, Rules{Forgets: true}
	both := Rules{Hidden: true, Forgets: true}
	const u, c, a = Undecided, Committed, Aborted
	for name, x := range map[string]struct {
		events [][]Event
		rules  Rules
		linear bool
		want   []string // of CheckMonotone
	}{
		"first writer wins":                         {[][]Event{decide(1, 1, 2, c, c), decide(2, 3, 4, a, c), lookup(3, 5, 6, c)}, strict, true, nil},
		"at the same time, either":                  {[][]Event{decide(1, 1, 9, c, a), decide(2, 1, 9, a, a)}, strict, true, nil},
		"second writer wins":                        {[][]Event{decide(1, 1, 2, c, c), decide(2, 3, 4, a, a)}, strict, false, []string{"decision reversed"}},
		"both win at the same time":                 {[][]Event{decide(1, 1, 9, c, c), decide(2, 1, 9, a, a)}, strict, false, []string{"decision reversed"}},
		"seen before it was asked for":              {[][]Event{lookup(2, 1, 2, c), decide(1, 3, 4, c, c)}, strict, false, nil},
		"seen while it was on its way":              {[][]Event{decide(1, 1, 9, c, c), lookup(2, 2, 3, u), lookup(2, 4, 5, c)}, strict, true, nil},
		"seen, and then not yet":                    {[][]Event{decide(1, 1, 9, c, c), lookup(2, 2, 3, c), lookup(2, 4, 5, u)}, strict, false, []string{"decision vanished"}},
		"seen, and then forgotten":                  {[][]Event{decide(1, 1, 9, c, c), lookup(2, 2, 3, c), lookup(2, 4, 5, u)}, forgets, true, nil},
		"not there after it was written":            {[][]Event{decide(1, 1, 2, c, c), lookup(2, 4, 5, u)}, strict, false, []string{"decision vanished"}},
		"lost on its way, appears":                  {[][]Event{decide(1, 1, 0, c, ""), lookup(2, 2, 3, u), lookup(2, 4, 5, c)}, strict, true, nil},
		"lost on its way, never appears":            {[][]Event{decide(1, 1, 0, c, ""), lookup(2, 2, 3, u), decide(2, 4, 5, a, a)}, strict, true, nil},
		"lost on its way, and late":                 {[][]Event{decide(1, 1, 0, c, ""), decide(2, 4, 5, a, a), lookup(2, 6, 7, c)}, strict, false, []string{"decision reversed"}},
		"an error is not an answer":                 {[][]Event{call(1, Decide, 1, 2, Unknown, c, ""), lookup(2, 3, 4, u), lookup(2, 5, 6, c)}, strict, true, nil},
		"an answer that nobody wrote":               {[][]Event{lookup(2, 1, 2, a)}, strict, false, nil},
		"recovery wrote it":                         {[][]Event{transfer(1, 1, 0, ""), lookup(2, 2, 3, a), lookup(2, 4, 5, a)}, hidden, true, nil},
		"recovery was first":                        {[][]Event{decide(1, 1, 2, c, a), lookup(2, 4, 5, a)}, hidden, true, nil},
		"recovery was first, commit later":          {[][]Event{transfer(1, 1, 9, OK), lookup(2, 2, 3, a)}, hidden, false, []string{"decision reversed"}},
		"recovery commits nothing alone":            {[][]Event{lookup(2, 2, 3, c)}, hidden, false, nil},
		"transfer committed":                        {[][]Event{transfer(1, 1, 9, Pending), lookup(2, 2, 3, u), lookup(2, 10, 11, c)}, strict, true, nil},
		"transfer killed, found committed":          {[][]Event{transfer(1, 1, 0, ""), lookup(2, 2, 3, u), lookup(2, 10, 11, c)}, strict, true, nil},
		"transfer committed, not there":             {[][]Event{transfer(1, 1, 9, OK), lookup(2, 10, 11, u)}, strict, false, []string{"decision vanished"}},
		"rolled back without a record":              {[][]Event{transfer(1, 1, 9, RolledBack), lookup(2, 10, 11, u), decide(3, 12, 13, a, a), lookup(2, 14, 15, a)}, both, true, nil},
		"rolled back without a record, strictly":    {[][]Event{transfer(1, 1, 9, RolledBack), lookup(2, 10, 11, u)}, strict, true, []string{"decision vanished"}},
		"rolled back, and committed":                {[][]Event{transfer(1, 1, 9, RolledBack), lookup(2, 10, 11, c)}, both, false, []string{"decision reversed"}},
		"committed, and rolled back":                {[][]Event{lookup(2, 2, 3, c), transfer(1, 1, 9, RolledBack)}, both, false, []string{"decision reversed"}},
		"forgotten and then decided the other way":  {[][]Event{decide(1, 1, 2, c, c), lookup(2, 3, 4, u), decide(3, 5, 6, a, a)}, both, false, []string{"decision reversed"}},
		"a register that says nothing when it must": {[][]Event{decide(1, 1, 2, c, u)}, strict, false, nil},
	} {
		var events []Event
		for _, e := range x.events {
			events = append(events, e...)
		}
		var want []string
		if !x.linear {
			want = []string{"not linearizable"}
		}
		require(t, name, CheckRegister(events, x.rules), want...)
		require(t, name, CheckMonotone(events, Final{}, x.rules), x.want...)
	}
}

// The end counts too.
func TestMonotoneHoldsTheEndAgainstWhatWasTold(t *testing.T) {
	t.Parallel()
	events := call(1, Transfer, 1, 2, OK, "", "")
	require(t, "same", CheckMonotone(events, Final{Outcomes: map[string]Answer{"t": Committed}}, Rules{}))
	require(t, "opposite", CheckMonotone(events, Final{Outcomes: map[string]Answer{"t": Aborted}}, Rules{}), "decision reversed")
}
