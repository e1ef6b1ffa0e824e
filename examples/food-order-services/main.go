// Command food-order-services sells meals as food-order does, but the store and the
// delivery service are services, each with a PostgreSQL database that nobody else can
// reach. An order needs a packet of food and an agent, or it gets neither.
//
//	go run ./cmd/troth serve     # in another terminal
//	go run ./examples/food-order-services --pattern tcc --store postgres://user@host/store --delivery postgres://user@host/delivery
//	go run ./examples/food-order-services --pattern xa --store postgres://user@host/store --delivery postgres://user@host/delivery
//
// By TCC (tcc.go) a service reserves a row, and is then told to confirm or to cancel. By
// XA (xa.go) it assigns the row in a transaction that it prepares, and is then told to
// commit or to roll back. All orders come at once, and there are more of them than packets
// or agents. In the end the program counts. The tables are made anew in each run.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

func main() {
	log.SetFlags(0)
	p := &program{}
	server := flag.String("server", "http://127.0.0.1:36789", "`URL` of the troth server")
	storeURL := flag.String("store", "", "`URL` of the store's PostgreSQL database")
	deliveryURL := flag.String("delivery", "", "`URL` of the delivery service's PostgreSQL database")
	flag.StringVar(&p.pattern, "pattern", "tcc", "tcc or xa")
	flag.IntVar(&p.orders, "orders", 30, "how many orders come at once")
	flag.IntVar(&p.packets, "packets", 20, "how many packets of food the store has")
	flag.IntVar(&p.agents, "agents", 12, "how many agents the delivery service has")
	flag.Parse()
	err := p.run(context.Background(), *server, *storeURL, *deliveryURL)
	if errors.Is(err, client.ErrUnknown) {
		log.Printf("Does a troth server listen at %s? Start one with: go run ./cmd/troth serve", *server)
	}
	if err != nil {
		log.Fatal(err)
	}
}

type program struct {
	pattern                 string
	orders, packets, agents int
	client                  *client.Client
	store, delivery         *service
}

func (p *program) run(ctx context.Context, server, storeURL, deliveryURL string) (err error) {
	if storeURL == "" || deliveryURL == "" {
		return errors.New("name both databases: --store postgres://… --delivery postgres://…")
	}
	place, ok := map[string]func(context.Context, int) error{"tcc": p.placeByTCC, "xa": p.placeByXA}[p.pattern]
	if !ok {
		return fmt.Errorf("--pattern %s: want tcc or xa", p.pattern)
	}
	if p.client, err = client.New(client.Config{Server: server}); err != nil {
		return err
	}
	if p.store, err = p.openService(ctx, "food_packet", storeURL, p.packets); err != nil {
		return fmt.Errorf("--store: %w", err)
	}
	defer func() { err = errors.Join(err, p.store.close()) }()
	if p.delivery, err = p.openService(ctx, "food_agent", deliveryURL, p.agents); err != nil {
		return fmt.Errorf("--delivery: %w", err)
	}
	defer func() { err = errors.Join(err, p.delivery.close()) }()

	served, err := p.placeAll(func(order int) error { return place(ctx, order) })
	if err != nil {
		return err
	}
	return p.count(ctx, served)
}

// placeAll places all orders at once, and returns how many were served.
func (p *program) placeAll(place func(order int) error) (served int, err error) {
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		refused int
	)
	for order := 1; order <= p.orders; order++ {
		wg.Go(func() {
			failed := place(order)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case failed == nil:
				served++
			case errors.Is(failed, client.ErrFailed): // no packet, or no agent: an answer
				refused++
			default:
				err = errors.Join(err, fmt.Errorf("order %d: %w", order, failed))
			}
		})
	}
	wg.Wait()
	fmt.Printf("%d orders by %s: %d served, %d refused\n", p.orders, p.pattern, served, refused)
	return served, err
}

// await is for orders that were refused: what they had is given back by the server, also
// if that takes longer than the answer did.
func (p *program) await(ctx context.Context, gid string, placed error) error {
	if !errors.Is(placed, client.ErrFailed) && !errors.Is(placed, client.ErrOngoing) {
		return placed
	}
	return p.client.Await(ctx, gid)
}

func (p *program) count(ctx context.Context, served int) error {
	var assigned, reserved [2]int
	for i, s := range []*service{p.store, p.delivery} {
		query := "SELECT count(for_order), count(reserved_for) FROM " + s.table
		if err := s.db.QueryRowContext(ctx, query).Scan(&assigned[i], &reserved[i]); err != nil {
			return err
		}
	}
	fmt.Printf("in the databases: %d packets assigned, %d agents assigned, %d orders served\n", assigned[0], assigned[1], served)
	if assigned != [2]int{served, served} {
		return errors.New("they should be equal")
	}
	if reserved != [2]int{} {
		return fmt.Errorf("%d packets and %d agents are still reserved", reserved[0], reserved[1])
	}
	return nil
}

// A service has rows of one kind to give away.
type service struct {
	table   string
	url     string
	db      *sql.DB
	barrier *barrier.Table
	close   func() error
}

// openService makes the tables and serves both patterns.
func (p *program) openService(ctx context.Context, table, url string, rows int) (_ *service, err error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	for _, statement := range []string{
		"DROP TABLE IF EXISTS " + table,
		"CREATE TABLE " + table + " (id int PRIMARY KEY, reserved_for int UNIQUE, for_order int UNIQUE)",
		fmt.Sprintf("INSERT INTO %s (id) SELECT generate_series(1, %d)", table, rows),
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, err
		}
	}
	s := &service{table: table, db: db}
	if s.barrier, err = barrier.NewTable(barrier.PostgreSQL, nil); err != nil {
		return nil, err
	}
	if err := s.barrier.Create(ctx, db); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	s.routeTCC(mux)
	closeXA := func(context.Context) error { return nil }
	if p.pattern == "xa" { // only then must the database be able to prepare
		if closeXA, err = s.routeXA(ctx, mux, p.client); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, closeXA(ctx))
	}
	s.url = "http://" + l.Addr().String()
	served := &http.Server{Handler: mux}
	go func() { _ = served.Serve(l) }() // until close
	s.close = func() error { return errors.Join(served.Close(), closeXA(ctx), db.Close()) }
	return s, nil
}
