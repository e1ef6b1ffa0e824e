package history

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// CheckMonotone checks I13: nobody is ever told the opposite of what anybody was
// told before, or is told at the end; and unless the rules say that records are
// forgotten, nobody is told Undecided after somebody was told the decision.
func CheckMonotone(events []Event, final Final, rules Rules) []Violation {
	ops := operations(events)
	var out []Violation
	all := answers(ops, final)
	for _, gid := range sorted(all) {
		if all[gid][Committed] && all[gid][Aborted] {
			out = append(out, Violation{"I13", "decision reversed", fmt.Sprintf("%s was told to have committed, and to have been rolled back", gid), []string{gid}})
		}
	}
	if rules.Forgets {
		return out
	}
	known := map[string]int64{} // when somebody first heard the decision
	for _, o := range ops {
		if a := o.told(); o.Kind != Read && (a == Committed || a == Aborted) {
			if at, ok := known[o.GID]; !ok || o.end < at {
				known[o.GID] = o.end
			}
		}
	}
	for _, o := range ops {
		if at, ok := known[o.GID]; ok && o.told() == Undecided && o.begin > at {
			out = append(out, Violation{"I13", "decision vanished", fmt.Sprintf("%s was decided at %d, and process %d, which asked at %d, was told that it is not", o.GID, at, o.Process, o.begin), []string{o.GID}})
		}
	}
	return out
}

// linearizeWithin bounds the search about one transaction. Its operations are few.
const linearizeWithin = 20 * time.Second

// CheckRegister checks that what clients were told about each transaction is what
// a register would say that is written once: that there is one moment, at which
// the decision was made, in the time of a call that may have made it (I2, I13).
// An operation without an answer may have happened at any later time, or never.
func CheckRegister(events []Event, rules Rules) []Violation {
	byGID := map[string][]porcupine.Operation{}
	for _, o := range operations(events) {
		if o.GID == "" || o.Kind == Read || (o.Kind == Lookup && o.Phase != OK) {
			continue // a question without an answer says nothing
		}
		byGID[o.GID] = append(byGID[o.GID], porcupine.Operation{ClientId: o.Process, Input: o, Call: o.begin, Output: o.told(), Return: o.end})
	}
	model := registerModel(rules)
	var out []Violation
	for _, gid := range sorted(byGID) {
		switch porcupine.CheckOperationsTimeout(model, byGID[gid], linearizeWithin) {
		case porcupine.Ok:
		case porcupine.Illegal:
			out = append(out, Violation{"I13", "not linearizable", fmt.Sprintf("no single moment of decision about %s explains what its %d operations were told", gid, len(byGID[gid])), []string{gid}})
		case porcupine.Unknown:
			out = append(out, Violation{"I13", "not decided", fmt.Sprintf("whether one moment of decision explains %s was not found out within %v", gid, linearizeWithin), []string{gid}})
		}
	}
	return out
}

// presumed is the state of a register about a transaction that its owner has
// rolled back without a record: nobody will commit it, and some may not know.
const presumed Answer = "presumed"

// registerModel is the register as a state machine: its state is an Answer or
// presumed.
func registerModel(rules Rules) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return Undecided },
		Step: func(state, input, output any) (bool, any) {
			next := step(state.(Answer), input.(operation), output.(Answer), rules)
			return next != "", next
		},
	}
}

// step returns the state after o, or "" if what o was told is impossible in the
// state before. told is "" if o was told nothing.
func step(state Answer, o operation, told Answer, rules Rules) Answer {
	want := o.Want
	if o.Kind == Transfer || o.Kind == Append {
		want = Committed
		if told == Aborted {
			return rollBack(state)
		}
	}
	if state == Undecided && o.Kind != Lookup {
		if rules.Hidden && told == Aborted {
			return Aborted // somebody else was first
		}
		if told == "" || told == want {
			return want
		}
		return ""
	}
	switch {
	case told == "", told == state:
		return state
	case told == Aborted && (state == presumed || (state == Undecided && rules.Hidden)):
		return Aborted
	case told == Undecided && (state == presumed || rules.Forgets):
		return state
	}
	return ""
}

// rollBack is what an owner does that reports an abort: it promises that it will
// not commit.
func rollBack(state Answer) Answer {
	switch state {
	case Undecided, presumed:
		return presumed
	case Aborted:
		return Aborted
	case Committed:
	}
	return ""
}
