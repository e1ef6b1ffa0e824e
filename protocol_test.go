package troth

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestProtocolExhaustive runs the machine through every combination of
// capabilities, writers, votes, answers and losses of up to three branches, with a
// register and without, and checks after every step what no run may violate.
func TestProtocolExhaustive(t *testing.T) {
	t.Parallel()
	runs, edges := 0, make(map[edge]bool)
	for n := range 4 {
		for _, register := range []bool{false, true} {
			forEachCan(n, func(can []Capability) {
				for fixed := -1; fixed < n; fixed++ {
					if fixed >= 0 && can[fixed]&CanDecide == 0 {
						continue
					}
					// Such a branch is named before its work, which fixes the place.
					if fixed < 0 && !register && slices.ContainsFunc(can, func(c Capability) bool { return c&OnePhaseReturns != 0 }) {
						continue
					}
					m := machine{state: stateActive, register: register, home: noBranch}
					if fixed >= 0 {
						m.fixed, m.home = true, fixed
					}
					for _, c := range can {
						m.branches = append(m.branches, branchState{can: c})
					}
					w := &world{t: t, runs: &runs, edges: edges, m: m, did: make([]branchDid, n), fixed: fixed}
					w.explore(event{kind: evCommit})
					w.explore(event{kind: evRollback})
				}
			})
		}
	}
	if runs < 100_000 {
		t.Errorf("%d runs: the exploration does not reach what it should", runs)
	}
	t.Logf("%d runs", runs)
	compareWithTable(t, edges)
}

// An edge leads from one state to the next.
type edge struct{ from, to string }

// compareWithTable demands that the edges which the machine took are those of the
// table above txState.
func compareWithTable(t *testing.T, taken map[edge]bool) {
	t.Helper()
	// One step may take two edges, if there is nothing to wait for in between.
	for through, via := range map[edge]string{{"deciding", "committed"}: "committing", {"active", "aborted"}: "aborting"} {
		if taken[through] {
			delete(taken, through)
			taken[edge{through.from, via}], taken[edge{via, through.to}] = true, true
		}
	}
	text, err := os.ReadFile("protocol.go")
	if err != nil {
		t.Fatal(err)
	}
	table := make(map[edge]bool)
	for _, m := range regexp.MustCompile(`(?m)^//\t(\w+(?:, \w+)*) *-> (\w+) .*\[step\w+\]$`).FindAllStringSubmatch(string(text), -1) {
		for from := range strings.SplitSeq(m[1], ", ") {
			table[edge{strings.ToLower(from), strings.ToLower(m[2])}] = true
		}
	}
	for e := range taken {
		if !table[e] {
			t.Errorf("the machine goes from %s to %s, and the table above txState does not say so", e.from, e.to)
		}
	}
	for e := range table {
		if !taken[e] {
			t.Errorf("the table above txState says %s to %s, and the machine never goes there", e.from, e.to)
		}
	}
}

func forEachCan(n int, f func([]Capability)) {
	can := make([]Capability, n)
	var rec func(i int)
	rec = func(i int) {
		if i == n {
			f(can)
			return
		}
		for _, c := range []Capability{CanPrepare | CanDecide, CanPrepare, CanDecide, CanPrepare | CanDecide | OnePhaseReturns} {
			can[i] = c
			rec(i + 1)
		}
	}
	rec(0)
}

// branchDid is what was done to a branch in one run.
type branchDid struct{ prepared, committed, rolledBack, released bool }

// world is one run so far: a machine, and what the world has seen of it.
type world struct {
	t        *testing.T
	runs     *int
	edges    map[edge]bool // taken in any run
	m        machine
	fixed    int // the branch whose table every branch's name says; -1: none
	did      []branchDid
	decision Outcome // what the register holds
	asked    bool    // efDecide was carried out, so the record may exist
	lost     int     // answers of the decision lost so far
	told     Outcome
	tellings int
	forgot   bool
	trace    []string
}

func (w *world) clone() *world {
	c := *w
	c.m.branches = append([]branchState(nil), w.m.branches...)
	c.did = append([]branchDid(nil), w.did...)
	c.trace = append([]string(nil), w.trace...)
	return &c
}

// explore feeds an event and then every possible answer to what the machine asks.
func (w *world) explore(ev event) {
	w = w.clone()
	w.feed([]event{ev})
}

// feed hands the answers of one phase to the machine, one at a time, and goes on
// with the effects.
func (w *world) feed(events []event) {
	var effects []effect
	for _, ev := range events {
		w.trace = append(w.trace, fmt.Sprintf("%+v", ev))
		var err error
		before, from := len(effects), w.m.state
		if effects, err = w.m.step(ev, effects); err != nil {
			w.fail("%v", err)
		}
		w.moved(from, len(effects) > before)
		if ev.kind != events[len(events)-1].kind && len(effects) > before {
			w.fail("effects before the phase was over")
		}
	}
	w.answer(effects, nil)
}

// moved notes the edge that a step took: it went on, or it asked again.
func (w *world) moved(from txState, asked bool) {
	to := w.m.state
	if to != from || asked {
		w.edges[edge{from.String(), to.String()}] = true
	}
	if was := from.outcome(); was != Undecided && to.outcome() != was {
		w.fail("I13: the outcome was %v, and now it is %v", was, to.outcome())
	}
}

// answer branches over every answer to the effects that are left.
func (w *world) answer(effects []effect, events []event) {
	if len(effects) == 0 {
		if len(events) > 0 {
			w.clone().feed(events)
			return
		}
		w.end()
		return
	}
	ef, rest := effects[0], effects[1:]
	for _, alt := range w.alternatives(ef) {
		c := w.clone()
		next := events
		if ev := alt(c); ev.kind != 0 {
			next = append(append([]event(nil), events...), ev)
		}
		c.answer(rest, next)
	}
}

// alternatives are the ways in which an effect can go.
func (w *world) alternatives(ef effect) []func(*world) event {
	i := ef.branch
	switch ef.kind {
	case efPoll:
		return []func(*world) event{
			func(*world) event { return event{kind: evPolled, branch: i, ok: true, wrote: true} },
			func(*world) event { return event{kind: evPolled, branch: i, ok: true} },
			func(*world) event { return event{kind: evPolled, branch: i} },
		}
	case efPrepare:
		return []func(*world) event{
			func(w *world) event { w.did[i].prepared = true; return w.vote(i, VoteCommit) },
			func(w *world) event { w.did[i].prepared = true; return w.vote(i, VoteUnknown) }, // the answer was lost
			func(w *world) event { return w.vote(i, VoteUnknown) },                           // the question was
			func(w *world) event { w.did[i].rolledBack = true; return w.vote(i, VoteRollback) },
		}
	case efDecide, efAsk:
		return w.decisions(ef)
	case efCommit:
		return []func(*world) event{
			func(w *world) event { w.commit(i); return event{kind: evEnded, branch: i, ok: true} },
			func(w *world) event { w.commit(i); return event{kind: evEnded, branch: i} },
			func(w *world) event { w.mayCommit(i); return event{kind: evEnded, branch: i} },
		}
	case efRollback:
		return []func(*world) event{
			func(w *world) event { w.rollback(i); return event{kind: evEnded, branch: i, ok: true} },
			func(w *world) event { w.rollback(i); return event{kind: evEnded, branch: i} },
		}
	case efRelease:
		return []func(*world) event{
			func(w *world) event { w.release(i); return event{kind: evEnded, branch: i, ok: true} },
			func(w *world) event { w.release(i); return event{kind: evEnded, branch: i} },
		}
	case efReport:
		return []func(*world) event{func(w *world) event { w.tell(); return event{} }}
	case efForget:
		return []func(*world) event{func(w *world) event { w.forget(); return event{} }}
	}
	w.fail("effect %d", ef.kind)
	return nil
}

func (w *world) vote(i int, v Vote) event { return event{kind: evVoted, branch: i, vote: v} }

// decisions are the answers to a question for the decision: the first writer won,
// be it us or a recoverer with abort, and the answer may be lost, twice at most.
func (w *world) decisions(ef effect) []func(*world) event {
	w.mayDecide(ef)
	settle := func(w *world, o Outcome) {
		w.asked = true
		if w.decision == Undecided {
			w.decision = o
			if o == Committed && ef.branch != noBranch {
				w.did[ef.branch].committed = true
			}
			if o == Aborted && ef.branch != noBranch {
				w.did[ef.branch].rolledBack = true
			}
		}
	}
	var out []func(*world) event
	for _, o := range []Outcome{Committed, Aborted} {
		out = append(out, func(w *world) event { settle(w, o); return event{kind: evDecided, outcome: w.decision} })
		if w.lost < 2 {
			out = append(out, func(w *world) event { settle(w, o); w.lost++; return event{kind: evDecided} })
		}
	}
	return out
}

func (w *world) mayDecide(ef effect) {
	if writers := w.writers(); ef.branch != noBranch && writers > 1 && w.m.branches[ef.branch].can&CanDecide == 0 {
		w.fail("branch %d of %d writers cannot record the decision and is the home", ef.branch, writers)
	}
	if ef.branch != noBranch && ef.branch != w.fixed && w.m.branches[ef.branch].can&OnePhaseReturns != 0 {
		w.fail("branch %d commits in one phase, may come back prepared, and its name says that branch %d decides", ef.branch, w.fixed)
	}
	for i, b := range w.m.branches {
		if b.wrote && i != ef.branch && b.vote != VoteCommit {
			w.fail("decision asked for before branch %d voted commit", i)
		}
		if b.wrote && b.can&CanPrepare == 0 && i != ef.branch {
			w.fail("branch %d cannot prepare and is not the home", i)
		}
	}
	if ef.branch == noBranch && !w.m.register {
		w.fail("no register to decide in")
	}
}

func (w *world) writers() (n int) {
	for _, b := range w.m.branches {
		if b.wrote {
			n++
		}
	}
	return n
}

// R1: no branch commits before the decision is commit.
func (w *world) mayCommit(i int) {
	if w.decision != Committed {
		w.fail("R1: branch %d told to commit, decision is %v", i, w.decision)
	}
	if !w.did[i].prepared {
		w.fail("branch %d told to commit and is not prepared", i)
	}
}

func (w *world) commit(i int) { w.mayCommit(i); w.did[i].committed = true }

// R2: nothing is rolled back that was, or may still be, decided commit.
func (w *world) rollback(i int) {
	if w.decision == Committed || (w.asked && w.decision != Aborted) {
		w.fail("R2: branch %d rolled back, decision is %v", i, w.decision)
	}
	w.did[i].rolledBack = true
}

func (w *world) release(i int) {
	if w.m.branches[i].wrote {
		w.fail("branch %d wrote and is released", i)
	}
	w.did[i].released = true
}

// R3: the caller hears what the register holds, once.
func (w *world) tell() {
	w.tellings++
	w.told = w.m.state.outcome()
	if w.asked && w.told != w.decision {
		w.fail("R3: told %v, decision is %v", w.told, w.decision)
	}
	if !w.asked && w.told == Committed && w.writers() > 0 {
		w.fail("told committed and nobody decided")
	}
}

// R4: a record goes only when every branch that wrote has committed.
func (w *world) forget() {
	w.forgot = true
	for i, b := range w.m.branches {
		if b.wrote && !w.did[i].committed {
			w.fail("R4: forgotten before branch %d committed", i)
		}
	}
}

func (w *world) end() {
	*w.runs++
	if w.tellings != 1 {
		w.fail("the caller was told %d times", w.tellings)
	}
	switch w.m.state {
	case stateCommitted, stateCommitting, stateAborted:
	default:
		w.fail("ended in state %v", w.m.state)
	}
	if w.m.state == stateCommitted && w.writers() > 0 && !w.forgot {
		w.fail("committed everywhere and never forgotten")
	}
	for i, d := range w.did {
		if d.committed && w.decision != Committed {
			w.fail("branch %d committed, decision is %v", i, w.decision)
		}
		if d.rolledBack && w.decision == Committed {
			w.fail("branch %d rolled back, decision is commit", i)
		}
		if w.m.state == stateCommitting && w.m.branches[i].wrote && !d.prepared && !d.committed {
			w.fail("branch %d lost", i)
		}
	}
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nmachine %+v\n%s", fmt.Sprintf(format, args...), w.m, strings.Join(w.trace, "\n"))
}

// An event that does not belong to the state is a bug of the driver, and must not
// move the machine.
func TestProtocolRefusesStrayEvents(t *testing.T) {
	t.Parallel()
	accepted := map[txState][]eventKind{
		stateActive:     {evCommit, evRollback},
		statePolling:    {evPolled},
		statePreparing:  {evVoted},
		stateDeciding:   {evDecided},
		stateCommitting: {evEnded},
		stateReleasing:  {evEnded},
		stateAborting:   {evEnded},
	}
	for s := stateActive; s <= stateAborted; s++ {
	kinds:
		for k := evCommit; k <= evEnded; k++ {
			for _, ok := range accepted[s] {
				if k == ok {
					continue kinds
				}
			}
			m := machine{state: s, branches: make([]branchState, 1), waiting: 1}
			effects, err := m.step(event{kind: k}, nil)
			if err == nil || len(effects) > 0 || m.state != s {
				t.Errorf("event %d in state %v: err %v, %d effects, state %v", k, s, err, len(effects), m.state)
			}
		}
	}
}
