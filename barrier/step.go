package barrier

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Op is what a call asks of a participant.
type Op string

// The operations that a step may have.
const (
	Action     Op = "action"     // of saga, message and workflow
	Compensate Op = "compensate" // undoes an Action of a saga
	Try        Op = "try"        // of TCC
	Confirm    Op = "confirm"
	Cancel     Op = "cancel"   // undoes a Try
	Commit     Op = "commit"   // of a workflow
	Rollback   Op = "rollback" // undoes an Action of a workflow
	Message    Op = "msg"      // the local transaction of a message
)

// undoes returns the operation that op is the undoing of; "" if it is of none.
func (op Op) undoes() Op {
	switch op {
	case Compensate, Rollback:
		return Action
	case Cancel:
		return Try
	case Action, Try, Confirm, Commit, Message:
	}
	return ""
}

func (op Op) known() bool {
	switch op {
	case Action, Compensate, Try, Confirm, Cancel, Commit, Rollback, Message:
		return true
	}
	return false
}

// Limits of a step's names, those of dtm's table.
const (
	gidMax       = 128 // bytes
	branchMax    = 128
	transTypeMax = 45
	partMax      = 99
)

// messageBranch is the branch id of a message's own local transaction.
const messageBranch = "00"

// A Step names one operation of one branch of a global transaction. It is a plain
// value: copies are the same step. Make it with [NewStep], [FromRequest] or
// [FromMetadata], which check it.
type Step struct {
	TransType string // "saga", "tcc", "msg", "workflow", "xa"; kept for people who read the table
	GID       string
	Branch    string
	Op        Op

	part int // counts from 0
}

// NewStep returns the step of those names. Each is needed; a gid and a branch have at
// most 128 bytes, a transaction type 45, without control characters and without spaces
// around them, which databases compare differently. All errors are [ErrInvalid].
func NewStep(transType, gid, branch string, op Op) (Step, error) {
	s := Step{TransType: transType, GID: gid, Branch: branch, Op: op}
	return s, s.validate()
}

// FromRequest returns the step that a request of the server, or of a client that calls
// a branch, is about. It reads the query parameters trans_type, gid, branch_id and op.
func FromRequest(r *http.Request) (Step, error) {
	if r == nil || r.URL == nil {
		return Step{}, invalid("request is nil")
	}
	return FromValues(r.URL.Query())
}

// FromValues is [FromRequest] for parameters at hand.
func FromValues(v url.Values) (Step, error) {
	return NewStep(v.Get("trans_type"), v.Get("gid"), v.Get("branch_id"), Op(v.Get("op")))
}

// FromMetadata is [FromRequest] for gRPC: it takes the incoming metadata (of type
// metadata.MD), and reads dtm-trans_type, dtm-gid, dtm-branch_id and dtm-op.
func FromMetadata(md map[string][]string) (Step, error) {
	get := func(key string) string {
		if v := md["dtm-"+key]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	return NewStep(get("trans_type"), get("gid"), get("branch_id"), Op(get("op")))
}

// ForMessage returns the step that is the local transaction of a message: branch 00,
// op msg. Its [Table.Run] and the message's [Table.QueryPrepared] exclude each other.
func ForMessage(gid string) (Step, error) {
	return NewStep("msg", gid, messageBranch, Message)
}

// Part returns the n-th part of the step, for handlers with more than one transaction over
// one barrier table; n counts from 1, which is the step itself, to 99. An action and its
// compensation must number what belongs together alike. Other numbers give a step that
// every use refuses.
func (s Step) Part(n int) Step {
	s.part = n - 1
	return s
}

// barrierID is the part as it is stored.
func (s Step) barrierID() string { return fmt.Sprintf("%02d", s.part+1) }

// String names the step for logs and errors.
func (s Step) String() string {
	text := fmt.Sprintf("%s %q branch %q %s", s.TransType, s.GID, s.Branch, s.Op)
	if s.part != 0 {
		text += " part " + s.barrierID()
	}
	return text
}

// Key returns the step's name in stores that have no table: the four columns of the
// unique key, joined as dtm does it, for this operation and for the one that it undoes,
// which is "" if it undoes none.
func (s Step) Key() (own, undone string, err error) {
	if err := s.validate(); err != nil {
		return "", "", err
	}
	key := func(op Op) string { return s.GID + "-" + s.Branch + "-" + string(op) + "-" + s.barrierID() }
	if o := s.Op.undoes(); o != "" {
		undone = key(o)
	}
	return key(s.Op), undone, nil
}

func (s Step) validate() error {
	if err := validName("gid", s.GID, gidMax); err != nil {
		return err
	}
	if err := validName("branch_id", s.Branch, branchMax); err != nil {
		return err
	}
	if err := validName("trans_type", s.TransType, transTypeMax); err != nil {
		return err
	}
	switch {
	case s.Op == "":
		return invalid("op is empty")
	case !s.Op.known():
		return invalid("op %q: want action, compensate, try, confirm, cancel, commit, rollback or msg", cut(string(s.Op)))
	case s.part < 0 || s.part >= partMax:
		return invalid("part %d: want 1 to %d", s.part+1, partMax)
	}
	return nil
}

func validName(field, name string, bytesMax int) error {
	switch {
	case name == "":
		return invalid("%s is empty", field)
	case len(name) > bytesMax:
		return invalid("%s has %d bytes: at most %d are possible", field, len(name), bytesMax)
	case !utf8.ValidString(name):
		return invalid("%s is not UTF-8", field)
	case strings.ContainsFunc(name, unicode.IsControl):
		return invalid("%s has control characters", field)
	case strings.TrimSpace(name) != name:
		return invalid("%s begins or ends with a space", field)
	}
	return nil
}

func cut(s string) string {
	if len(s) > transTypeMax {
		return s[:transTypeMax]
	}
	return s
}
