package inprocess_test

import (
	"context"
	"fmt"

	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/inprocess"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store/memory"
)

// One program without a server: the branches are functions. A program that has to
// survive its own crash takes a durable store.
func Example() {
	ctx := context.Background()
	say := func(what string) engine.Func {
		return func(_ context.Context, c engine.Call) error {
			fmt.Println(what, string(c.Payload))
			return nil
		}
	}
	e, err := engine.Open(ctx, memory.New(), engine.Config{Funcs: map[string]engine.Func{
		"flight": say("book a flight to"), "noflight": say("cancel the flight to"),
		"hotel":   func(context.Context, engine.Call) error { return fmt.Errorf("no room: %w", engine.ErrFailed) },
		"nohotel": say("no hotel in"),
	}})
	if err != nil {
		panic(err)
	}
	defer func() { _ = e.Close(ctx) }()
	c, err := client.New(client.Config{Transport: inprocess.New(e)})
	if err != nil {
		panic(err)
	}
	err = c.Saga(client.GID("trip-1"), client.Wait()).
		Add("func://flight", "func://noflight", "Lisbon").
		Add("func://hotel", "func://nohotel", "Lisbon").
		Submit(ctx)
	fmt.Println(err)
	// Output:
	// book a flight to "Lisbon"
	// no hotel in "Lisbon"
	// cancel the flight to "Lisbon"
	// client: submit trip-1: failed: engine: failed: no room: engine: failed
}
