package api

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/troth-tx/troth/store"
)

// Verdict says in one plain sentence how a transaction stands, what will happen, and
// whether anybody has to do anything. Every screen shows this sentence and no other.
func Verdict(t *store.Transaction, now time.Time) string {
	switch t.State {
	case store.Prepared:
		return waiting(t, now)
	case store.Submitted:
		return onItsWay(t, now, "decision: go on")
	case store.Aborting:
		return onItsWay(t, now, "decision: go back"+because(t.Reason))
	case store.Succeeded:
		return "succeeded; nothing to do"
	case store.Failed:
		return failed(t)
	}
	return "in a state that this version does not know: " + t.State.String()
}

// waiting is about a transaction that its caller has announced.
func waiting(t *store.Transaction, now time.Time) string {
	next := "soon"
	if t.Due.After(now) {
		next = "in " + roughly(t.Due.Sub(now))
	}
	text := "decision: not made yet; "
	switch t.Pattern {
	case store.Message:
		if t.Attempts > 0 {
			return text + fmt.Sprintf("the sender did not submit, and %s did not tell whether it committed (asked %s without an agreed answer); it is asked again %s; mend the sender if it is down",
				place(t.QueryPrepared), times(t.Attempts), next)
		}
		return text + fmt.Sprintf("the sender has announced it and not submitted; unless it does, %s is asked %s whether it committed; nothing to do", place(t.QueryPrepared), next)
	case store.Workflow:
		if t.Attempts > 0 {
			return text + fmt.Sprintf("the workflow runs in its program, and %s could not resume it (the last %s failed); it is called again %s; mend the program if it is down",
				place(t.QueryPrepared), attempts(t.Attempts), next)
		}
		return text + fmt.Sprintf("the workflow runs in its program, %s so far; if it does not end, %s is called %s to resume it; nothing to do", steps(t), place(t.QueryPrepared), next)
	case store.TCC, store.XA:
		return text + fmt.Sprintf("the caller is at work, %s so far; unless it submits or aborts, it is aborted %s; nothing to do", steps(t), next)
	case store.Saga:
	}
	return text + "the caller has announced it and not submitted; nothing to do"
}

// onItsWay is about a transaction that is decided and not over.
func onItsWay(t *store.Transaction, now time.Time, decision string) string {
	done, all := progress(t)
	text := fmt.Sprintf("%s; %d of %s done", decision, done, count(all, "branch", "branches"))
	left := unanswered(t)
	if t.Attempts == 0 {
		if t.Pattern == store.Message && t.Options.Delay > 0 && t.Created.Add(t.Options.Delay).After(now) {
			return text + fmt.Sprintf("; it begins in %s, as its sender wished; nothing to do", roughly(t.Created.Add(t.Options.Delay).Sub(now)))
		}
		if left != nil {
			text += fmt.Sprintf("; waiting for %s of branch %s at %s", left.Op, left.ID, place(left.URL))
		}
		return text + "; it goes on by itself; nothing to do"
	}
	text += fmt.Sprintf("; stuck: the last %s failed", attempts(t.Attempts))
	if left != nil {
		text = fmt.Sprintf("%s at %s of branch %s, %s", text, left.Op, left.ID, place(left.URL))
		if left.Error != "" {
			text += " said " + quoted(left.Error)
		}
	}
	next := "now"
	if t.Due.After(now) && !t.Leased {
		next = "in " + roughly(t.Due.Sub(now))
	}
	text += "; tried again " + next
	if limit := t.Options.TimeoutToFail; t.Pattern == store.Saga && t.State == store.Submitted && limit > 0 {
		return text + fmt.Sprintf("; if it is not over in %s it goes back by itself; nothing to decide", roughly(t.Created.Add(limit).Sub(now)))
	}
	return text + ", and for ever; mend the participant, or retry now once it is well"
}

// failed is about a transaction that did not come about.
func failed(t *store.Transaction) string {
	var left []string
	for i := range t.Branches {
		b := &t.Branches[i]
		if !back(b.Op) || b.State == store.BranchSucceeded || b.URL == "" {
			continue
		}
		if t.Pattern == store.Saga && !called(t, b.ID) {
			continue // there was nothing to undo
		}
		left = append(left, b.ID)
	}
	if t.Pattern == store.Message && delivered(t) > 0 {
		return fmt.Sprintf("stopped by force%s; %d of %s had its message, and the others will not have it; a person must look at them",
			because(t.Reason), delivered(t), count(len(t.Branches), "branch", "branches"))
	}
	if len(left) > 0 {
		return fmt.Sprintf("stopped by force%s; branch %s was not asked to undo its work, or did not agree; a person must look at it",
			because(t.Reason), strings.Join(left, ", "))
	}
	return "failed" + because(t.Reason) + "; what had been done is undone; nothing to do"
}

// called reports whether the action of a branch may have done something.
func called(t *store.Transaction, id string) bool {
	for i := range t.Branches {
		if b := &t.Branches[i]; b.ID == id && b.Op == store.Action {
			return !b.Called.IsZero()
		}
	}
	return false
}

func delivered(t *store.Transaction) (n int) {
	for i := range t.Branches {
		if t.Branches[i].State == store.BranchSucceeded {
			n++
		}
	}
	return n
}

// back reports whether an operation undoes another.
func back(op store.Op) bool {
	switch op {
	case store.Compensate, store.Cancel, store.Rollback:
		return true
	case store.Action, store.Confirm, store.Commit, store.Business, store.Query, store.Resume:
	}
	return false
}

// due reports whether a branch has something to do in the present state: forth or
// back, and of a saga that goes back only what was called.
func due(t *store.Transaction, b *store.Branch) bool {
	if t.State != store.Aborting {
		return !back(b.Op)
	}
	return back(b.Op) && (t.Pattern != store.Saga || called(t, b.ID))
}

func progress(t *store.Transaction) (done, all int) {
	for i := range t.Branches {
		if b := &t.Branches[i]; due(t, b) {
			all++
			if b.State == store.BranchSucceeded {
				done++
			}
		}
	}
	return done, all
}

// unanswered is the branch that a person would look at: one that has said something
// other than success, or else the first that was called.
func unanswered(t *store.Transaction) (found *store.Branch) {
	for i := range t.Branches {
		b := &t.Branches[i]
		switch {
		case !due(t, b) || b.State == store.BranchSucceeded:
		case b.Error != "":
			return b
		case found == nil:
			found = b
		}
	}
	return found
}

func steps(t *store.Transaction) string { return count(len(t.Branches), "step", "steps") }

// place is an address as a person needs it: without password and parameters, which may
// be secrets.
func place(address string) string {
	if address == "" {
		return "nobody"
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" { // gRPC: host:port/service/method
		before, _, _ := strings.Cut(address, "?")
		if at := strings.LastIndexByte(before, '@'); at >= 0 {
			before = before[at+1:]
		}
		return before
	}
	return u.Host + u.Path
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ", because " + quoted(reason)
}

// quoted is what somebody else said, short enough for a sentence.
const quotedMax = 160

func quoted(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > quotedMax {
		s = strings.ToValidUTF8(s[:quotedMax], "") + "…"
	}
	return "\"" + strings.ReplaceAll(s, "\"", "'") + "\""
}

func attempts(n int) string {
	if n == 1 {
		return "attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
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
