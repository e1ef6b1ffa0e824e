package xabranch_test

import (
	"context"
	"database/sql"
	"log"
	"net/http"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/xabranch"
	"github.com/troth-tx/troth/postgres"
)

// A service that sells, as a branch of somebody's XA transaction.
func Example() {
	ctx := context.Background()
	db, err := sql.Open("pgx", "postgres://localhost/shop")
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(client.Config{Server: "http://127.0.0.1:36789"})
	if err != nil {
		log.Fatal(err)
	}
	table, err := barrier.NewTable(barrier.PostgreSQL, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := table.Create(ctx, db); err != nil {
		log.Fatal(err)
	}
	service, err := xabranch.Open(ctx, xabranch.Config{Client: c, Resource: postgres.New("orders", db), DB: db, Barrier: table})
	if err != nil {
		log.Fatal(err) // it names the setting that is wrong, and the statement that mends it
	}
	http.Handle("/sell", service.Handler(func(ctx context.Context, db *sql.DB, call *client.Call) (any, error) {
		result, err := db.ExecContext(ctx, "UPDATE stock SET n = n - 1 WHERE id = 1 AND n > 0")
		if err != nil {
			return nil, err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return nil, client.ErrFailed // sold out: the whole transaction is rolled back
		}
		return nil, nil
	}))
	log.Fatal(http.ListenAndServe(":8080", nil))
}
