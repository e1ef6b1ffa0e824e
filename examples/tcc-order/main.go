// Command tcc-order sells lamps by TCC: try, confirm, cancel. An order reserves lamps at
// one service and credit at another; if both agree it takes them, else it gives back what
// was reserved. Others see what is reserved, and never an order that is half done.
//
//	go run ./cmd/troth serve     # in another terminal
//	go run ./examples/tcc-order
//
// The first order is confirmed. The second has lamps, and not enough credit: cancelled.
// In the third both have agreed, and the shop changes its mind: cancelled. Each service
// has a SQLite file of its own, removed in the end.
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
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // database/sql driver "sqlite"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

func main() {
	log.SetFlags(0)
	server := flag.String("server", "http://127.0.0.1:36789", "`URL` of the troth server")
	flag.Parse()
	err := run(context.Background(), *server)
	if errors.Is(err, client.ErrUnknown) {
		log.Printf("Does a troth server listen at %s? Start one with: go run ./cmd/troth serve", *server)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, server string) (err error) {
	dir, err := os.MkdirTemp("", "tcc-order-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	stock, err := openService(ctx, dir, "stock", "lamp", 5)
	if err != nil {
		return err
	}
	defer stock.close()
	credit, err := openService(ctx, dir, "credit", "Ada", 100)
	if err != nil {
		return err
	}
	defer credit.close()
	c, err := client.New(client.Config{Server: server})
	if err != nil {
		return err
	}
	s := &shop{client: c, stock: stock, credit: credit}
	for _, o := range []struct {
		lamps  int
		regret bool
	}{{lamps: 2}, {lamps: 3}, {lamps: 1, regret: true}} {
		fmt.Printf("\nAda orders %d lamps for %d:\n", o.lamps, o.lamps*price)
		if err := s.order(ctx, o.lamps, o.regret); err != nil {
			return err
		}
	}
	return nil
}

const price = 30

type shop struct {
	client        *client.Client
	stock, credit *service
}

// order is one transaction. The server confirms all that was tried when the function
// returns nil, and cancels it after any error, also if this process dies.
func (s *shop) order(ctx context.Context, lamps int, regret bool) error {
	var gid string
	err := s.client.TCC(ctx, func(ctx context.Context, t *client.TCC) error {
		gid = t.GID()
		if err := t.Call(ctx, s.stock.branch(lamps)); err != nil {
			return err
		}
		if err := t.Call(ctx, s.credit.branch(lamps*price)); err != nil {
			return err
		}
		if err := s.tell(ctx, "reserved: "); err != nil {
			return err
		}
		if regret {
			return fmt.Errorf("the shop has changed its mind: %w", client.ErrFailed)
		}
		return nil
	}, client.Wait())
	switch {
	case err == nil:
		return s.tell(ctx, "confirmed:")
	case errors.Is(err, client.ErrFailed):
		// Decided; the server goes on until everything is given back.
		if over := s.client.Await(ctx, gid); !errors.Is(over, client.ErrFailed) {
			return over
		}
		fmt.Println("  refused:", err)
		return s.tell(ctx, "cancelled:")
	default:
		return err
	}
}

func (s *shop) tell(ctx context.Context, when string) error {
	lamps, err := s.stock.amounts(ctx)
	if err != nil {
		return err
	}
	money, err := s.credit.amounts(ctx)
	fmt.Printf("  %s lamps %s; Ada's credit %s\n", when, lamps, money)
	return err
}

// A service has an amount of one thing: some of it free, some reserved.
type service struct {
	url     string
	db      *sql.DB
	barrier *barrier.Table
	close   func()
}

func (s *service) branch(n int) client.TCCBranch {
	return client.TCCBranch{Try: s.url + "/try", Confirm: s.url + "/confirm", Cancel: s.url + "/cancel", Payload: n}
}

// step serves one operation: one statement, in one transaction with the barrier, so that
// a call that comes twice counts once, and a cancel undoes no try that never was. What
// changes no row is refused.
func (s *service) step(statement string) http.Handler {
	return client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		var n int
		if err := call.Decode(&n); err != nil {
			return nil, err
		}
		step, err := call.Step()
		if err != nil {
			return nil, err
		}
		return nil, s.barrier.Run(ctx, s.db, step, func(ctx context.Context, tx *sql.Tx) error {
			result, err := tx.ExecContext(ctx, statement, n)
			if err != nil {
				return err // 500: nothing is known, so the server asks again
			}
			if changed, err := result.RowsAffected(); err != nil || changed == 0 {
				return errors.Join(fmt.Errorf("less than %d is free: %w", n, client.ErrFailed), err) // 409: no
			}
			return nil
		})
	})
}

func openService(ctx context.Context, dir, name, thing string, n int) (*service, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, name+".db")+"?_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	for _, statement := range []string{
		"CREATE TABLE account (thing TEXT PRIMARY KEY, free INTEGER NOT NULL, reserved INTEGER NOT NULL)",
		fmt.Sprintf("INSERT INTO account VALUES ('%s', %d, 0)", thing, n),
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	table, err := barrier.NewTable(barrier.SQLite, nil)
	if err == nil {
		err = table.Create(ctx, db)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &service{url: "http://" + l.Addr().String(), db: db, barrier: table}
	mux := http.NewServeMux()
	mux.Handle("/try", s.step("UPDATE account SET free = free - ?1, reserved = reserved + ?1 WHERE free >= ?1"))
	mux.Handle("/confirm", s.step("UPDATE account SET reserved = reserved - ?1"))
	mux.Handle("/cancel", s.step("UPDATE account SET free = free + ?1, reserved = reserved - ?1"))
	served := &http.Server{Handler: mux}
	go func() { _ = served.Serve(l) }() // until close
	s.close = func() { _ = errors.Join(served.Close(), db.Close()) }
	return s, nil
}

func (s *service) amounts(ctx context.Context) (string, error) {
	var free, reserved int
	err := s.db.QueryRowContext(ctx, "SELECT free, reserved FROM account").Scan(&free, &reserved)
	return fmt.Sprintf("%d free and %d reserved", free, reserved), err
}
