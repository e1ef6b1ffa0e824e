package api

import (
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/troth-tx/troth/store"
)

// What the API answers. Fields are added, never renamed; a list is never null, and what
// is not known is absent. Times are RFC 3339 in UTC, durations seconds.

// A Summary is a transaction in a list.
type Summary struct {
	GID         string     `json:"gid"`
	Pattern     string     `json:"pattern" enum:"msg,saga,tcc,xa,workflow"`
	State       string     `json:"state" enum:"prepared,submitted,aborting,succeed,failed"`
	Owner       string     `json:"owner,omitempty" doc:"the principal that made it"`
	Created     time.Time  `json:"created"`
	Updated     time.Time  `json:"updated"`
	Finished    *time.Time `json:"finished,omitempty"`
	NextAttempt *time.Time `json:"next_attempt,omitempty" doc:"when it is looked at next, if it is not over"`
	Attempts    int        `json:"attempts" doc:"passes that failed since one went well"`
	Stuck       bool       `json:"stuck" doc:"it is not over, and its last pass failed"`
	Branches    int        `json:"branches"`
	Done        int        `json:"done" doc:"branches that succeeded"`
	Verdict     string     `json:"verdict" doc:"what this means and whether anybody has to do anything, in a sentence"`
}

// A Page is a part of a list of transactions.
type Page struct {
	Transactions []Summary `json:"transactions" doc:"the newest first"`
	Next         string    `json:"next_cursor,omitempty" doc:"cursor of the next page; absent after the last"`
}

// A Transaction is all that there is to see of one.
type Transaction struct {
	Summary
	Reason        string   `json:"reason,omitempty" doc:"why it went back"`
	Result        string   `json:"result,omitempty" doc:"of a workflow"`
	Protocol      string   `json:"protocol,omitempty"`
	QueryPrepared string   `json:"query_prepared,omitempty" doc:"the address that is asked whether the sender committed, or that resumes a workflow"`
	Options       Options  `json:"options"`
	List          []Branch `json:"branch_list" doc:"in the order in which they were registered"`
	Timeline      []Event  `json:"timeline" doc:"what happened, the oldest first, and what comes next"`
	Version       int64    `json:"version"`
}

// Options are what the caller asked for. Zero means the server's default.
type Options struct {
	Wait           bool     `json:"wait"`
	Concurrent     bool     `json:"concurrent"`
	TimeoutToFail  float64  `json:"timeout_to_fail_seconds"`
	RetryInterval  float64  `json:"retry_interval_seconds"`
	RequestTimeout float64  `json:"request_timeout_seconds"`
	RetryLimit     int      `json:"retry_limit"`
	Delay          float64  `json:"delay_seconds"`
	Headers        []string `json:"branch_headers" doc:"the names only: the values may be secrets"`
}

// A Branch is one operation of one participant.
type Branch struct {
	ID           string     `json:"id"`
	Op           string     `json:"op" enum:"action,compensate,confirm,cancel,commit,rollback,business,msg,resume"`
	URL          string     `json:"url,omitempty" doc:"without the password, if there is one in it"`
	State        string     `json:"state" enum:"prepared,succeed,failed"`
	Called       *time.Time `json:"called,omitempty" doc:"when it was first called"`
	Finished     *time.Time `json:"finished,omitempty"`
	Error        string     `json:"error,omitempty" doc:"of the last attempt"`
	PayloadBytes int        `json:"payload_bytes"`
}

// An Event is a point of a timeline.
type Event struct {
	At     time.Time `json:"at"`
	Event  string    `json:"event" enum:"created,called,succeeded,failed,finished,next_attempt"`
	Branch string    `json:"branch,omitempty"`
	Op     string    `json:"op,omitempty"`
	Text   string    `json:"text,omitempty"`
}

// A Reason is why an operator does something.
type Reason struct {
	Reason string `json:"reason" doc:"at least 3 characters; it goes to the audit"`
}

// Done is the answer to a change.
type Done struct {
	Done bool `json:"done"`
}

// Topics are the names of topics.
type Topics struct {
	Topics []string `json:"topics"`
	Next   string   `json:"next_cursor,omitempty"`
}

// A Topic has its subscribers.
type Topic struct {
	Topic       string       `json:"topic"`
	Version     int64        `json:"version" doc:"how many have subscribed and left"`
	Subscribers []Subscriber `json:"subscribers" doc:"in the order in which they came"`
}

// A Subscriber of a topic.
type Subscriber struct {
	URL    string `json:"url"`
	Remark string `json:"remark,omitempty"`
}

// AuditEntry is one action of an operator.
type AuditEntry struct {
	ID     int64     `json:"id"`
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	Action string    `json:"action"`
	GID    string    `json:"gid,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Audit is a part of what operators did.
type Audit struct {
	Entries []AuditEntry `json:"entries" doc:"the newest first"`
	Next    int64        `json:"next_before,omitempty" doc:"the parameter before of the next page; absent after the last"`
}

// Me is who the caller is taken for.
type Me struct {
	Principal string `json:"principal,omitempty" doc:"absent where nobody has to say who they are"`
	Role      string `json:"role" enum:"client,operator,admin"`
}

// InDoubt is what the library's databases have prepared.
type InDoubt struct {
	Branches    []InDoubtBranch `json:"branches"`
	Unreachable []Unreachable   `json:"unreachable" doc:"databases that could not be asked"`
}

// An InDoubtBranch is a prepared branch.
type InDoubtBranch struct {
	Resource    string  `json:"resource"`
	Ours        bool    `json:"ours" doc:"its name has troth's form"`
	Transaction string  `json:"transaction,omitempty"`
	Domain      string  `json:"domain,omitempty"`
	Name        string  `json:"name" doc:"as the database shows it"`
	Age         float64 `json:"age_seconds,omitempty"`
	Owner       string  `json:"owner,omitempty"`
	Decision    string  `json:"decision" enum:"commit,abort,none,unknown"`
	Verdict     string  `json:"verdict"`
	Blocked     int     `json:"blocked" doc:"sessions that wait for its locks"`
}

// Unreachable is a database that could not be asked.
type Unreachable struct {
	Resource string `json:"resource"`
	Error    string `json:"error"`
}

func summaryOf(t *store.Transaction, now time.Time) Summary {
	s := Summary{
		GID: t.GID, Pattern: t.Pattern.String(), State: t.State.String(), Owner: t.Owner,
		Created: t.Created.UTC(), Updated: t.Updated.UTC(), Finished: instant(t.Finished), NextAttempt: instant(t.Due),
		Attempts: t.Attempts, Stuck: !t.State.Over() && t.Attempts > 0, Branches: len(t.Branches), Verdict: Verdict(t, now),
	}
	for i := range t.Branches {
		if t.Branches[i].State == store.BranchSucceeded {
			s.Done++
		}
	}
	return s
}

func transactionOf(t *store.Transaction, now time.Time) Transaction {
	o := &t.Options
	v := Transaction{
		Summary: summaryOf(t, now), Reason: t.Reason, Result: t.Result, Protocol: t.Protocol, QueryPrepared: withoutPassword(t.QueryPrepared),
		Options: Options{
			Wait: o.Wait, Concurrent: o.Concurrent, TimeoutToFail: o.TimeoutToFail.Seconds(), RetryInterval: o.RetryInterval.Seconds(),
			RequestTimeout: o.RequestTimeout.Seconds(), RetryLimit: o.RetryLimit, Delay: o.Delay.Seconds(),
			Headers: append([]string{}, slices.Sorted(maps.Keys(o.Headers))...),
		},
		List: make([]Branch, 0, len(t.Branches)), Version: t.Version,
	}
	for i := range t.Branches {
		b := &t.Branches[i]
		v.List = append(v.List, Branch{
			ID: b.ID, Op: b.Op.String(), URL: withoutPassword(b.URL), State: b.State.String(), Called: instant(b.Called),
			Finished: instant(b.Finished), Error: b.Error, PayloadBytes: len(b.Payload),
		})
	}
	v.Timeline = timeline(t)
	return v
}

// timeline puts what is known into its order.
func timeline(t *store.Transaction) []Event {
	events := []Event{{At: t.Created.UTC(), Event: "created"}}
	for i := range t.Branches {
		b := &t.Branches[i]
		if !b.Called.IsZero() {
			events = append(events, Event{At: b.Called.UTC(), Event: "called", Branch: b.ID, Op: b.Op.String(), Text: place(b.URL)})
		}
		if b.Finished.IsZero() {
			continue
		}
		e := Event{At: b.Finished.UTC(), Event: "succeeded", Branch: b.ID, Op: b.Op.String()}
		if b.State == store.BranchFailed {
			e.Event, e.Text = "failed", b.Error
		}
		events = append(events, e)
	}
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	switch {
	case !t.Finished.IsZero():
		events = append(events, Event{At: t.Finished.UTC(), Event: "finished", Text: t.State.String()})
	case !t.Due.IsZero():
		events = append(events, Event{At: t.Due.UTC(), Event: "next_attempt"})
	}
	return events
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// withoutPassword hides the password that a caller put into an address.
func withoutPassword(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	return u.Redacted()
}
