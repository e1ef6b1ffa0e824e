package troth

import (
	"fmt"
	"strings"
	"time"
)

// Evidence is what is known about one prepared branch.
type Evidence struct {
	Resource string
	Ours     bool          // its name has troth's format
	Owner    string        // who prepared it, if the database says so
	Age      time.Duration // since prepare; 0 if the database does not say

	OtherDomain  string // set if it belongs to another domain than this process's
	Driven       bool   // this process is driving the transaction
	Place        Place  // where its decision is recorded
	PlaceUnknown bool   // this process does not know that place
	PlaceErr     error  // the place did not answer
	Decision     Outcome
	Grace        time.Duration
	Heuristic    *HeuristicError
}

// Verdict says in one plain sentence what the evidence means and whether anybody
// has to do anything. Every screen shows this sentence and no other.
func (e Evidence) Verdict() string {
	since := ""
	if e.Age > 0 {
		since = " for " + roughly(e.Age)
	}
	voted := e.Resource + " voted yes"
	if since != "" {
		voted += " and has waited" + since
	}
	switch {
	case !e.Ours && e.Owner != "":
		return fmt.Sprintf("not troth's: prepared by another program as %s%s; troth never touches it; ask its owner", e.Owner, since)
	case !e.Ours:
		return fmt.Sprintf("not troth's: prepared by another program%s; troth never touches it; ask its owner", since)
	case e.OtherDomain != "":
		return fmt.Sprintf("belongs to the domain %q; this process looks after another domain and leaves it alone", e.OtherDomain)
	case e.Heuristic != nil:
		return fmt.Sprintf("decision: %s, but a branch ended the other way; the databases disagree and a person must repair the data: %v", e.Decision.word(), e.Heuristic)
	case e.PlaceUnknown:
		return fmt.Sprintf("decision: recorded at %s, which is not configured here; %s; run recovery where that database is configured; decide nothing by hand", e.Place, voted)
	case e.PlaceErr != nil:
		return fmt.Sprintf("decision: not known, because %s does not answer; %s; it will end by itself when %s is back; decide nothing by hand", e.Place.name(), voted, e.Place.name())
	case e.Decision == Committed:
		return fmt.Sprintf("decision: commit, stored at %s; %s; it will commit by itself; nothing to decide", e.Place.name(), voted)
	case e.Decision == Aborted:
		return fmt.Sprintf("decision: abort, stored at %s; %s; it will roll back by itself; nothing to decide", e.Place.name(), voted)
	case e.Driven:
		return fmt.Sprintf("decision: not made yet; %s; this process is deciding it now; nothing to do", voted)
	case e.Age > 0 && e.Age < e.Grace:
		return fmt.Sprintf("decision: not made yet; %s; if the program that runs it does not decide it within %s, recovery rolls it back; nothing to do", voted, roughly(e.Grace-e.Age))
	}
	return fmt.Sprintf("decision: none, and the program that ran it seems gone; %s; recovery rolls it back by itself; nothing to decide", voted)
}

// verdict is the sentence about a whole transaction.
func (r Report) verdict(err error) string {
	switch {
	case r.Heur != nil:
		return fmt.Sprintf("decision: %s, but the databases disagree and a person must repair the data: %v", r.Outcome.word(), r.Heur)
	case len(r.Branches) > 0:
		parts := make([]string, len(r.Branches))
		for i, b := range r.Branches {
			parts[i] = b.Resource + ": " + b.Verdict
		}
		return strings.Join(parts, "\n")
	case r.Outcome == Committed:
		return "decision: commit; every branch that these databases list is finished; nothing to do"
	case r.Outcome == Aborted:
		return "decision: abort; nothing of it is left in these databases; nothing to do"
	case r.NoRecord:
		return "no record and nothing in doubt: it was rolled back before a decision was needed, or it committed so long ago that its record is forgotten, or it is still running; nothing to decide"
	case err != nil:
		return "not known: a database that may hold the decision does not answer; it will end by itself when that is back; decide nothing by hand"
	}
	return "not decided yet: this process is driving it; nothing to do"
}

// name is the place in words.
func (p Place) name() string {
	if p.Resource == "" {
		return "the register " + p.Identity
	}
	return p.Resource
}

func (o Outcome) word() string {
	switch o {
	case Committed:
		return "commit"
	case Aborted:
		return "abort"
	case Undecided:
	}
	return "none"
}

// roughly is a duration as a person says it.
func roughly(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than a second"
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
