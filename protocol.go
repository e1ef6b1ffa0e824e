package troth

import (
	"fmt"
	"strconv"

	"github.com/troth-tx/troth/internal/mistake"
)

// txState is the transaction manager's view of one global transaction.
//
//	            ┌────────────────────────> Releasing ───────────┐
//	            │                                               ▼
//	Active ─> Polling ─> Preparing ─> Deciding ─> Committing ─> Committed
//	   │        │            │           │
//	   └────────┴────────────┴───────────┴──────> Aborting ───> Aborted
//
//	Active    -> Polling     commit was asked for                          [stepCommit]
//	Active    -> Committed   commit was asked for, no branch takes part    [stepCommit]
//	Polling   -> Preparing   several branches wrote, or one that must vote [stepPolled]
//	Polling   -> Deciding    one branch wrote: one phase                   [stepPolled]
//	Polling   -> Releasing   no branch wrote: nothing to decide            [stepPolled]
//	Preparing -> Deciding    every vote is commit                          [stepVoted]
//	Deciding  -> Deciding    the answer was lost: ask again, for ever (R3) [stepDecided]
//	Deciding  -> Committing  the commit record is durable                  [stepDecided]
//	Committing-> Committed   every branch acknowledged; forget             [stepEnded]
//	Releasing -> Committed   every branch acknowledged                     [stepReleased]
//	Releasing -> Aborted     a branch did not: what was read may be wrong  [stepReleased]
//	Aborting  -> Aborted     every branch acknowledged or was given over   [stepEnded]
//	Active, Polling, Preparing -> Aborting  rollback, timeout, any vote but commit [stepAbort]
//	Deciding  -> Aborting    the register holds abort                      [stepDecided]
//
// Active, Polling, Preparing: no commit record exists and none was asked for, so
// a crash aborts (presumed abort, Mohan et al. 1986), and the transaction manager
// may roll back without a record (R2).
//
// Deciding: the record may be durable. Nothing may be rolled back, nothing
// committed, nobody told (R1, R3).
//
// Committing: the record is durable. Committed is the only way out.
//
// Releasing: nothing was written, so there is nothing to decide and nothing to
// undo; but a database may yet refuse what was read (a serialization failure at its
// COMMIT). The program is then told "rolled back": nothing happened, and it should
// read again. Until the last branch has answered nobody is told (I13).
type txState uint8

// The states of a transaction. Zero is none of them: it would be a bug.
const (
	stateActive txState = iota + 1
	statePolling
	statePreparing
	stateDeciding
	stateCommitting
	stateReleasing
	stateCommitted
	stateAborting
	stateAborted
)

func (s txState) String() string {
	switch s {
	case stateActive:
		return "active"
	case statePolling:
		return "polling"
	case statePreparing:
		return "preparing"
	case stateDeciding:
		return "deciding"
	case stateCommitting:
		return "committing"
	case stateReleasing:
		return "releasing"
	case stateCommitted:
		return "committed"
	case stateAborting:
		return "aborting"
	case stateAborted:
		return "aborted"
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// machine is the protocol. It does nothing itself: step takes what happened and
// appends the effects that must now be carried out; the driver carries them out,
// in any order or at once, and feeds back what came of each. It has no clock, no
// I/O, no randomness and no goroutine, so that a simulator can drive it.
type machine struct {
	state    txState
	register bool // decisions go to a register of its own unless home is fixed
	home     int  // the branch whose commit is the decision; noBranch: the register
	fixed    bool // home is fixed: a branch already carries it in its name
	branches []branchState
	waiting  int // effects of this state that have not been answered
	failed   bool
	homeless bool // no place for the decision satisfies every branch
}

const noBranch = -1

// branchState is what the machine knows of one branch.
type branchState struct {
	can   Capability
	wrote bool
	vote  Vote
	ended bool // acknowledged, or known never to need it
}

// An event is something that happened.
type event struct {
	kind    eventKind
	branch  int     // evPolled, evVoted, evEnded
	ok      bool    // evPolled: no statement failed; evEnded: acknowledged
	wrote   bool    // evPolled
	vote    Vote    // evVoted
	outcome Outcome // evDecided: Undecided if the answer was lost
}

type eventKind uint8

const (
	evCommit   eventKind = iota + 1 // the program asked for commit
	evRollback                      // the program asked for rollback, or the time is up
	evPolled                        // a branch said whether it wrote
	evVoted                         // a branch voted
	evDecided                       // a register or home participant answered
	evEnded                         // a branch acknowledged phase two, or could not be reached
)

// An effect is something to do.
type effect struct {
	kind   effectKind
	branch int
}

type effectKind uint8

const (
	efPoll     effectKind = iota + 1 // ask the branch whether it wrote     -> evPolled
	efPrepare                        // ask the branch for its vote         -> evVoted
	efDecide                         // write the commit record: in the branch's own commit, or (noBranch) in the register -> evDecided
	efAsk                            // the answer to efDecide was lost: ask where it went -> evDecided
	efCommit                         // commit the prepared branch          -> evEnded
	efRollback                       // roll the branch back                -> evEnded
	efRelease                        // end a branch that wrote nothing     -> evEnded
	efReport                         // the outcome is known: tell the caller
	efForget                         // every branch is proved committed: the record may go (R4)
)

// step moves the machine on. An event that the state does not expect is a bug in
// the driver, returned as an error; the machine is then unchanged.
func (m *machine) step(ev event, effects []effect) ([]effect, error) {
	switch {
	case ev.kind == evCommit && m.state == stateActive:
		return m.stepCommit(effects), nil
	case ev.kind == evRollback && m.state == stateActive:
		return m.stepAbort(effects), nil
	case ev.kind == evPolled && m.state == statePolling:
		return m.stepPolled(ev, effects), nil
	case ev.kind == evVoted && m.state == statePreparing:
		return m.stepVoted(ev, effects), nil
	case ev.kind == evDecided && m.state == stateDeciding:
		return m.stepDecided(ev, effects), nil
	case ev.kind == evEnded && (m.state == stateCommitting || m.state == stateAborting):
		return m.stepEnded(ev, effects), nil
	case ev.kind == evEnded && m.state == stateReleasing:
		return m.stepReleased(ev, effects), nil
	}
	return effects, fmt.Errorf("troth: protocol: event %d in state %v", ev.kind, m.state)
}

func (m *machine) stepCommit(effects []effect) []effect {
	m.state, m.waiting = statePolling, len(m.branches)
	if m.waiting == 0 {
		m.state = stateCommitted
		return append(effects, effect{kind: efReport})
	}
	for i := range m.branches {
		effects = append(effects, effect{kind: efPoll, branch: i})
	}
	return effects
}

func (m *machine) stepPolled(ev event, effects []effect) []effect {
	m.branches[ev.branch].wrote = ev.wrote
	m.failed = m.failed || !ev.ok
	if m.waiting--; m.waiting > 0 {
		return effects
	}
	if m.failed {
		return m.stepAbort(effects)
	}
	writers, last, unable := 0, noBranch, noBranch
	for i, b := range m.branches {
		if b.wrote {
			writers, last = writers+1, i
			if b.can&CanPrepare == 0 {
				unable = i
			}
		}
	}
	switch writers {
	case 0:
		return m.stepReleasing(effects)
	case 1:
		if m.branches[last].can&OnePhaseReturns == 0 || m.fixed && m.home == last || mistake.On("returning-sole-does-not-vote") {
			m.home = last
			return m.stepDeciding(effects)
		}
		// It must vote: a crash could bring its one-phase commit back as prepared, and
		// whoever finds it then asks for the decision where its name says.
	}
	if !m.chooseHome(unable) {
		m.homeless = true
		return m.stepAbort(effects)
	}
	if mistake.On("last-resource-first") {
		return m.stepDeciding(effects)
	}
	m.state = statePreparing
	for i, b := range m.branches {
		if b.wrote && i != m.home {
			m.waiting++
			effects = append(effects, effect{kind: efPrepare, branch: i})
		}
	}
	return effects
}

// chooseHome settles where the decision is recorded, and reports whether that is
// possible: unable is the writer that cannot prepare, if there is one, and must
// be the home; a name already given to a branch must stay true.
func (m *machine) chooseHome(unable int) bool {
	for i, b := range m.branches {
		if b.wrote && b.can&CanPrepare == 0 && i != unable {
			return false // two that cannot vote: no protocol makes them one
		}
	}
	switch {
	case m.fixed:
		return unable == noBranch || unable == m.home
	case unable != noBranch:
		m.home = unable
	case m.register:
		m.home = noBranch
	default:
		m.home = noBranch
		for i, b := range m.branches {
			if b.wrote && b.can&CanDecide != 0 {
				m.home = i
				break
			}
		}
		return m.home != noBranch
	}
	return true
}

func (m *machine) stepVoted(ev event, effects []effect) []effect {
	if mistake.On("unanswered-vote-is-yes") && ev.vote == VoteUnknown ||
		mistake.On("last-vote-unread") && m.waiting == 1 {
		ev.vote = VoteCommit
	}
	m.branches[ev.branch].vote = ev.vote
	m.failed = m.failed || ev.vote != VoteCommit // an unknown vote is no vote
	if m.waiting--; m.waiting > 0 {
		return effects
	}
	if m.failed {
		return m.stepAbort(effects)
	}
	return m.stepDeciding(effects)
}

func (m *machine) stepDeciding(effects []effect) []effect {
	m.state = stateDeciding
	return append(effects, effect{kind: efDecide, branch: m.home})
}

func (m *machine) stepDecided(ev event, effects []effect) []effect {
	if mistake.On("lost-decision-is-abort") && ev.outcome == Undecided {
		ev.outcome = Aborted
	}
	if mistake.On("lost-decision-is-commit") && ev.outcome == Undecided {
		ev.outcome = Committed
	}
	switch ev.outcome {
	case Committed:
		if m.home != noBranch {
			m.branches[m.home].ended = true // its commit was the decision
		}
		return m.stepCommitting(effects)
	case Aborted:
		return m.stepAbort(effects)
	case Undecided:
		return append(effects, effect{kind: efAsk, branch: m.home}) // R3
	}
	return effects
}

func (m *machine) stepCommitting(effects []effect) []effect {
	m.state = stateCommitting
	effects = append(effects, effect{kind: efReport})
	m.waiting = 0
	for i, b := range m.branches {
		switch {
		case b.ended:
		case b.wrote:
			m.waiting++
			effects = append(effects, effect{kind: efCommit, branch: i})
		default:
			m.waiting++
			effects = append(effects, effect{kind: efRelease, branch: i})
		}
	}
	if m.waiting == 0 {
		return m.stepDone(effects)
	}
	return effects
}

// stepReleasing ends a transaction in which nobody wrote.
func (m *machine) stepReleasing(effects []effect) []effect {
	m.state, m.waiting = stateReleasing, len(m.branches)
	for i := range m.branches {
		effects = append(effects, effect{kind: efRelease, branch: i})
	}
	return effects
}

func (m *machine) stepReleased(ev event, effects []effect) []effect {
	m.branches[ev.branch].ended = ev.ok
	m.failed = m.failed || !ev.ok // what it read may not hold together
	if m.waiting--; m.waiting > 0 {
		return effects
	}
	m.state = stateCommitted
	if m.failed {
		m.state = stateAborted
	}
	return append(effects, effect{kind: efReport})
}

func (m *machine) stepAbort(effects []effect) []effect {
	m.state = stateAborting
	effects = append(effects, effect{kind: efReport})
	m.waiting = len(m.branches)
	for i := range m.branches {
		effects = append(effects, effect{kind: efRollback, branch: i})
	}
	if m.waiting == 0 {
		m.state = stateAborted
	}
	return effects
}

func (m *machine) stepEnded(ev event, effects []effect) []effect {
	b := &m.branches[ev.branch]
	b.ended = b.ended || ev.ok
	m.waiting--
	if m.waiting > 0 {
		return effects
	}
	if m.state == stateAborting {
		m.state = stateAborted // a branch that was not reached is recovery's: presumed abort
		return effects
	}
	return m.stepDone(effects)
}

// stepDone leaves Committing once every branch was tried. If a writer was not
// reached the record stays, and recovery finishes the branch.
func (m *machine) stepDone(effects []effect) []effect {
	for _, b := range m.branches {
		if b.wrote && !b.ended && !mistake.On("forget-unacknowledged") {
			return effects
		}
	}
	m.state = stateCommitted
	return append(effects, effect{kind: efForget})
}
