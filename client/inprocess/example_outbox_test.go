package inprocess_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	_ "modernc.org/sqlite" // driver "sqlite"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/inprocess"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store/memory"
)

// A message of one program: its outbox is in the program's own database, and a function
// delivers it. A program that has to survive its own crash takes a durable store.
func ExampleQueryPrepared() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "bank")
	check(err)
	db, err := sql.Open("sqlite", "file:"+dir+"/bank.db?_txlock=immediate")
	check(err)
	defer func() { check(errors.Join(db.Close(), os.RemoveAll(dir))) }()
	_, err = db.ExecContext(ctx, "CREATE TABLE orders (id INTEGER)")
	check(err)
	table, err := barrier.NewTable(barrier.SQLite, nil)
	check(err)
	check(table.Create(ctx, db))
	outbox := client.Outbox{DB: db, Barrier: table}

	e, err := engine.Open(ctx, memory.New(), engine.Config{Funcs: map[string]engine.Func{
		"committed": inprocess.QueryPrepared(outbox),
		"mail": func(_ context.Context, c engine.Call) error {
			fmt.Println("mail to", string(c.Payload))
			return nil
		},
	}})
	check(err)
	defer func() { check(e.Close(ctx)) }()
	c, err := client.New(client.Config{Transport: inprocess.New(e)})
	check(err)

	for _, customer := range []string{"ann", "bob"} {
		err := c.Message(client.Wait()).Add("func://mail", customer).
			DoAndSubmit(ctx, outbox, "func://committed", func(ctx context.Context, tx *sql.Tx) error {
				if customer == "bob" {
					return errors.New("no credit")
				}
				_, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (1)")
				return err
			})
		fmt.Println(customer, "ordered:", err == nil)
	}
	// Output:
	// mail to "ann"
	// ann ordered: true
	// bob ordered: false
}

func check(err error) {
	if err != nil {
		panic(fmt.Sprint("example: ", err))
	}
}
