package history

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// A serialWorld runs transactions one after the other on perfect databases, and
// records their history: whatever it generates is right. Clients are told less
// than the truth, but nothing else.
type serialWorld struct {
	t      *rapid.T
	time   int64
	value  int64
	events []Event
	final  Final
	truth  map[string]Answer // of every transaction with a trace
}

const accountsPerDatabase = 2

func newSerialWorld(t *rapid.T) *serialWorld {
	w := &serialWorld{t: t, truth: map[string]Answer{}}
	w.final.Outcomes = map[string]Answer{}
	for _, name := range []string{"a", "b"} {
		db := Database{Name: name, Start: map[int]int64{}, Balances: map[int]int64{}, Lists: map[int][]int64{}}
		for account := range accountsPerDatabase {
			db.Start[account], db.Balances[account] = 100, 100
		}
		w.final.Databases = append(w.final.Databases, db)
	}
	for n := range rapid.IntRange(1, 40).Draw(t, "operations") {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0, 1, 2:
			w.transfer(n)
		case 3, 4, 5, 6:
			w.append(n)
		case 7:
			w.read(n)
		default:
			w.ask(n)
		}
	}
	for gid, truth := range w.truth {
		w.final.Outcomes[gid] = truth
	}
	return w
}

// record writes an invocation and what its client was told, if anything. Every
// operation has a process of its own, so that many can be open.
func (w *serialWorld) record(invoke Event, phase Phase, done Event) {
	invoke.Phase, done.Phase = Invoke, phase
	w.time += 10
	invoke.Time, done.Time = w.time, w.time+5
	w.events = append(w.events, invoke)
	if phase != Invoke {
		done.Process, done.Op, done.GID, done.Kind = invoke.Process, invoke.Op, invoke.GID, invoke.Kind
		w.events = append(w.events, done)
	}
}

// end draws how a transaction ends, and what its client is told.
func (w *serialWorld) end(gid string) (commits bool, told Phase) {
	commits = rapid.Bool().Draw(w.t, "commits")
	if commits {
		w.truth[gid] = Committed
		return true, rapid.SampledFrom([]Phase{OK, OK, Pending, Unknown, Invoke}).Draw(w.t, "told")
	}
	w.truth[gid] = Aborted
	return false, rapid.SampledFrom([]Phase{RolledBack, Unknown, Invoke}).Draw(w.t, "told")
}

func (w *serialWorld) transfer(n int) {
	e := Event{Process: n, Op: n, GID: fmt.Sprintf("t%d", n), Kind: Transfer}
	amount := rapid.Int64Range(1, 50).Draw(w.t, "amount")
	e.Changes = []Change{
		{"a", rapid.IntRange(0, accountsPerDatabase-1).Draw(w.t, "from"), -amount},
		{"b", rapid.IntRange(0, accountsPerDatabase-1).Draw(w.t, "to"), amount},
	}
	commits, told := w.end(e.GID)
	if commits {
		for i, c := range e.Changes {
			db := &w.final.Databases[i]
			db.Balances[c.Account] += c.Amount
			db.Journal = append(db.Journal, JournalRow{e.GID, c.Account, c.Amount})
		}
	}
	w.record(e, told, Event{})
}

func (w *serialWorld) append(n int) {
	e := Event{Process: n, Op: n, GID: fmt.Sprintf("t%d", n), Kind: Append}
	commits, told := w.end(e.GID)
	var done []ListOp
	state := map[int]map[int][]int64{}
	for i := range w.final.Databases {
		state[i] = map[int][]int64{}
		for k, v := range w.final.Databases[i].Lists {
			state[i][k] = v
		}
	}
	for range rapid.IntRange(1, 5).Draw(w.t, "steps") {
		db, key := rapid.IntRange(0, 1).Draw(w.t, "db"), rapid.IntRange(1, 3).Draw(w.t, "key")
		op := ListOp{DB: w.final.Databases[db].Name, Key: key}
		if rapid.Bool().Draw(w.t, "append") {
			w.value++
			op.Value = w.value
			state[db][key] = append(slices.Clone(state[db][key]), w.value)
			e.Lists = append(e.Lists, op)
		} else {
			e.Lists = append(e.Lists, op)
			op.Read = slices.Clone(state[db][key])
		}
		done = append(done, op)
	}
	if commits {
		for i := range w.final.Databases {
			w.final.Databases[i].Lists = state[i]
		}
	}
	w.record(e, told, Event{Lists: done})
}

func (w *serialWorld) read(n int) {
	var balances []Balance
	for _, db := range w.final.Databases {
		for account := range accountsPerDatabase {
			balances = append(balances, Balance{db.Name, account, db.Balances[account]})
		}
	}
	w.record(Event{Process: n, Op: n, Kind: Read, Locked: true}, OK, Event{Balances: balances})
}

// ask looks up, or decides abort about, a transaction that has ended: the answer
// is the truth, or nothing.
func (w *serialWorld) ask(n int) {
	if len(w.truth) == 0 {
		return
	}
	gid := rapid.SampledFrom(sorted(w.truth)).Draw(w.t, "about")
	e := Event{Process: n, Op: n, GID: gid, Kind: Lookup}
	if rapid.Bool().Draw(w.t, "decide") {
		e.Kind, e.Want = Decide, Aborted
	}
	told := rapid.SampledFrom([]Phase{OK, OK, Unknown, Invoke}).Draw(w.t, "told")
	if told == OK {
		w.record(e, told, Event{Answer: w.truth[gid]})
		return
	}
	w.record(e, told, Event{})
}

func (w *serialWorld) check() []Violation {
	return Check(w.events, w.final, Rules{Hidden: true, Level: Serializable})
}

func TestSerialHistoriesPass(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newSerialWorld(t)
		if found := w.check(); len(found) > 0 {
			t.Fatalf("a serial history has %v\n%+v", found, w.events)
		}
	})
}

// A mutation breaks one promise in a world. It returns false if there is nothing
// to break.
type mutation struct {
	name  string
	apply func(w *serialWorld) bool
	want  string // an anomaly that must be among those found
}

// somewhere calls f with events in a drawn order until it returns true.
func (w *serialWorld) somewhere(f func(e *Event) bool) bool {
	at := make([]int, len(w.events))
	for i := range at {
		at[i] = i
	}
	if len(at) == 0 {
		return false
	}
	for _, i := range rapid.Permutation(at).Draw(w.t, "where") {
		if f(&w.events[i]) {
			return true
		}
	}
	return false
}

func (w *serialWorld) inDatabase(f func(db *Database) bool) bool {
	first := rapid.IntRange(0, 1).Draw(w.t, "in")
	return f(&w.final.Databases[first]) || f(&w.final.Databases[1-first])
}

var mutations = []mutation{
	{"a branch is lost", func(w *serialWorld) bool {
		return w.inDatabase(func(db *Database) bool {
			if len(db.Journal) == 0 {
				return false
			}
			i := rapid.IntRange(0, len(db.Journal)-1).Draw(w.t, "row")
			db.Balances[db.Journal[i].Account] -= db.Journal[i].Amount
			db.Journal = slices.Delete(db.Journal, i, i+1)
			return true
		})
	}, "atomicity"},
	{"a branch of an aborted transaction commits", func(w *serialWorld) bool {
		return w.somewhere(func(e *Event) bool {
			if e.Kind != Transfer || e.Phase != Invoke || w.truth[e.GID] != Aborted {
				return false
			}
			c := e.Changes[1]
			w.final.Databases[1].Journal = append(w.final.Databases[1].Journal, JournalRow{e.GID, c.Account, c.Amount})
			w.final.Databases[1].Balances[c.Account] += c.Amount
			return true
		})
	}, "atomicity"},
	{"a row is doubled", func(w *serialWorld) bool {
		return w.inDatabase(func(db *Database) bool {
			if len(db.Journal) == 0 {
				return false
			}
			r := rapid.SampledFrom(db.Journal).Draw(w.t, "row")
			db.Journal = append(db.Journal, r)
			db.Balances[r.Account] += r.Amount
			return true
		})
	}, "doubled row"},
	{"an update is lost", func(w *serialWorld) bool {
		return w.inDatabase(func(db *Database) bool {
			db.Balances[0] += rapid.Int64Range(1, 9).Draw(w.t, "by")
			return true
		})
	}, "balance"},
	{"a locked read is fractured", func(w *serialWorld) bool {
		return w.somewhere(func(e *Event) bool {
			if e.Kind != Read || e.Phase != OK {
				return false
			}
			e.Balances[0].Balance--
			return true
		})
	}, "fractured read"},
	{"a branch stays prepared", func(w *serialWorld) bool {
		return w.inDatabase(func(db *Database) bool {
			db.Prepared = append(db.Prepared, "t1")
			return true
		})
	}, "orphan"},
	{"a client is told the opposite", func(w *serialWorld) bool {
		return w.somewhere(func(e *Event) bool {
			switch {
			case e.Kind != Transfer && e.Kind != Append:
				return false
			case e.Phase == OK || e.Phase == Pending:
				e.Phase = RolledBack
			case e.Phase == RolledBack:
				e.Phase = OK
			default:
				return false
			}
			return true
		})
	}, "decision reversed"},
	{"a register answers the opposite", func(w *serialWorld) bool {
		return w.somewhere(func(e *Event) bool {
			switch e.Answer {
			case Committed:
				e.Answer = Aborted
			case Aborted:
				e.Answer = Committed
			case Undecided, "":
				return false
			}
			return true
		})
	}, "decision reversed"},
	{"a register does not know a commit any more", func(w *serialWorld) bool {
		return w.somewhere(func(e *Event) bool {
			if e.Kind != Lookup || e.Answer != Committed || !w.knownBefore(*e) {
				return false
			}
			e.Answer = Undecided
			return true
		})
	}, "decision vanished"},
	{"a committed append is lost", func(w *serialWorld) bool {
		return w.somewhere(func(e *Event) bool {
			for _, l := range e.Lists {
				if l.Value != 0 && (e.Phase == OK || e.Phase == Pending) {
					i := 0
					if l.DB == "b" {
						i = 1
					}
					db := &w.final.Databases[i]
					db.Lists[l.Key] = without(db.Lists[l.Key], []int64{l.Value})
					return true
				}
			}
			return false
		})
	}, "lost append"},
	{"a read shows another order", func(w *serialWorld) bool {
		return w.somewhere(func(e *Event) bool {
			if e.Phase != OK && e.Phase != Pending {
				return false
			}
			for _, l := range e.Lists {
				if n := len(l.Read); n >= 2 {
					l.Read[n-1], l.Read[n-2] = l.Read[n-2], l.Read[n-1]
					return true
				}
			}
			return false
		})
	}, "incompatible order"},
	{"a read shows what was rolled back", func(w *serialWorld) bool {
		var from ListOp
		if !w.somewhere(func(e *Event) bool {
			if e.Phase == RolledBack && e.Kind == Append {
				for _, l := range e.Lists {
					if l.Value != 0 {
						from = l
						return true
					}
				}
			}
			return false
		}) {
			return false
		}
		return w.somewhere(func(e *Event) bool {
			if e.Phase != OK && e.Phase != Pending {
				return false
			}
			for i, l := range e.Lists {
				if l.Value == 0 && l.Key == from.Key && l.DB == from.DB {
					e.Lists[i].Read = append(e.Lists[i].Read, from.Value)
					return true
				}
			}
			return false
		})
	}, "G1a"},
	{"a transaction reads one list old and writes another", func(w *serialWorld) bool {
		// One that appended to two lists, of which a reader of both sees the first only.
		return w.somewhere(func(e *Event) bool {
			if e.Kind != Append || (e.Phase != OK && e.Phase != Pending) {
				return false
			}
			for _, x := range e.Lists {
				for _, y := range e.Lists {
					if x.Value != 0 && y.Value != 0 && x.DB == y.DB && x.Key != y.Key {
						w.readBetween(x, y)
						return true
					}
				}
			}
			return false
		})
	}, "G-single"},
	{"two transactions skew", func(w *serialWorld) bool {
		w.skew()
		return true
	}, "G2"},
}

// knownBefore reports whether somebody had heard the decision before e was asked.
func (w *serialWorld) knownBefore(e Event) bool {
	asked := e.Time - 5
	for _, o := range operations(w.events) {
		if o.GID == e.GID && o.told() == Committed && o.end < asked {
			return true
		}
	}
	return false
}

// readBetween adds a transaction that sees the append x, and the list of y as it
// was before the transaction of both.
func (w *serialWorld) readBetween(x, y ListOp) {
	lists := w.final.Databases[0].Lists
	if x.DB == "b" {
		lists = w.final.Databases[1].Lists
	}
	until := func(key int, value int64) []int64 { return lists[key][:slices.Index(lists[key], value)] }
	w.record(Event{Process: 1000, Op: 1, GID: "reader", Kind: Append}, OK, Event{Lists: []ListOp{
		{DB: x.DB, Key: x.Key, Read: lists[x.Key]},
		{DB: y.DB, Key: y.Key, Read: until(y.Key, w.firstOf(y))},
	}})
}

// firstOf returns the first value that the transaction of y appended to its list.
func (w *serialWorld) firstOf(y ListOp) int64 {
	for _, e := range w.events {
		var values []int64
		for _, l := range e.Lists {
			if l.Value != 0 && l.DB == y.DB && l.Key == y.Key {
				values = append(values, l.Value)
			}
		}
		if slices.Contains(values, y.Value) {
			return values[0]
		}
	}
	panic("nobody appended it")
}

// skew adds two transactions that each read the list that the other appends to.
func (w *serialWorld) skew() {
	lists := w.final.Databases[0].Lists
	one, two := slices.Clone(lists[1]), slices.Clone(lists[2])
	lists[1], lists[2] = append(lists[1], 5001), append(lists[2], 5002)
	for i, steps := range [][]ListOp{
		{{DB: "a", Key: 1, Read: one}, {DB: "a", Key: 2, Value: 5002}},
		{{DB: "a", Key: 2, Read: two}, {DB: "a", Key: 1, Value: 5001}},
	} {
		w.record(Event{Process: 1000 + i, Op: 1, GID: fmt.Sprintf("skew%d", i), Kind: Append}, OK, Event{Lists: steps})
	}
}

// Every mutation of a right history is found, and called by its name.
func TestMutatedHistoriesDoNotPass(t *testing.T) {
	t.Parallel()
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			var applied atomic.Int64
			rapid.Check(t, func(t *rapid.T) {
				w := newSerialWorld(t)
				if !m.apply(w) {
					return
				}
				applied.Add(1)
				if found := w.check(); !slices.Contains(anomalies(found), m.want) {
					t.Fatalf("%s: found %q, want %q among them\n%+v\n%+v", m.name, anomalies(found), m.want, w.events, w.final)
				}
			})
			if applied.Load() < 10 {
				t.Errorf("it was applied %d times only", applied.Load())
			}
		})
	}
}
