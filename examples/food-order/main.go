// Command food-order sells meals that come to the door. A store has packets of
// food, a delivery service has agents, each in a database of its own. An order
// needs one of each, or it gets none: no packet goes cold without an agent, and no
// agent rides without a packet.
//
//	go run ./examples/food-order --store postgres://user@host/store --delivery postgres://user@host/delivery --orders 30 --packets 20 --agents 12
//
// All orders come at once, and there are more of them than packets or agents. In
// the end the program counts: as many packets assigned as agents, as orders served.
// The tables, food_packet and food_agent, are made anew in each run.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log"
	"sync"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/postgres"
)

func main() {
	log.SetFlags(0)
	storeURL := flag.String("store", "", "`URL` of the store's PostgreSQL database")
	deliveryURL := flag.String("delivery", "", "`URL` of the delivery service's PostgreSQL database")
	orders := flag.Int("orders", 30, "how many orders come at once")
	packets := flag.Int("packets", 20, "how many packets of food the store has")
	agents := flag.Int("agents", 12, "how many agents the delivery service has")
	flag.Parse()
	if err := run(context.Background(), *storeURL, *deliveryURL, *orders, *packets, *agents); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, storeURL, deliveryURL string, orders, packets, agents int) error {
	if storeURL == "" || deliveryURL == "" {
		return errors.New("name both databases: --store postgres://… --delivery postgres://…")
	}
	storeDB, err := openDB(ctx, storeURL, "food_packet", packets)
	if err != nil {
		return fmt.Errorf("--store: %w", err)
	}
	defer func() { _ = storeDB.Close() }()
	deliveryDB, err := openDB(ctx, deliveryURL, "food_agent", agents)
	if err != nil {
		return fmt.Errorf("--delivery: %w", err)
	}
	defer func() { _ = deliveryDB.Close() }()

	store, delivery := postgres.New("store", storeDB), postgres.New("delivery", deliveryDB)
	mgr, err := troth.Open(ctx, troth.Config{Domain: "food", Resources: []troth.Resource{store, delivery}})
	if err != nil {
		return err
	}
	defer func() { _ = mgr.Close(ctx) }()

	served, err := placeAll(orders, func(order int) error { return place(ctx, mgr, store, delivery, order) })
	if err != nil {
		return err
	}
	return count(ctx, storeDB, deliveryDB, served)
}

var (
	errNoPacket = errors.New("no packet of food is left")
	errNoAgent  = errors.New("no agent is free")
)

// place serves one order, or leaves everything as it was.
func place(ctx context.Context, mgr *troth.Manager, store, delivery *postgres.Resource, order int) error {
	return mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		packets, err := store.DB(ctx, tx)
		if err != nil {
			return err
		}
		if err := assign(ctx, packets, "food_packet", order, errNoPacket); err != nil {
			return err
		}
		agents, err := delivery.DB(ctx, tx)
		if err != nil {
			return err
		}
		return assign(ctx, agents, "food_agent", order, errNoAgent)
	})
}

// assign reserves a free row, passing over those that other orders have reserved,
// and gives it to the order. Until the transaction commits nobody sees it, and if
// it does not, the row is free again.
func assign(ctx context.Context, db *sql.DB, table string, order int, none error) error {
	var id int
	err := db.QueryRowContext(ctx, "SELECT id FROM "+table+" WHERE for_order IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED").Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return none
	}
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "UPDATE "+table+" SET for_order = $1 WHERE id = $2", order, id)
	return err
}

// placeAll places all orders at once, and returns how many were served. That
// nothing is left is an answer; any other error is one.
func placeAll(orders int, place func(order int) error) (served int, err error) {
	var (
		wg                sync.WaitGroup
		mu                sync.Mutex
		noPacket, noAgent int
	)
	for order := 1; order <= orders; order++ {
		wg.Go(func() {
			failed := place(order)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case failed == nil:
				served++
			case errors.Is(failed, errNoPacket):
				noPacket++
			case errors.Is(failed, errNoAgent):
				noAgent++
			default:
				err = errors.Join(err, fmt.Errorf("order %d: %w", order, failed))
			}
		})
	}
	wg.Wait()
	fmt.Printf("%d orders: %d served, %d without a packet, %d had a packet, found no agent and gave it back\n", orders, served, noPacket, noAgent)
	return served, err
}

func count(ctx context.Context, store, delivery *sql.DB, served int) error {
	var packets, agents int
	if err := store.QueryRowContext(ctx, "SELECT count(for_order) FROM food_packet").Scan(&packets); err != nil {
		return err
	}
	if err := delivery.QueryRowContext(ctx, "SELECT count(for_order) FROM food_agent").Scan(&agents); err != nil {
		return err
	}
	fmt.Printf("in the databases: %d packets assigned, %d agents assigned, %d orders served\n", packets, agents, served)
	if packets != served || agents != served {
		return errors.New("they should be equal")
	}
	return nil
}

func openDB(ctx context.Context, url, table string, rows int) (*sql.DB, error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return nil, err
	}
	for _, statement := range []string{
		"DROP TABLE IF EXISTS " + table,
		"CREATE TABLE " + table + " (id int PRIMARY KEY, for_order int UNIQUE)",
		fmt.Sprintf("INSERT INTO %s (id) SELECT generate_series(1, %d)", table, rows),
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return db, nil
}
