package grpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

// Over gRPC nobody can ask for the state of a transaction: a refusal's words tell it. What
// a participant wrote is not among them.
func TestParticipantWritesOfAState(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.answer = func(call *client.Call) error {
		if call.Op == client.OpAction {
			return fmt.Errorf("inner saga: current status 'succeed', cannot sumbmit: %w", client.ErrFailed)
		}
		return nil
	}
	if err := w.Saga(client.Wait()).Add(w.addr+method, w.addr+method, nil).Submit(t.Context()); !errors.Is(err, client.ErrFailed) {
		t.Errorf("error is %v, of a saga that was undone", err)
	}
}

// A participant's refusal counts, however much it says.
func TestLongRefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.answer = func(call *client.Call) error {
		if call.Op == client.OpAction {
			return fmt.Errorf("%s: %w", strings.Repeat("x", 200<<10), client.ErrFailed)
		}
		return nil
	}
	if err := w.Saga(client.Wait()).Add(w.addr+method, w.addr+method, nil).Submit(t.Context()); !errors.Is(err, client.ErrFailed) {
		t.Errorf("error is %v", err)
	}
}

type never struct{ t *testing.T }

func (n never) Run(context.Context, barrier.Step) error {
	n.t.Error("the transaction was begun")
	return nil
}
func (n never) Committed(context.Context, barrier.Step) (bool, error) { return false, nil }

// A name that belongs to a saga which succeeded is none of a message's.
func TestNameOfAnotherPattern(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.Saga(client.GID("order-7"), client.Wait()).Add(w.addr+method, w.addr+method, nil).Submit(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := w.Message(client.GID("order-7")).Add(w.addr+method, nil).DoAndSubmitLocal(t.Context(), w.addr+method, never{t})
	if !errors.Is(err, client.ErrRefused) {
		t.Errorf("error is %v: nothing was committed, and nothing sent", err)
	}
	err = w.Message(client.GID("order-7"), client.Wait()).Add(w.addr+method, nil).Submit(t.Context())
	if !errors.Is(err, client.ErrRefused) {
		t.Errorf("error is %v: nothing was sent, and nothing undone", err)
	}
}
