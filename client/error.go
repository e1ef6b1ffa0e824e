package client

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The kinds of errors. A participant returns ErrFailed or ErrOngoing, wrapped or bare,
// to give one of the agreed answers; whatever else it returns makes the server ask again.
var (
	// ErrFailed: it did not succeed and will not. Of a transaction: what had been done
	// is undone, or being undone.
	ErrFailed = errors.New("failed")

	// ErrOngoing: it is decided, or may be, and not over. It goes on by itself.
	ErrOngoing = errors.New("not over yet")

	// ErrUnknown: there was no answer, or none that decides. The request may have been
	// carried out: repeat it, or ask [Client.Status].
	ErrUnknown = errors.New("outcome not known")

	// ErrMixed: one part is done, and another will never be, because somebody ended the
	// transaction by force.
	ErrMixed = errors.New("mixed outcome")

	// ErrRefused: the state of the transaction does not allow it. Nothing has changed.
	ErrRefused = errors.New("refused")

	// ErrExists: a branch of that id is registered.
	ErrExists = errors.New("exists")

	// ErrNotFound: there is no such transaction, or no more.
	ErrNotFound = errors.New("no such transaction")

	// ErrInvalid: the request is wrong in itself. Repeating it does not help.
	ErrInvalid = errors.New("invalid request")

	// ErrDenied: the server wants another token, or forbids the address of a branch.
	ErrDenied = errors.New("denied")
)

// An Error is what became of a request. errors.Is finds its Kind, and what Err wraps but
// for the kinds there: an error is of one kind, whatever its causes were of.
type Error struct {
	Op   string // "prepare", "submit", "abort", "register", "call", ...
	GID  string
	URL  string // of the participant that was called, without its query; empty for the server
	Kind error  // one of the Err variables of this package
	Text string // what was answered, cut to 1 KiB; never what was sent
	Err  error  // the cause on this side; may be nil

	// State is that of the transaction, if the answer tells it: of a refusal.
	State State
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("client: " + e.Op)
	if e.GID != "" {
		b.WriteString(" " + e.GID)
	}
	if e.URL != "" {
		b.WriteString(" at " + e.URL)
	}
	fmt.Fprintf(&b, ": %v", e.Kind)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Text != "" {
		b.WriteString(": " + e.Text)
	}
	return b.String()
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, cause{e.Err}}
}

// A cause is an error whose kinds are not found in it: a participant's refusal is no
// failure of a transaction that somebody else has submitted.
type cause struct{ error }

// Is finds what the cause wraps, unless it is a kind.
func (c cause) Is(target error) bool {
	return !slices.Contains(kinds, target) && errors.Is(c.error, target)
}

// As finds what the cause wraps.
func (c cause) As(target any) bool { return errors.As(c.error, target) }

// kinds are all there are, those first that decide when an error is of several.
var kinds = []error{ErrFailed, ErrOngoing, ErrUnknown, ErrMixed, ErrRefused, ErrExists, ErrNotFound, ErrInvalid, ErrDenied}

// kindOf returns the kind of an error; nil if it has none.
func kindOf(err error) error {
	for _, k := range kinds {
		if errors.Is(err, k) {
			return k
		}
	}
	return nil
}

// The agreed answers of participants, in HTTP.
const (
	statusFailed  = http.StatusConflict
	statusOngoing = http.StatusTooEarly
	resultDone    = "SUCCESS"
	resultFailed  = "FAILURE"
	resultOngoing = "ONGOING"
)

// stateIn finds the state in the words with which servers refuse a request. They begin
// with it: further on a participant may have written.
func stateIn(text string) State {
	if after, ok := strings.CutPrefix(text, "trans type: '"); ok { // of an abort
		_, text, _ = strings.Cut(after, "' ")
	}
	after, ok := strings.CutPrefix(text, "current status '")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(after, "'")
	switch s := State(name); s {
	case Prepared, Submitted, Aborting, Succeeded, Failed:
		return s
	}
	return ""
}

// Refused makes the error of a server's refusal, with the state that its words tell.
func Refused(op, gid, text string) *Error {
	return &Error{Op: op, GID: gid, Kind: ErrRefused, Text: clip(text), State: stateIn(text)}
}

const textMax = 1024 // bytes of foreign text in an Error

// clip makes a text fit for an Error and for the wire: participants may answer bytes that
// are no text.
func clip(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > textMax {
		s = s[:textMax] + " ..."
	}
	return strings.ToValidUTF8(s, "")
}
