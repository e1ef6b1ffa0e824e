package sim

import (
	"time"

	"github.com/troth-tx/troth"
)

// A plan is what one program does in one transaction: it moves money between
// accounts of several databases, so that the sum of its legs is 0.
type plan struct {
	no         int // from 1
	legs       []leg
	swallows   bool // the program goes on after a failed statement
	rollsBack  bool
	atDecision bool
	patience   time.Duration // 0: none
	home       string
	polls      int
	pollEvery  time.Duration

	gid   troth.GID // guarded by the book
	begun bool
	told  told
	said  troth.Outcome // by Outcome, to anybody, last
}

// leg is one statement.
type leg struct {
	store   int
	account int
	amount  int
	reads   bool
	fails   bool
}

// drawPlans draws what the programs do, and plants what is none of theirs.
func (w *world) drawPlans() {
	for no := range w.cfg.plans {
		w.todo = append(w.todo, w.drawPlan(no+1))
	}
	w.plans = append(w.plans, w.todo...)
	if !w.cfg.foreign {
		return
	}
	for i, s := range w.databases() {
		if s.kind == kindSQLite {
			continue
		}
		at := troth.Place{Identity: "99999999"}
		if w.register != nil && !w.opt.Deep { // one that our own register could decide
			at.Identity = w.register.backend.(*model).identity
		}
		switch (i + int(w.opt.Seed)) % 3 {
		case 0: // another application, whose domain begins like ours
			s.plant(troth.XID{GID: troth.GID("bank2.06f8zqm3s5w4k9y1c7b2d8e0fa"), Place: at, Branch: 1})
		case 1: // another program
			s.plant(troth.XID{GID: "other.program", Branch: 1})
		case 2: // one whose decisions nobody here can reach
			s.plant(troth.XID{GID: troth.GID("bank.06f8zqm3s5w4k9y1c7b2d8e0fa"), Place: troth.Place{Resource: s.name, Identity: "zzzzzzzz"}, Branch: 1})
		}
	}
}

func (w *world) drawPlan(no int) *plan {
	rng := w.rng
	p := &plan{
		no:         no,
		swallows:   rng.IntN(6) == 0,
		rollsBack:  rng.IntN(10) == 0,
		atDecision: rng.IntN(6) == 0,
		polls:      rng.IntN(3),
		pollEvery:  time.Duration(1 + rng.Int64N(int64(3*time.Second))),
	}
	if rng.IntN(5) == 0 {
		p.patience = time.Duration(1 + rng.Int64N(int64(3*time.Second)))
	}
	order := rng.Perm(len(w.cfg.kinds))
	n := min(len(order), 1+rng.IntN(3))
	if n == 1 && rng.IntN(2) == 0 {
		n = 2
	}
	left := 0
	for i, s := range order[:n] {
		l := leg{store: s, account: rng.IntN(accountsPerStore), amount: 1 + rng.IntN(50)}
		l.reads = rng.IntN(6) == 0
		l.fails = rng.IntN(25) == 0
		if l.reads {
			l.amount, l.fails = 0, false
		}
		left += l.amount
		if i == n-1 && !l.reads {
			l.amount -= left
			left = 0
		}
		if w.cfg.kinds[s] == kindSQLite {
			p.home = w.stores[s].name // XA branches must know it from their start
		}
		p.legs = append(p.legs, l)
	}
	if left != 0 { // the last only reads: let the first pay for all
		for i := range p.legs {
			if !p.legs[i].reads {
				p.legs[i].amount -= left
				break
			}
		}
	}
	return p
}
