package history

import "testing"

// bankWorld is a bank of two databases in which t1 committed, t2 was rolled back,
// t3 ended unknown and committed, and t4 was killed and did not.
func bankWorld() ([]Event, Final) {
	move := func(gid string, process int, phase Phase, amount int64) []Event {
		e := Event{Process: process, Op: 1, GID: gid, Kind: Transfer, Time: int64(10 * process), Phase: Invoke, Changes: []Change{{"a", 1, -amount}, {"b", 2, amount}}}
		if phase == Invoke {
			return []Event{e}
		}
		return []Event{e, {Process: process, Op: 1, GID: gid, Kind: Transfer, Phase: phase, Time: e.Time + 5}}
	}
	var events []Event
	events = append(events, move("t1", 1, OK, 5)...)
	events = append(events, move("t2", 2, RolledBack, 7)...)
	events = append(events, move("t3", 3, Unknown, 11)...)
	events = append(events, move("t4", 4, Invoke, 13)...)
	events = append(events, Event{Process: 5, Op: 1, Kind: Read, Locked: true, Phase: Invoke, Time: 60},
		Event{Process: 5, Op: 1, Kind: Read, Phase: OK, Time: 61, Balances: []Balance{{"a", 1, 95}, {"b", 2, 105}}})
	return events, Final{
		Databases: []Database{
			{Name: "a", Start: map[int]int64{1: 100}, Balances: map[int]int64{1: 84}, Journal: []JournalRow{{"t1", 1, -5}, {"t3", 1, -11}}},
			{Name: "b", Start: map[int]int64{2: 100}, Balances: map[int]int64{2: 116}, Journal: []JournalRow{{"t3", 2, 11}, {"t1", 2, 5}}},
		},
		Outcomes: map[string]Answer{"t1": Committed, "t2": Aborted, "t3": Committed, "t4": Undecided},
	}
}

func TestBank(t *testing.T) {
	t.Parallel()
	row := func(db int, r JournalRow) func([]Event, *Final) {
		return func(_ []Event, f *Final) {
			f.Databases[db].Journal = append(f.Databases[db].Journal, r)
			f.Databases[db].Balances[db+1] += r.Amount
		}
	}
	for name, c := range map[string]struct {
		edit func(events []Event, f *Final)
		want []string
	}{
		"clean": {func([]Event, *Final) {}, nil},
		"half of a commit lost": {func(_ []Event, f *Final) {
			f.Databases[1].Journal = f.Databases[1].Journal[:1]
			f.Databases[1].Balances[2] -= 5
		}, []string{"atomicity", "lost commit", "total"}},
		"a commit lost": {func(_ []Event, f *Final) {
			f.Databases[0].Journal, f.Databases[0].Balances[1] = f.Databases[0].Journal[1:], 89
			f.Databases[1].Journal, f.Databases[1].Balances[2] = f.Databases[1].Journal[:1], 111
		}, []string{"lost commit"}},
		"half of what was killed": {row(0, JournalRow{"t4", 1, -13}), []string{"atomicity", "total"}},
		"all of what was rolled back": {func(e []Event, f *Final) {
			row(0, JournalRow{"t2", 1, -7})(e, f)
			row(1, JournalRow{"t2", 2, 7})(e, f)
		}, []string{"aborted but done"}},
		"outcome against the journal": {func(_ []Event, f *Final) { f.Outcomes["t3"] = Aborted }, []string{"aborted but done"}},
		"outcome of the killed one":   {func(_ []Event, f *Final) { f.Outcomes["t4"] = Committed }, []string{"lost commit"}},
		"a row twice":                 {row(0, JournalRow{"t1", 1, -5}), []string{"doubled row", "total"}},
		"a row of nobody":             {row(0, JournalRow{"t9", 1, -1}), []string{"stray row", "total"}},
		"a row with another amount":   {func(_ []Event, f *Final) { f.Databases[0].Journal[0].Amount = -4 }, []string{"atomicity", "balance", "lost commit", "stray row"}},
		"a lost update":               {func(_ []Event, f *Final) { f.Databases[0].Balances[1] += 5 }, []string{"balance", "total"}},
		"two that cancel out":         {func(_ []Event, f *Final) { f.Databases[0].Balances[1]++; f.Databases[1].Balances[2]-- }, []string{"balance"}},
		"an account vanished":         {func(_ []Event, f *Final) { delete(f.Databases[0].Balances, 1) }, []string{"balance", "total"}},
		"an account from nowhere":     {func(_ []Event, f *Final) { f.Databases[0].Balances[9] = 0 }, []string{"balance"}},
		"prepared":                    {func(_ []Event, f *Final) { f.Databases[1].Prepared = []string{"t4"} }, []string{"orphan"}},
		"a read between two commits":  {func(e []Event, _ *Final) { e[len(e)-1].Balances[1].Balance = 100 }, []string{"fractured read"}},
		"a read that was rolled back": {func(e []Event, _ *Final) { e[len(e)-1].Balances[1].Balance = 100; e[len(e)-1].Phase = RolledBack }, nil},
		"a read without locks":        {func(e []Event, _ *Final) { e[len(e)-1].Balances[1].Balance = 100; e[len(e)-2].Locked = false }, nil},
		"a read of too few accounts":  {func(e []Event, _ *Final) { e[len(e)-1].Balances = e[len(e)-1].Balances[:1] }, []string{"bad history"}},
		"a read of one account twice": {func(e []Event, _ *Final) { e[len(e)-1].Balances[1] = e[len(e)-1].Balances[0] }, []string{"bad history"}},
		"a transfer that makes money": {func(e []Event, f *Final) {
			e[6].Changes[0].Amount = 1
			row(0, JournalRow{"t4", 1, 1})(e, f)
			row(1, JournalRow{"t4", 2, 13})(e, f)
		}, nil},
		"a transfer told to both ways": {func(e []Event, f *Final) { f.Outcomes["t1"] = Aborted }, []string{"aborted but done", "decision reversed"}},
	} {
		events, final := bankWorld()
		c.edit(events, &final)
		found := append(CheckBank(events, final), CheckLockedReads(events, final)...)
		found = append(found, CheckMonotone(events, final, Rules{Hidden: true, Forgets: true})...)
		require(t, name, found, c.want...)
	}
}

// The number of the invariant and the gid are what a shrinker compares.
func TestViolationsNameTheirInvariant(t *testing.T) {
	t.Parallel()
	events, final := bankWorld()
	final.Databases[1].Journal = final.Databases[1].Journal[:1]
	want := map[string]string{"atomicity": "I1", "lost commit": "I2", "balance": "I5"}
	found := CheckBank(events, final)
	for _, v := range found {
		if want[v.Anomaly] != v.Invariant || (v.Anomaly != "balance" && (len(v.GIDs) != 1 || v.GIDs[0] != "t1")) {
			t.Errorf("%+v", v)
		}
	}
	if len(found) != 3 {
		t.Errorf("found %v", found)
	}
}

func TestShape(t *testing.T) {
	t.Parallel()
	e := func(process, op int, phase Phase, time int64) Event {
		return Event{Process: process, Op: op, Kind: Lookup, Phase: phase, Time: time}
	}
	other := e(1, 1, OK, 2)
	other.Kind = Transfer
	for name, c := range map[string]struct {
		events []Event
		bad    int
	}{
		"clean":               {[]Event{e(1, 1, Invoke, 1), e(2, 1, Invoke, 1), e(1, 1, OK, 2), e(1, 2, Invoke, 3)}, 0},
		"invoked twice":       {[]Event{e(1, 1, Invoke, 1), e(1, 1, Invoke, 2)}, 1},
		"number used again":   {[]Event{e(1, 1, Invoke, 1), e(1, 1, OK, 2), e(1, 1, Invoke, 3)}, 1},
		"two at once":         {[]Event{e(1, 1, Invoke, 1), e(1, 2, Invoke, 2)}, 1},
		"ended twice":         {[]Event{e(1, 1, Invoke, 1), e(1, 1, OK, 2), e(1, 1, OK, 3)}, 1},
		"not begun":           {[]Event{e(1, 1, OK, 2)}, 1},
		"another kind":        {[]Event{e(1, 1, Invoke, 1), other}, 1},
		"ended before it was": {[]Event{e(1, 1, Invoke, 3), e(1, 1, OK, 2)}, 1},
	} {
		if found := CheckShape(c.events); len(found) != c.bad {
			t.Errorf("%s: %v", name, found)
		}
	}
}
