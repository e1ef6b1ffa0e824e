package troth

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// The sentence about a whole transaction: what weighs more is said first.
func TestReportVerdict(t *testing.T) {
	t.Parallel()
	heur := &HeuristicError{GID: "bank.x", Decision: Committed, Branches: []HeuristicBranch{{Resource: "porthos", XID: "x", Ended: Aborted, Evidence: "no witness"}}}
	branches := []InDoubt{{Resource: "athos", Verdict: "one"}, {Resource: "porthos", Verdict: "two"}}
	silent := errors.New("connection refused")
	for _, c := range []struct {
		name string
		r    Report
		err  error
		want string
	}{
		{
			"heuristic",
			Report{Outcome: Committed, Heur: heur, Branches: branches},
			silent,
			"decision: commit, but the databases disagree and a person must repair the data: " + heur.Error(),
		},
		{"branches", Report{Outcome: Committed, Branches: branches}, silent, "athos: one\nporthos: two"},
		{
			"committed",
			Report{Outcome: Committed},
			nil,
			"decision: commit; every branch that these databases list is finished; nothing to do",
		},
		{
			"aborted",
			Report{Outcome: Aborted},
			silent,
			"decision: abort; nothing of it is left in these databases; nothing to do",
		},
		{
			"no record",
			Report{NoRecord: true},
			silent,
			"no record and nothing in doubt: it was rolled back before a decision was needed, or it committed so long ago that its record is forgotten, or it is still running; nothing to decide",
		},
		{
			"silent",
			Report{},
			silent,
			"not known: a database that may hold the decision does not answer; it will end by itself when that is back; decide nothing by hand",
		},
		{"driven here", Report{}, nil, "not decided yet: this process is driving it; nothing to do"},
	} {
		if got := c.r.verdict(c.err); got != c.want {
			t.Errorf("%s\n  got  %s\n  want %s", c.name, got, c.want)
		}
	}
}

// A branch is within its grace until the grace is over, and only if its age is known.
func TestVerdictAtTheEdgesOfGrace(t *testing.T) {
	t.Parallel()
	const (
		within = "decision: not made yet; porthos voted yes and has waited for %s; if the program that runs it does not decide it within %s, recovery rolls it back; nothing to do"
		over   = "decision: none, and the program that ran it seems gone; porthos voted yes%s; recovery rolls it back by itself; nothing to decide"
	)
	for age, want := range map[time.Duration]string{
		0:                 fmt.Sprintf(over, ""),
		1:                 fmt.Sprintf(within, "less than a second", "5s"),
		5*time.Second - 1: fmt.Sprintf(within, "5s", "less than a second"),
		5 * time.Second:   fmt.Sprintf(over, " and has waited for 5s"),
	} {
		e := Evidence{Resource: "porthos", Ours: true, Age: age, Grace: 5 * time.Second}
		if got := e.Verdict(); got != want {
			t.Errorf("%v\n  got  %s\n  want %s", age, got, want)
		}
	}
}

// Who prepared a branch is told of those of others only.
func TestVerdictNamesTheOwner(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		e    Evidence
		want string
	}{
		{Evidence{Resource: "porthos"}, "not troth's: prepared by another program; troth never touches it; ask its owner"},
		{Evidence{Resource: "porthos", Owner: "root"}, "not troth's: prepared by another program as root; troth never touches it; ask its owner"},
		{
			Evidence{Resource: "porthos", Ours: true, Owner: "app", Driven: true},
			"decision: not made yet; porthos voted yes; this process is deciding it now; nothing to do",
		},
	} {
		if got := c.e.Verdict(); got != c.want {
			t.Errorf("got  %s\n want %s", got, c.want)
		}
	}
}

func TestRoughly(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                           "less than a second",
		time.Second - 1:             "less than a second",
		time.Second:                 "1s",
		90 * time.Second:            "1m30s",
		2*time.Minute - time.Second: "1m59s",
		2 * time.Minute:             "2 minutes",
		2*time.Hour - time.Second:   "119 minutes",
		2 * time.Hour:               "2 hours",
		48*time.Hour - time.Second:  "47 hours",
		48 * time.Hour:              "2 days",
		73*time.Hour - time.Second:  "3 days",
		10 * 24 * time.Hour:         "10 days",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
