// Command naive is what not to do: it moves money between two PostgreSQL
// databases with two plain commits. All goes well until the program, its machine
// or the second database fails between the two.
//
//	go run ./examples/naive --from postgres://user@host/athos --to postgres://user@host/porthos
//	go run ./examples/naive --from postgres://user@host/athos --to postgres://user@host/porthos --kill
//
// With --kill it ends itself between the commits, with SIGKILL, as a crash would.
// Then --times 0 shows what is left. Package bank, beside this one, is the same
// program with troth, on the same tables.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
)

func main() {
	log.SetFlags(0)
	fromURL := flag.String("from", "", "`URL` of the PostgreSQL database with Alice's account")
	toURL := flag.String("to", "", "`URL` of the PostgreSQL database with Bob's account")
	amount := flag.Int64("amount", 100, "how much to move")
	times := flag.Int("times", 1, "how often")
	kill := flag.Bool("kill", false, "die between the two commits")
	flag.Parse()
	if err := run(context.Background(), *fromURL, *toURL, *amount, *times, *kill); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, fromURL, toURL string, amount int64, times int, kill bool) error {
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

	if err := printBalances(ctx, "before", from, to); err != nil {
		return err
	}
	for i := range times {
		if err := transfer(ctx, from, to, amount, kill); err != nil {
			return fmt.Errorf("transfer %d: %w", i+1, err)
		}
		fmt.Printf("transfer %d of %d: two commits\n", i+1, amount)
	}
	return printBalances(ctx, "after", from, to)
}

// transfer is as careful as it can be, and it is not enough.
func transfer(ctx context.Context, from, to *sql.DB, amount int64, kill bool) error {
	debit, err := from.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = debit.Rollback() }() // does nothing after Commit
	credit, err := to.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = credit.Rollback() }()
	if _, err := debit.ExecContext(ctx, "UPDATE account SET balance = balance - $1 WHERE name = 'alice'", amount); err != nil {
		return err
	}
	if _, err := credit.ExecContext(ctx, "UPDATE account SET balance = balance + $1 WHERE name = 'bob'", amount); err != nil {
		return err
	}

	if err := debit.Commit(); err != nil {
		return err
	}
	if kill { // from here on the money is gone from Alice ...
		die()
	}
	return credit.Commit() // ... and until here Bob does not have it
}

// die ends this process with SIGKILL: no deferred function runs.
func die() {
	fmt.Println("killed between the two commits")
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {} // the signal is on its way
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
