package torture

import (
	"database/sql"
	"math/rand/v2"
	"slices"

	"github.com/troth-tx/troth/internal/history"
)

// A kind of transaction.
type opKind string

const (
	opTransfer opKind = "transfer"  // money between two or three databases
	opSingle   opKind = "single"    // within one database: one phase
	opWatched  opKind = "watched"   // a transfer beside a branch that only reads
	opFails    opKind = "fails"     // a statement fails; the program returns its error
	opIgnores  opKind = "ignores"   // a statement fails; the program commits all the same
	opRollback opKind = "roll-back" // the program changes its mind
	opNested   opKind = "nested"    // a statement fails in a savepoint, which is rolled back: no harm
	opPots     opKind = "pots"      // moves money between the two pots of a pair
	opLook     opKind = "look"      // locks both pots of a pair and adds them up (I10)
	opLists    opKind = "lists"     // reads and appends to lists, locked or not
)

// kinds are the transactions with their shares in percent.
var kinds = []struct {
	kind  opKind
	share int
}{
	{opTransfer, 42},
	{opSingle, 8},
	{opWatched, 8},
	{opFails, 3},
	{opIgnores, 3},
	{opRollback, 5},
	{opNested, 4},
	{opPots, 10},
	{opLook, 7},
	{opLists, 10},
}

// An op is a transaction as its client plans it.
type op struct {
	Kind   opKind
	Parts  []part
	Queued bool // hand statements to pgxtx's queue where there is one

	// Options of Begin.
	Home       string // empty for none
	AtDecision bool
	Isolation  sql.IsolationLevel
}

// A part is what an op does in one database, in the order of the fields.
type part struct {
	DB      string
	Moves   []move
	Read    []int // keys of lists
	Append  []item
	Balance []int // accounts to look at
	Lock    bool  // reads are FOR UPDATE
	Fail    bool  // and then a statement fails
}

// A move changes one account, with a journal row.
type move struct {
	Account int
	Amount  int64
}

// An item is appended to a list. No value is appended twice.
type item struct {
	Key   int
	Value int64
}

// doomed reports whether the op must not commit.
func (o *op) doomed() bool {
	return o.Kind == opFails || o.Kind == opIgnores || o.Kind == opRollback
}

// A planner draws ops.
type planner struct {
	rng      *rand.Rand
	names    []string // of the databases, sorted
	lastOnly string   // the database that cannot prepare; at most one
	homes    bool     // the participants record decisions, so one may be chosen
	accounts int
	keys     keyRange
	value    func() int64 // a value never given before
}

// keyRange are the keys of the lists of an epoch.
type keyRange struct{ First, Count int }

const (
	startBalance = 1_000_000
	pots         = 4 // of each pair of databases
)

// potAccount is the account, in both databases of a pair, that is one half of a
// pot. Other transfers leave it alone.
func potAccount(pair, pot int) int { return -(1 + pair*pots + pot) }

// pairs lists the pairs of n databases.
func pairs(n int) [][2]int {
	var out [][2]int
	for i := range n {
		for j := i + 1; j < n; j++ {
			out = append(out, [2]int{i, j})
		}
	}
	return out
}

func (p *planner) next() *op {
	o := &op{Kind: p.kind(), Queued: p.rng.IntN(2) == 0}
	switch o.Kind {
	case opPots, opLook:
		p.potParts(o)
	case opLists:
		p.listParts(o)
	case opSingle:
		name := p.choose(1)[0]
		amount := p.amount()
		a, b := p.twoAccounts()
		o.Parts = []part{{DB: name, Moves: []move{{a, -amount}, {b, amount}}}}
	default:
		p.transferParts(o)
	}
	p.options(o)
	return o
}

// options draws those of Begin. Where the database that can only be the home takes
// part, there is nothing to choose.
func (p *planner) options(o *op) {
	o.AtDecision = p.rng.IntN(16) == 0
	if slices.ContainsFunc(o.Parts, func(x part) bool { return x.DB == p.lastOnly }) {
		return
	}
	if p.rng.IntN(16) == 0 {
		o.Isolation = sql.LevelSerializable
	}
	if home := p.names[p.rng.IntN(len(p.names))]; p.homes && home != p.lastOnly && p.rng.IntN(8) == 0 {
		o.Home = home // which may take no part otherwise
	}
}

func (p *planner) kind() opKind {
	n := p.rng.IntN(100)
	for _, k := range kinds {
		if n -= k.share; n < 0 {
			return k.kind
		}
	}
	return opTransfer
}

func (p *planner) amount() int64 { return 1 + p.rng.Int64N(100) }

func (p *planner) account() int { return 1 + p.rng.IntN(p.accounts) }

func (p *planner) twoAccounts() (int, int) {
	a, b := p.account(), p.account()
	for a == b {
		b = p.account()
	}
	return min(a, b), max(a, b)
}

// choose takes n databases, nearly always in the order of their names: those who
// lock in one order cannot wait for each other in a circle, which no database
// would see. The one that cannot prepare is taken rarely, for its lock is one for
// all, and comes first, as it must when MariaDB takes part.
func (p *planner) choose(n int) []string {
	var from []string
	for _, name := range p.names {
		if name != p.lastOnly || p.rng.IntN(20) == 0 {
			from = append(from, name)
		}
	}
	p.rng.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	chosen := from[:min(n, len(from))]
	if p.rng.IntN(20) > 0 {
		slices.Sort(chosen)
	}
	if i := slices.Index(chosen, p.lastOnly); i > 0 {
		chosen[0], chosen[i] = chosen[i], chosen[0]
	}
	return chosen
}

func (p *planner) transferParts(o *op) {
	names := p.choose(2 + p.rng.IntN(2))
	var sum int64
	for i, name := range names {
		amount := -sum // the last one makes up for the others
		if i < len(names)-1 {
			amount = p.amount()
			if p.rng.IntN(2) == 0 {
				amount = -amount
			}
		}
		sum += amount
		o.Parts = append(o.Parts, part{DB: name, Moves: []move{{p.account(), amount}}})
	}
	switch o.Kind {
	case opFails, opIgnores, opNested:
		o.Parts[p.rng.IntN(len(o.Parts))].Fail = true
	case opWatched:
		i := p.rng.IntN(len(o.Parts))
		if o.Parts[i].DB == p.lastOnly {
			i = (i + 1) % len(o.Parts)
		}
		p.watch(o, i)
	}
}

// watch takes the work out of one part: it only reads. Its money goes to another
// account of the next part, so the sum stays.
func (p *planner) watch(o *op, i int) {
	amount := o.Parts[i].Moves[0].Amount
	next := &o.Parts[(i+1)%len(o.Parts)]
	a := p.account()
	for a == next.Moves[0].Account {
		a = p.account()
	}
	next.Moves = append(next.Moves, move{a, amount})
	o.Parts[i] = part{DB: o.Parts[i].DB, Balance: []int{p.account()}}
}

func (p *planner) potParts(o *op) {
	all := pairs(len(p.names))
	n := p.rng.IntN(len(all))
	for p.names[all[n][0]] == p.lastOnly || p.names[all[n][1]] == p.lastOnly {
		n = p.rng.IntN(len(all))
	}
	account := potAccount(n, p.rng.IntN(pots))
	amount := p.amount() // never 0: MariaDB would say that no row was changed
	if p.rng.IntN(2) == 0 {
		amount = -amount
	}
	for i, db := range all[n] {
		one := part{DB: p.names[db]}
		if o.Kind == opLook {
			one.Balance, one.Lock = []int{account}, true
		} else {
			one.Moves = []move{{account, amount * int64(1-2*i)}}
		}
		o.Parts = append(o.Parts, one)
	}
}

// listParts reads one list and mostly appends to it, in two databases. Lists with
// an even key are only touched by transactions that lock what they read.
func (p *planner) listParts(o *op) {
	odd := p.rng.IntN(2)
	for _, name := range p.choose(2) {
		if name == p.lastOnly {
			continue // it has no FOR UPDATE
		}
		key := p.keys.First + 2*p.rng.IntN(p.keys.Count/2) + odd
		one := part{DB: name, Lock: odd == 0, Read: []int{key}}
		if p.rng.IntN(3) > 0 {
			one.Append = []item{{key, p.value()}}
		}
		o.Parts = append(o.Parts, one)
	}
}

// event is how the op is recorded.
func (o *op) event() history.Event {
	var e history.Event
	switch o.Kind {
	case opLook:
		e.Kind, e.Locked = history.Read, true
	case opLists:
		e.Kind = history.Append
	default:
		e.Kind = history.Transfer
	}
	for _, p := range o.Parts {
		for _, m := range p.Moves {
			e.Changes = append(e.Changes, history.Change{DB: p.DB, Account: m.Account, Amount: m.Amount})
		}
		for _, key := range p.Read {
			e.Lists = append(e.Lists, history.ListOp{DB: p.DB, Key: key})
		}
		for _, i := range p.Append {
			e.Lists = append(e.Lists, history.ListOp{DB: p.DB, Key: i.Key, Value: i.Value})
		}
	}
	return e
}
