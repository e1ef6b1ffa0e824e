package client_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/troth-tx/troth/client"
)

// A transaction as a function. If this process dies the server has it called again, and
// what was done is not done twice.
func ExampleWorkflows() {
	server, stop := startServer()
	defer stop()
	bank, done := openBank()
	defer done()
	other := httptest.NewServer(client.Handler(func(context.Context, *client.Call) (any, error) {
		return nil, client.ErrFailed
	}))
	defer other.Close()

	c, err := client.New(client.Config{Server: server})
	check(err)
	mux := http.NewServeMux()
	self := httptest.NewServer(mux)
	defer self.Close()
	workflows := c.Workflows(self.URL + "/workflows")
	mux.Handle("/workflows", workflows.Handler())

	change := func(by int) func(ctx context.Context, tx *sql.Tx) error {
		return func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + ? WHERE id = 1", by)
			return err
		}
	}
	check(workflows.Register("transfer", func(ctx context.Context, w *client.Workflow, input []byte) ([]byte, error) {
		out := w.Step("out").OnRollback(func(ctx context.Context, s *client.WorkflowStep) error {
			return s.Local(ctx, bank, change(+30))
		})
		if err := out.Local(ctx, bank, change(-30)); err != nil {
			return nil, err
		}
		fmt.Println("after the first step:", balance(bank))
		return w.Step("in").Post(ctx, other.URL+"/in", input) // it refuses
	}))
	_, err = workflows.Execute(context.Background(), "transfer", []byte("30"), client.GID("transfer-7"))
	fmt.Println("refused:", errors.Is(err, client.ErrFailed))
	fmt.Println("in the end:", balance(bank))
	// Output:
	// after the first step: 70
	// refused: true
	// in the end: 100
}
