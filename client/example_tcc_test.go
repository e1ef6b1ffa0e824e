package client_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/troth-tx/troth/client"
)

// An order reserves stock and credit, and then takes both.
func ExampleClient_TCC() {
	server, stop := startServer()
	defer stop()
	shop := httptest.NewServer(client.Handler(func(_ context.Context, call *client.Call) (any, error) {
		if call.Op == client.OpTry {
			return map[string]string{"reserved": call.Branch}, nil
		}
		return nil, nil
	}))
	defer shop.Close()

	c, err := client.New(client.Config{Server: server})
	check(err)
	err = c.TCC(context.Background(), func(ctx context.Context, tcc *client.TCC) error {
		for _, what := range []string{"stock", "credit"} {
			var reply struct{ Reserved string }
			err := tcc.Call(ctx, client.TCCBranch{
				Try: shop.URL + "/try", Confirm: shop.URL + "/confirm", Cancel: shop.URL + "/cancel", Payload: what, Reply: &reply,
			})
			if err != nil {
				return err // all that was tried is cancelled
			}
			fmt.Println(what, "is reserved as", reply.Reserved)
		}
		return nil // all is confirmed
	}, client.Wait())
	fmt.Println(err)
	// Output:
	// stock is reserved as 01
	// credit is reserved as 02
	// <nil>
}
