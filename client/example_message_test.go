package client_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/troth-tx/troth/client"
)

// A transfer between two banks: A's withdrawal and the message to B happen both or
// neither, whenever this process dies; B's deposit happens once, however often the
// message comes.
func ExampleMessage_DoAndSubmit() {
	server, stop := startServer()
	defer stop()
	a, doneA := openBank()
	defer doneA()
	b, doneB := openBank()
	defer doneB()

	// Bank B.
	deposit := client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		var amount int
		if err := call.Decode(&amount); err != nil {
			return nil, err
		}
		step, err := call.Step()
		if err != nil {
			return nil, err
		}
		return nil, b.Barrier.Run(ctx, b.DB, step, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + ? WHERE id = 1", amount)
			return err
		})
	})
	bankB := httptest.NewServer(deposit)
	defer bankB.Close()

	// Bank A.
	mux := http.NewServeMux()
	mux.Handle("/committed", client.QueryPrepared(a))
	bankA := httptest.NewServer(mux)
	defer bankA.Close()

	c, err := client.New(client.Config{Server: server})
	check(err)
	err = c.Message(client.Wait()).
		Add(bankB.URL+"/deposit", 30).
		DoAndSubmit(context.Background(), a, bankA.URL+"/committed", func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance - 30 WHERE id = 1")
			return err
		})
	fmt.Println(err, balance(a), balance(b))
	// Output: <nil> 70 130
}
