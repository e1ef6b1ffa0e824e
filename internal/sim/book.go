package sim

import (
	"fmt"
	"sync"

	"github.com/troth-tx/troth"
)

// The book is the checker: it hears of everything at the instant at which it
// happens, outside all processes, and knows what must never be.
type book struct {
	w *world

	mu         sync.Mutex // guards what follows: programs write into it too
	gids       map[troth.GID]*plan
	decisions  map[troth.GID]troth.Outcome
	branches   map[troth.GID][]prepared // that were ever prepared
	violations []string
	committed  int
	aborted    int
	returned   int // one-phase commits that came back prepared
}

type prepared struct {
	store *store
	xid   troth.XID
	ended troth.Outcome
}

// told is what a program was told of its transaction.
type told uint8

const (
	toldNothing told = iota
	toldCommitted
	toldPending
	toldAborted
	toldUnknown
	toldHeuristic
	toldStrange
)

func (t told) String() string {
	return [...]string{"nothing", "committed", "pending", "rolled back", "not known", "heuristic", "something strange"}[t]
}

func (b *book) init(w *world) {
	b.w = w
	b.gids = make(map[troth.GID]*plan)
	b.decisions = make(map[troth.GID]troth.Outcome)
	b.branches = make(map[troth.GID][]prepared)
}

// violationsMax bounds the list: one is enough to fail.
const violationsMax = 20

func (b *book) violate(rule string, gid troth.GID, format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.violateLocked(rule, gid, format, args...)
}

func (b *book) violateLocked(rule string, gid troth.GID, format string, args ...any) {
	text := rule + ": " + fmt.Sprintf(format, args...)
	if p := b.gids[gid]; p != nil {
		text = fmt.Sprintf("%s (t%d)", text, p.no)
	}
	b.w.say("## %s", text)
	if len(b.violations) < violationsMax {
		b.violations = append(b.violations, text)
	}
}

func (b *book) byGID(gid troth.GID) *plan {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gids[gid]
}

func (b *book) begins(p *plan, gid troth.GID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if other := b.gids[gid]; other != nil {
		b.violateLocked("GID", gid, "two transactions have the same name")
	}
	p.gid, p.begun = gid, true
	b.gids[gid] = p
}

// decided: a record became durable.
func (b *book) decided(gid troth.GID, o troth.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if was := b.decisions[gid]; was != troth.Undecided && was != o {
		// A record of an abort may appear when all is long over and forgotten; then no
		// branch follows it.
		if o == troth.Aborted && b.allEndedLocked(gid, was) && len(b.branches[gid]) > 0 {
			return
		}
		b.violateLocked("R2", gid, "the decision was %v, and now it is %v", was, o)
		return
	}
	b.decisions[gid] = o
}

// committedAlone: the work of a plan is durable. If no branch of it was ever
// prepared, that was its decision.
func (b *book) committedAlone(no int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for gid, p := range b.gids {
		if p.no == no && len(b.branches[gid]) == 0 {
			b.decisions[gid] = troth.Committed
		}
	}
}

func (b *book) allEndedLocked(gid troth.GID, o troth.Outcome) bool {
	for _, br := range b.branches[gid] {
		if br.ended != o {
			return false
		}
	}
	return true
}

// prepared: a branch voted to commit.
func (b *book) prepared(s *store, xid troth.XID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.branches[xid.GID] = append(b.branches[xid.GID], prepared{store: s, xid: xid})
}

// resurrected: a crash brought a rolled back branch back (F8).
func (b *book) resurrected(s *store, xid troth.XID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, br := range b.branches[xid.GID] {
		if br.store == s && br.xid == xid {
			b.branches[xid.GID][i].ended = troth.Undecided
		}
	}
}

// cameBack: a crash made a prepared branch of a one-phase commit.
func (b *book) cameBack(s *store, xid troth.XID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.returned++
	all := b.branches[xid.GID]
	for i, br := range all {
		if br.store == s && br.xid == xid { // not for the first time
			all[i].ended = troth.Undecided
			return
		}
	}
	b.branches[xid.GID] = append(all, prepared{store: s, xid: xid})
}

// resolves: a prepared branch is being ended.
func (b *book) resolves(s *store, xid troth.XID, o troth.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.branches[xid.GID]
	switch d := b.decisions[xid.GID]; {
	case b.gids[xid.GID] == nil:
		b.violateLocked("R7", xid.GID, "a foreign branch, %s, is ended", xid)
	case o == troth.Committed && d != troth.Committed:
		b.violateLocked("R1", xid.GID, "%s commits at %s, and the decision is %v", xid, s.name, d)
	case o == troth.Aborted && d == troth.Committed:
		b.violateLocked("R2", xid.GID, "%s is rolled back at %s, and the decision is %v", xid, s.name, d)
	}
	for i := range all {
		if all[i].store == s && all[i].xid == xid {
			all[i].ended = o
		}
	}
}

// forgets: a commit record is dropped.
func (b *book) forgets(gid troth.GID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, br := range b.branches[gid] {
		if br.ended != troth.Committed {
			b.violateLocked("R4", gid, "the commit record goes, and %s at %s is %v", br.xid, br.store.name, br.ended)
		}
	}
}

// expires: a record of an abort is dropped.
func (b *book) expires(gid troth.GID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, br := range b.branches[gid] {
		if br.ended == troth.Undecided {
			b.violateLocked("R5", gid, "the record of the abort goes, and %s at %s may still commit", br.xid, br.store.name)
		}
	}
}

// tells: a program hears how its transaction ended. The dead hear nothing.
func (b *book) tells(p *process, plan *plan, what told, err error) {
	if p.dead.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	plan.told = what
	if b.w.trace.out != nil {
		b.w.say("=> p%d.%d is told of t%d: %v %s", p.slot, p.incarnation, plan.no, what, says(err))
	}
	d := b.decisions[plan.gid]
	switch what {
	case toldCommitted, toldPending:
		if b.wroteLocked(plan) && d != troth.Committed {
			b.violateLocked("I3", plan.gid, "told %v, and the decision is %v", what, d)
		}
	case toldAborted:
		if d == troth.Committed {
			b.violateLocked("I3", plan.gid, "told rolled back, and the decision is committed")
		}
	case toldStrange, toldHeuristic:
		b.violateLocked("I3", plan.gid, "told %v: %v", what, err)
	case toldNothing, toldUnknown:
	}
}

// wroteLocked reports whether the plan has work that a commit must keep.
func (b *book) wroteLocked(p *plan) bool {
	for _, l := range p.legs {
		if !l.reads {
			return true
		}
	}
	return false
}

// answers: Outcome answered. What it said once it must not take back (I13), and a
// decision that it tells must be the one there is.
func (b *book) answers(p *process, plan *plan, o troth.Outcome, err error) {
	if p.dead.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.decisions[plan.gid]
	if o == troth.Committed && d != troth.Committed && b.wroteLocked(plan) {
		b.violateLocked("I13", plan.gid, "Outcome says committed, and the decision is %v", d)
	}
	if o == troth.Aborted && d == troth.Committed {
		b.violateLocked("I13", plan.gid, "Outcome says aborted, and the decision is committed")
	}
	if o != troth.Undecided {
		if plan.said != troth.Undecided && plan.said != o {
			b.violateLocked("I13", plan.gid, "Outcome says %v, after it said %v", o, plan.said)
		}
		plan.said = o
	}
	if o != troth.Undecided && err != nil {
		b.violateLocked("I13", plan.gid, "Outcome says %v with the error %v", o, err)
	}
	if o == troth.Undecided && err == nil && d != troth.Undecided && plan.told != toldUnknown && plan.told != toldNothing {
		b.violateLocked("I13", plan.gid, "Outcome says undecided without an error, after %v was told", plan.told)
	}
}

// settled reports whether a plan's transaction is over.
func (b *book) settled(p *plan) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, br := range b.branches[p.gid] {
		if br.ended == troth.Undecided {
			return false
		}
	}
	return true
}

// checkEnd looks at everything from outside, once all has healed.
func (b *book) checkEnd() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.w.plans {
		b.checkPlanLocked(p)
	}
	for _, s := range b.w.stores {
		b.checkStoreLocked(s)
	}
}

func (b *book) checkPlanLocked(p *plan) {
	if !p.begun {
		return // if it never had its turn, I7 was told already
	}
	d := b.decisions[p.gid]
	should := d == troth.Committed
	wrote := false
	for _, s := range b.w.databases() {
		sum, writes := 0, 0
		for _, l := range p.legs {
			if l.store == s.no && !l.reads && !l.fails {
				sum += l.amount
				writes++
			}
		}
		if writes == 0 {
			continue
		}
		wrote = true
		n := s.count(p.no)
		switch {
		case should && n != 1:
			b.violateLocked("I1", p.gid, "decided commit, and its work is %d times in %s", n, s.name)
		case !should && n != 0:
			b.violateLocked("I1", p.gid, "decided %v, and its work is in %s", d, s.name)
		case should && s.journal()[p.no] != sum:
			b.violateLocked("I5", p.gid, "%s has %d of it, not %d", s.name, s.journal()[p.no], sum)
		}
	}
	if should {
		b.committed++
	} else {
		b.aborted++
	}
	switch p.told {
	case toldCommitted, toldPending:
		if wrote && !should {
			b.violateLocked("I3", p.gid, "told %v, and it is not so", p.told)
		}
	case toldAborted:
		if should {
			b.violateLocked("I3", p.gid, "told rolled back, and it committed")
		}
	case toldNothing, toldUnknown, toldHeuristic, toldStrange:
	}
	for _, br := range b.branches[p.gid] {
		if br.ended == troth.Undecided {
			b.violateLocked("I4", p.gid, "%s is in doubt at %s, %v after all healed", br.xid, br.store.name, healsWithin)
		}
	}
}

func (b *book) checkStoreLocked(s *store) {
	if s.kind == kindFile || s.kind == kindTable {
		return
	}
	sum := accountsPerStore * startBalance
	for _, n := range s.journal() {
		sum += n
	}
	if got := s.balance(); got != sum {
		b.violateLocked("I5", "", "%s has %d, its journal says %d", s.name, got, sum)
	}
	if there, all := s.foreign(); there != all {
		b.violateLocked("I9", "", "%d of %d foreign branches are left at %s", there, all, s.name)
	}
	if s.busy() {
		b.violateLocked("I4", "", "%s still lists a branch of ours", s.name)
	}
}
