package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"

	"github.com/troth-tx/troth/client"
)

// A trip is booked, or what was booked of it is cancelled.
func ExampleClient_Saga() {
	server, stop := startServer()
	defer stop()
	agency := httptest.NewServer(client.Handler(func(_ context.Context, call *client.Call) (any, error) {
		fmt.Println(call.Branch, call.Op)
		if call.Branch == "02" && call.Op == client.OpAction {
			return nil, fmt.Errorf("no room: %w", client.ErrFailed) // 409: it will not succeed
		}
		return nil, nil
	}))
	defer agency.Close()

	c, err := client.New(client.Config{Server: server})
	check(err)
	trip := map[string]string{"to": "Lisbon"}
	err = c.Saga(client.Wait()).
		Add(agency.URL+"/flight/book", agency.URL+"/flight/cancel", trip).
		Add(agency.URL+"/hotel/book", agency.URL+"/hotel/cancel", trip).
		Submit(context.Background())
	fmt.Println(errors.Is(err, client.ErrFailed))
	// Output:
	// 01 action
	// 02 action
	// 02 compensate
	// 01 compensate
	// true
}
