package client

import (
	"context"
	"slices"
)

// A Saga is a list of steps. Each has an action and a compensation; when an action says
// that it failed, what may have been done is undone. The server calls both; a
// compensation must not fail, and may come for an action that never arrived: use
// package barrier. A Saga is used by one goroutine.
type Saga struct {
	client *Client
	t      Transaction
	err    error // the first of building it
}

// Saga begins the description of a saga. Nothing is sent before Submit.
func (c *Client) Saga(opts ...Option) *Saga {
	return &Saga{client: c, t: Transaction{Pattern: PatternSaga, Options: optionsOf(opts)}}
}

// GID is the saga's name.
func (s *Saga) GID() string { return s.t.Options.GID }

// Add adds a step. An action is an address: "http://...", or "host:port/package.Service/Method"
// for gRPC. An empty address is a step that succeeds without a call. The payload is
// sent with both: []byte as it is, other values as JSON.
func (s *Saga) Add(action, compensate string, payload any) *Saga {
	body, err := encode(payload)
	if err != nil && s.err == nil {
		s.err = err
	}
	s.t.Steps = append(s.t.Steps, Step{Action: action, Compensate: compensate, Payload: body})
	return s
}

// Concurrent lets actions not wait for one another, but as [Saga.After] says.
func (s *Saga) Concurrent() *Saga {
	s.t.Concurrent = true
	return s
}

// After lets the action of a step wait until those of others have succeeded; when the
// saga is undone its compensation comes before theirs. Steps count from 0 in the order of
// Add. It implies Concurrent.
func (s *Saga) After(step int, others ...int) *Saga {
	if s.t.Orders == nil {
		s.t.Orders = make(map[int][]int)
	}
	s.t.Orders[step] = slices.Concat(s.t.Orders[step], others)
	return s.Concurrent()
}

// Submit hands the saga to the server, which drives it from there. nil: it is in the
// server's store; with [Wait] that every action succeeded. ErrFailed: it was or is being
// undone. ErrOngoing: not over. ErrUnknown: submit it again, or ask [Client.Status].
func (s *Saga) Submit(ctx context.Context) error {
	if s.err != nil {
		return &Error{Op: "submit", GID: s.GID(), Kind: ErrInvalid, Err: s.err}
	}
	return s.client.submit(ctx, &s.t)
}
