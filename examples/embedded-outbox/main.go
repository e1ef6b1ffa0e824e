// Command embedded-outbox is one program without a server: an order is stored in its
// database and, if that commits, a parcel is sent by a function of the program. The
// engine that sees to it runs in the program, and keeps what it knows in a directory.
//
//	go run ./examples/embedded-outbox --order lamp
//	go run ./examples/embedded-outbox --order chair --kill
//	go run ./examples/embedded-outbox
//
// With --kill the program dies after the order is committed, before the parcel is on its
// way. When it is started again, the engine asks the database what became of the order,
// and the parcel is sent: once. Everything is in --dir.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // database/sql driver "sqlite"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/inprocess"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store/embedded"
)

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", filepath.Join(os.TempDir(), "troth-embedded-outbox"), "`directory` of the databases and of the engine")
	order := flag.String("order", "", "what is ordered; nothing: what is not finished is")
	kill := flag.Bool("kill", false, "die after the commit, before the message is submitted")
	flag.Parse()
	if err := run(context.Background(), *dir, *order, *kill); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, dir, order string, kill bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	shop, err := openDB(ctx, dir, "shop", "CREATE TABLE IF NOT EXISTS orders (gid TEXT PRIMARY KEY, item TEXT NOT NULL)")
	if err != nil {
		return err
	}
	defer func() { _ = shop.DB.Close() }()
	warehouse, err := openDB(ctx, dir, "warehouse", "CREATE TABLE IF NOT EXISTS parcel (item TEXT NOT NULL)")
	if err != nil {
		return err
	}
	defer func() { _ = warehouse.DB.Close() }()

	kept, err := embedded.Open(ctx, filepath.Join(dir, "engine"), nil)
	if err != nil {
		return err
	}
	defer func() { _ = kept.Close(ctx) }()
	e, err := engine.Open(ctx, kept, engine.Config{Funcs: map[string]engine.Func{
		"ordered": inprocess.QueryPrepared(shop), // did the order commit?
		"send":    func(ctx context.Context, call engine.Call) error { return send(ctx, warehouse, call) },
	}})
	if err != nil {
		return err
	}
	defer func() { _ = e.Close(ctx) }()
	transport := inprocess.New(e)
	if kill {
		transport = deadly{transport}
	}
	c, err := client.New(client.Config{Transport: transport})
	if err != nil {
		return err
	}

	if order != "" {
		if err := place(ctx, c, shop, order); err != nil {
			return err
		}
	}
	if err := awaitLast(ctx, c, shop.DB); err != nil {
		return err
	}
	return tell(ctx, shop.DB, warehouse.DB)
}

// place stores an order and has a parcel sent: both, or neither.
func place(ctx context.Context, c *client.Client, shop client.Outbox, item string) error {
	// The engine asks about a message that is not submitted, after 35 s if we do not say
	// otherwise.
	m := c.Message(client.TimeoutToFail(3*time.Second)).Add("func://send", item)
	return m.DoAndSubmit(ctx, shop, "func://ordered", func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO orders (gid, item) VALUES (?, ?)", m.GID(), item)
		return err
	})
}

// send is the branch. The barrier is in the warehouse's database: a parcel is sent once,
// however often the engine calls.
func send(ctx context.Context, warehouse client.Outbox, call engine.Call) error {
	var item string
	if err := json.Unmarshal(call.Payload, &item); err != nil {
		return err
	}
	step, err := inprocess.Step(call)
	if err != nil {
		return err
	}
	return warehouse.Barrier.Run(ctx, warehouse.DB, step, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO parcel (item) VALUES (?)", item)
		return err
	})
}

// awaitLast waits until the last order's parcel is sent. Names sort by their age.
func awaitLast(ctx context.Context, c *client.Client, shop *sql.DB) error {
	var gid sql.NullString
	if err := shop.QueryRowContext(ctx, "SELECT max(gid) FROM orders").Scan(&gid); err != nil || !gid.Valid {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return c.Await(ctx, gid.String)
}

func tell(ctx context.Context, shop, warehouse *sql.DB) error {
	var orders, parcels string
	if err := shop.QueryRowContext(ctx, "SELECT coalesce(group_concat(item ORDER BY item), 'none') FROM orders").Scan(&orders); err != nil {
		return err
	}
	if err := warehouse.QueryRowContext(ctx, "SELECT coalesce(group_concat(item ORDER BY item), 'none') FROM parcel").Scan(&parcels); err != nil {
		return err
	}
	fmt.Printf("orders: %s; parcels: %s\n", orders, parcels)
	return nil
}

// openDB opens a database with a table and the barrier.
func openDB(ctx context.Context, dir, name, table string) (o client.Outbox, err error) {
	o.DB, err = sql.Open("sqlite", "file:"+filepath.Join(dir, name+".db")+"?_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		return o, err
	}
	if _, err := o.DB.ExecContext(ctx, table); err != nil {
		return o, errors.Join(err, o.DB.Close())
	}
	if o.Barrier, err = barrier.NewTable(barrier.SQLite, nil); err == nil {
		err = o.Barrier.Create(ctx, o.DB)
	}
	if err != nil {
		return o, errors.Join(err, o.DB.Close())
	}
	return o, nil
}

// deadly ends this process with SIGKILL instead of submitting.
type deadly struct{ client.Transport }

// Submit implements client.Transport.
func (deadly) Submit(context.Context, *client.Transaction) error {
	fmt.Println("killed: the order is committed, and no parcel is on its way")
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {} // the signal is on its way
}
