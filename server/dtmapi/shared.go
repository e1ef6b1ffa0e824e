package dtmapi

import (
	"errors"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

// What dtm's gRPC protocol has in common with this one is here for package grpcapi.

// A Transaction is what clients send to prepare, submit and abort one.
type Transaction = transaction

// Request returns what the engine understands, or an error that names the field that is
// wrong.
func (t *transaction) Request() (engine.Request, error) { return t.request() }

// A Registration is what clients send to register a branch.
type Registration = registration

// Branches returns the branches as the engine keeps them, or an error that names the
// field that is wrong.
func (r *registration) Branches() ([]store.Branch, error) { return r.branches() }

// NewGID returns an identifier that nobody else has.
func NewGID() string { return newGID() }

// CheckTopic reports what is wrong with a subscription.
func CheckTopic(topic string, s store.Subscriber) error { return checkTopic(topic, s) }

// SubscribersMax is how many may subscribe to one topic.
const SubscribersMax = subscribersMax

// InWords puts what the engine said into dtm's words. What it said is wrapped.
func InWords(err error, gid string) error {
	var state *engine.StateError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &state):
		switch state.Request {
		case "submit":
			return cannotSubmit(state)
		case "abort":
			return cannotAbort(state)
		case "register":
			return cannotRegister(state)
		}
		return cannotPrepare(state)
	}
	return &told{in(err, gid, cannotPrepare), err}
}

type told struct{ words, cause error }

func (t *told) Error() string { return t.words.Error() }

func (t *told) Unwrap() []error { return []error{t.words, t.cause} }

// Refused reports whether an error of InWords is a definite no: it will not change.
func Refused(err error) bool {
	var no refusal
	return errors.As(err, &no)
}

// Ongoing reports whether an error of InWords says that there is no result yet.
func Ongoing(err error) bool { return errors.Is(err, errNotOver) }
