// Command bank moves money between two PostgreSQL databases in one atomic
// transaction: whatever is killed at whatever instant, the money is in one place.
//
//	go run ./examples/bank --from postgres://user@host/athos --to postgres://user@host/porthos --amount 100
//
// Both servers need max_prepared_transactions > 0. The tables are made if they are
// missing: Alice begins with 200, Bob with 0, and no balance may fall below 0.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/postgres"
)

func main() {
	log.SetFlags(0)
	fromURL := flag.String("from", "", "`URL` of the PostgreSQL database with Alice's account")
	toURL := flag.String("to", "", "`URL` of the PostgreSQL database with Bob's account")
	amount := flag.Int64("amount", 100, "how much to move")
	times := flag.Int("times", 1, "how often")
	flag.Parse()
	if err := run(context.Background(), *fromURL, *toURL, *amount, *times); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, fromURL, toURL string, amount int64, times int) error {
	if fromURL == "" || toURL == "" {
		return errors.New("name both databases: --from postgres://… --to postgres://…")
	}
	from, err := openBank(ctx, fromURL, "alice", 200)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	defer func() { _ = from.Close() }()
	to, err := openBank(ctx, toURL, "bob", 0)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	defer func() { _ = to.Close() }()

	// Each database gets a name, the same in every process and for ever. Open also
	// finishes what a killed process left behind.
	athos, porthos := postgres.New("athos", from), postgres.New("porthos", to)
	mgr, err := troth.Open(ctx, troth.Config{Domain: "bank", Resources: []troth.Resource{athos, porthos}})
	if err != nil {
		return err
	}
	defer func() { _ = mgr.Close(ctx) }()

	if err := printBalances(ctx, "before", from, to); err != nil {
		return err
	}
	var failed error
	for i := range times {
		err := transfer(ctx, mgr, athos, porthos, amount)
		fmt.Printf("transfer %d of %d: %s\n", i+1, amount, outcome(err))
		failed = errors.Join(failed, err)
	}
	return errors.Join(failed, printBalances(ctx, "after", from, to))
}

// transfer is all there is to it: nil commits in both databases, an error rolls
// back in both.
func transfer(ctx context.Context, mgr *troth.Manager, athos, porthos *postgres.Resource, amount int64) error {
	return mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		to, err := porthos.DB(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := to.ExecContext(ctx, "UPDATE account SET balance = balance + $1 WHERE name = 'bob'", amount); err != nil {
			return err
		}
		from, err := athos.DB(ctx, tx)
		if err != nil {
			return err
		}
		_, err = from.ExecContext(ctx, "UPDATE account SET balance = balance - $1 WHERE name = 'alice'", amount)
		return err
	})
}

// outcome says what an error of Run means.
func outcome(err error) string {
	switch {
	case err == nil:
		return "committed in both databases"
	case errors.Is(err, troth.ErrRolledBack):
		return "refused, rolled back in both databases"
	case errors.Is(err, troth.ErrPending):
		return "committed; one database is still finishing"
	case errors.Is(err, troth.ErrUndecided):
		return "not known yet; ask mgr.Wait for the transaction's id"
	}
	return "not begun"
}

func openBank(ctx context.Context, url, name string, balance int64) (*sql.DB, error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS account (
		name    text PRIMARY KEY,
		balance bigint NOT NULL CHECK (balance >= 0))`)
	if err == nil {
		_, err = db.ExecContext(ctx, "INSERT INTO account VALUES ($1, $2) ON CONFLICT DO NOTHING", name, balance)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func printBalances(ctx context.Context, when string, from, to *sql.DB) error {
	var alice, bob int64
	if err := from.QueryRowContext(ctx, "SELECT balance FROM account WHERE name = 'alice'").Scan(&alice); err != nil {
		return err
	}
	if err := to.QueryRowContext(ctx, "SELECT balance FROM account WHERE name = 'bob'").Scan(&bob); err != nil {
		return err
	}
	fmt.Printf("%-7s Alice %d, Bob %d, together %d\n", when+":", alice, bob, alice+bob)
	return nil
}
