package engine

import (
	"slices"
	"time"

	"github.com/troth-tx/troth/internal/mistake"
	"github.com/troth-tx/troth/store"
)

// A machine drives one transaction through one pass after the other. It does no I/O
// and reads no clock: the engine tells it what happened, carries out the effects that
// it returns in their order, and tells it again.
//
// A pass begins when there is reason to look: the caller submitted, or the
// transaction is due. It calls each branch that may be called, once, and ends when no
// call is under way and none may follow. What did not succeed is tried again in a
// later pass, after an interval that doubles; what found no place to be called, after
// that interval as it is.
//
// Each pattern is a set of rules: which calls may be made in which state, and what
// their answers mean. The states, the same for all, are in package store:
//
//	            ┌──────────────────────────────────────────┐
//	            │                                          ▼
//	Prepared ──> Submitted ──> Succeeded      Prepared ──> Failed
//	   │             │                                     ▲
//	   └─────────────┴───────> Aborting ───────────────────┘
//
//	Prepared  -> Submitted  the caller submitted, or a message's sender said that it committed
//	Prepared  -> Aborting   TCC, XA: the caller aborted, or was not heard of in time
//	Prepared  -> Failed     message: the caller aborted, or its sender said so; a workflow ended so
//	Prepared  -> Succeeded  a workflow ended so
//	Submitted -> Succeeded  every branch Success
//	Submitted -> Aborting   saga: an action failed, or time is over
//	Aborting  -> Failed     every branch that may have done something has undone it
//
// Three rules keep the promises. Each names the test that fails without it.
//
//	E1 A state is durable before a call that is made because of it. [TestStateIsDurableFirst]
//	E2 That an action may have been called is durable before it is, where a
//	   compensation would be owed. [TestStartedIsDurableFirst]
//	E3 Only the agreed answers decide: anything else is no answer. [TestOnlyAgreedAnswersDecide]
type machine struct {
	t      *store.Transaction
	rules  rules
	limits *Limits

	flying map[int]bool // branches that are being called
	pass   pass
	dirty  bool // something must be durable before the next call

	// How far the clock is ahead by which ages and delays are judged: zero but for
	// test suites that steer it.
	ageAhead, delayAhead time.Duration
}

// A pass is what has happened since the last begin.
type pass struct {
	tried   map[int]int // answers other than success, by call
	first   []int       // branches that were never called before this pass
	failed  bool        // one of them was none that was agreed
	ongoing bool        // one of them said that it goes on
	missed  int         // the call that the first of those that failed answered
	said    string      // with that answer

	// putOff is how long those have to wait whose call found no place; zero: there are
	// none.
	putOff time.Duration
}

// waits reports whether there is another pass for no other reason than that calls found no
// place: then it is made as soon as there is one. What failed or goes on has its pause.
func (p *pass) waits() bool { return p.putOff > 0 && !p.failed && !p.ongoing }

// own is the index of the call of the transaction's own address: the question to a
// message's sender, or the resumption of a workflow.
const own = -1

// nobody is no call.
const nobody = -2

// rules are one pattern.
type rules interface {
	// judge changes the state if time alone says so.
	judge(m *machine, now time.Time)

	// next returns the calls that may be made now, among those that are free, and
	// whether nothing is left to call in this state.
	next(m *machine, now time.Time) (calls []int, done bool)

	// done says which state follows when nothing is left to call.
	done(m *machine) store.State

	// missed handles an answer other than success, and reports whether it changed the
	// state. Otherwise the call is repeated, in a later pass unless next says now.
	missed(m *machine, branch int, a Answer, text string) bool

	// wake says when time alone will change something; zero: never.
	wake(m *machine) time.Time
}

// asker are rules that call the transaction's own address.
type asker interface {
	// answeredYes handles success.
	answeredYes(m *machine)
}

// An effect is what the engine has to do.
type effect struct {
	kind   effectKind
	branch int // of a call
}

type effectKind uint8

const (
	save effectKind = iota + 1 // make the transaction durable; if that fails, drop the machine
	call
	rest // the pass has ended: Due says when the next begins, or the transaction is over
)

func newMachine(t *store.Transaction, limits *Limits) *machine {
	return &machine{t: t, rules: rulesOf(t.Pattern), limits: limits, flying: make(map[int]bool)}
}

func rulesOf(p store.Pattern) rules {
	switch p {
	case store.Message:
		return message{}
	case store.Saga:
		return saga{}
	case store.TCC:
		return twoPhase{forth: store.Confirm, back: store.Cancel}
	case store.XA:
		return twoPhase{forth: store.Commit, back: store.Rollback}
	case store.Workflow:
		return workflow{}
	}
	return nil
}

// begin starts a pass, or does nothing if one is under way or the transaction is over.
func (m *machine) begin(now time.Time) []effect {
	if m.t.State.Over() || len(m.flying) > 0 {
		return nil
	}
	m.pass = pass{tried: make(map[int]int), missed: nobody}
	m.rules.judge(m, now)
	return m.advance(now)
}

// answered tells what came of a call. text is for people.
func (m *machine) answered(branch int, a Answer, text string, now time.Time) []effect {
	delete(m.flying, branch)
	if m.t.State.Over() { // stopped by force meanwhile, or a workflow told its end
		if len(m.flying) > 0 {
			return nil
		}
		return []effect{{kind: rest}}
	}
	if a == Unknown && mistake.On("no-answer-is-failure") {
		a = Failure
	}
	if a == Success {
		m.succeeded(branch, now)
		return m.advance(now)
	}
	m.pass.tried[branch]++
	if branch != own {
		m.t.Branches[branch].Error = cut(text, m.limits.ErrorMax)
	}
	if !m.rules.missed(m, branch, a, text) {
		m.miss(branch, a, text)
	}
	return m.advance(now)
}

// turnedAway tells that a call was not made, because there is no place for it. It is made
// in a later pass, after the wait or the transaction's own pause.
func (m *machine) turnedAway(branch int, wait time.Duration, now time.Time) []effect {
	delete(m.flying, branch)
	if m.pass.tried[branch] == 0 && slices.Contains(m.pass.first, branch) {
		m.t.Branches[branch].Called = time.Time{} // nothing is owed for it
	}
	m.pass.tried[branch]++
	m.pass.putOff = max(m.pass.putOff, wait, 1)
	return m.advance(now)
}

func (m *machine) succeeded(branch int, now time.Time) {
	if branch == own {
		m.rules.(asker).answeredYes(m)
		return
	}
	b := &m.t.Branches[branch]
	b.State, b.Error, b.Finished = store.BranchSucceeded, "", now
}

// miss notes an answer because of which there will be another pass.
func (m *machine) miss(branch int, a Answer, text string) {
	if a == Ongoing {
		m.pass.ongoing = true
		return
	}
	m.pass.failed = true
	if m.pass.missed == nobody {
		m.pass.missed, m.pass.said = branch, cut(text, m.limits.ErrorMax)
	}
}

// become changes the state. That is durable before anything is done because of it (E1).
// What failed before says nothing about what follows.
func (m *machine) become(s store.State) {
	m.t.State, m.t.Interval, m.t.Attempts, m.dirty = s, m.interval(), 0, true
}

// giveUp changes to a state that leads to Failed.
func (m *machine) giveUp(s store.State, reason string) {
	m.become(s)
	if m.t.Reason == "" {
		m.t.Reason = cut(reason, m.limits.ErrorMax)
	}
}

// free reports whether a call may be made in this pass.
func (m *machine) free(branch int) bool { return !m.flying[branch] && m.pass.tried[branch] == 0 }

// advance returns all that is to be done now.
func (m *machine) advance(now time.Time) []effect {
	for {
		if m.t.State.Over() {
			if len(m.flying) > 0 {
				return nil
			}
			return m.end(now)
		}
		calls, done := m.rules.next(m, now)
		if done && len(m.flying) == 0 {
			m.become(m.rules.done(m))
			continue
		}
		if m.skip(calls, now) {
			continue
		}
		if len(calls) > 0 {
			return m.start(calls, now)
		}
		if len(m.flying) > 0 {
			return nil
		}
		return m.end(now)
	}
}

// skip lets branches without an address succeed, and reports whether there were any.
func (m *machine) skip(calls []int, now time.Time) (skipped bool) {
	for _, branch := range calls {
		if branch != own && m.t.Branches[branch].URL == "" {
			m.t.Branches[branch].Called = now
			m.succeeded(branch, now)
			skipped = true
		}
	}
	return skipped
}

func (m *machine) start(calls []int, now time.Time) (effects []effect) {
	for _, branch := range calls {
		if branch != own && m.t.Branches[branch].Called.IsZero() {
			m.t.Branches[branch].Called = now
			m.pass.first = append(m.pass.first, branch)
			m.dirty = m.dirty || !mistake.On("calls-not-recorded") && m.t.Pattern == store.Saga && m.t.Branches[branch].Op == store.Action // E2
		}
	}
	m.t.Due, m.t.Leased = now.Add(m.limits.Lease), true
	if m.dirty && !mistake.On("call-before-save") {
		effects, m.dirty = append(effects, effect{kind: save}), false
	}
	for _, branch := range calls {
		m.flying[branch] = true
		effects = append(effects, effect{kind: call, branch: branch})
	}
	return effects
}

// end ends a pass.
func (m *machine) end(now time.Time) []effect {
	m.dirty, m.t.Leased = false, false
	if m.t.State.Over() {
		m.t.Finished, m.t.Due = now, time.Time{}
		return []effect{{kind: save}, {kind: rest}}
	}
	wake := m.rules.wake(m)
	switch {
	case m.pass.failed:
		m.t.Attempts++
		m.t.Interval = min(2*m.t.Interval, max(m.limits.RetryIntervalMax, m.t.Interval))
		m.t.Due = now.Add(m.limits.jitter(m.t.Interval))
	case m.pass.ongoing:
		m.t.Attempts = 0
		m.t.Due = now.Add(m.limits.jitter(m.t.Interval))
	case m.pass.putOff > 0:
		m.t.Due = now.Add(m.limits.jitter(max(m.t.Interval, m.pass.putOff)))
	default:
		m.t.Due = wake // there was nothing to do
	}
	if wake.After(now) && wake.Before(m.t.Due) {
		m.t.Due = wake
	}
	return []effect{{kind: save}, {kind: rest}}
}
