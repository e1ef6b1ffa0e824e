// Command child is the program that the crash tests kill: it transfers money
// between two databases, saying on standard output what it begins and what it
// was told, or recovers what an earlier one left.
//
// Lines are "begin <gid>", then "committed <gid>", "aborted <gid>" or
// "unknown <gid>"; at the end "done".
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/filelog"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlite"
	"github.com/troth-tx/troth/sqlregister"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

func run() error {
	var (
		a        = flag.String("a", "", "kind=dsn of the database that pays")
		b        = flag.String("b", "", "kind=dsn of the database that receives")
		register = flag.String("register", "home", "home, file:<dir>, or kind=dsn")
		n        = flag.Int("n", 3, "how many transfers")
		settle   = flag.Duration("settle", 0, "recover until nothing is in doubt, at most this long, instead of transferring")
		grace    = flag.Duration("grace", 200*time.Millisecond, "Config.Grace")
		keep     = flag.Duration("keep", time.Minute, "Config.KeepDecisions")
		segment  = flag.Int64("segment", 1<<20, "the size of the file log's segments")
		timeout  = flag.Duration("timeout", 0, "Config.Timeout")
		patience = flag.Duration("patience", time.Hour, "how long the program waits for each transaction")
		passes   = flag.Duration("recover", 0, "recover for that long, whatever is in doubt, instead of transferring")
		outcome  = flag.String("outcome", "", "say how the transaction ended, instead of transferring")
		does     = flag.String("work", "transfer", "what each transaction does: transfer, one (pay alone), read (pay, and look at the other), slow (pay, and wait for the time to be up), "+
			"ignores (as if nothing were wrong, a failed statement), savepoint (the same, and roll back to a savepoint set after it), hidden (receive through a function)")
	)
	flag.Parse()
	ctx := context.Background()

	payer, pay, err := open("athos", *a)
	if err != nil {
		return err
	}
	payee, receive, err := open("porthos", *b)
	if err != nil {
		return err
	}
	do, err := workOf(*does, pay, receive)
	if err != nil {
		return err
	}
	cfg := troth.Config{
		Domain: "crash", Resources: []troth.Resource{payer, payee},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Grace:  *grace, RecoverEvery: 200 * time.Millisecond, KeepDecisions: *keep, Timeout: *timeout,
	}
	if cfg.Register, err = openRegister(*register, *segment); err != nil {
		return err
	}
	m, err := troth.Open(ctx, cfg)
	if err != nil {
		return err
	}
	switch {
	case *settle > 0:
		if err := settleAll(ctx, m, *settle); err != nil {
			return err
		}
	case *passes > 0:
		recoverFor(ctx, m, *passes)
	case *outcome != "":
		o, err := m.Outcome(ctx, troth.GID(*outcome))
		fmt.Println("outcome", o, err)
	default:
		transfer(ctx, m, do, *n, *patience)
	}
	if err := m.Close(ctx); err != nil {
		return err
	}
	fmt.Println("done")
	return nil
}

// branch is a resource's DB method.
type branch func(context.Context, *troth.Tx) (*sql.DB, error)

func open(name, spec string) (troth.Resource, branch, error) {
	kind, dsn, _ := strings.Cut(spec, "=")
	db, err := openDB(kind, dsn)
	if err != nil {
		return nil, nil, err
	}
	switch kind {
	case "postgres":
		r := postgres.New(name, db)
		return r, r.DB, nil
	case "mysql":
		r := mysql.New(name, db)
		return r, r.DB, nil
	case "sqlite":
		r := sqlite.New(name, db)
		return r, r.DB, nil
	}
	return nil, nil, fmt.Errorf("no kind of database is called %q", kind)
}

func openDB(kind, dsn string) (*sql.DB, error) {
	driver := map[string]string{"postgres": "pgx", "mysql": "mysql", "sqlite": "sqlite"}[kind]
	return sql.Open(driver, dsn)
}

func openRegister(spec string, segment int64) (troth.Register, error) {
	if spec == "home" {
		return nil, nil //nolint:nilnil // no register is a choice
	}
	if dir, ok := strings.CutPrefix(spec, "file:"); ok {
		return filelog.Open(dir, filelog.WithSegmentSize(segment))
	}
	kind, dsn, _ := strings.Cut(spec, "=")
	db, err := openDB(kind, dsn)
	if err != nil {
		return nil, err
	}
	return sqlregister.New(db), nil
}

var errChange = errors.New("the program changed its mind")

// A work is what one transaction does.
type work func(context.Context, *troth.Tx) error

func workOf(name string, pay, receive branch) (work, error) {
	switch name {
	case "transfer":
		return func(ctx context.Context, tx *troth.Tx) error {
			if err := move(ctx, tx, pay, -1); err != nil {
				return err
			}
			return move(ctx, tx, receive, +1)
		}, nil
	case "one":
		return func(ctx context.Context, tx *troth.Tx) error { return move(ctx, tx, pay, -1) }, nil
	case "read":
		return func(ctx context.Context, tx *troth.Tx) error {
			db, err := receive(ctx, tx)
			if err != nil {
				return err
			}
			var balance int
			if err := db.QueryRowContext(ctx, "SELECT balance FROM account").Scan(&balance); err != nil {
				return err
			}
			return move(ctx, tx, pay, -1)
		}, nil
	case "slow":
		return func(ctx context.Context, tx *troth.Tx) error {
			over := make(chan struct{})
			tx.AfterDone(func(troth.Outcome) { close(over) })
			err := move(ctx, tx, pay, -1)
			<-over
			return err
		}, nil
	}
	return careless(name, pay, receive)
}

// careless is what programs should not do, and what databases hide.
func careless(name string, pay, receive branch) (work, error) {
	transfer := func(ctx context.Context, tx *troth.Tx) (*sql.DB, error) {
		if err := move(ctx, tx, pay, -1); err != nil {
			return nil, err
		}
		if err := move(ctx, tx, receive, +1); err != nil {
			return nil, err
		}
		return receive(ctx, tx)
	}
	again := func(ctx context.Context, tx *troth.Tx, db *sql.DB) {
		_, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO journal (gid, amount) VALUES ('%s', 1)", tx.ID()))
		fmt.Fprintln(os.Stderr, "ignored:", err)
	}
	switch name {
	case "ignores":
		return func(ctx context.Context, tx *troth.Tx) error {
			db, err := transfer(ctx, tx)
			if err == nil {
				again(ctx, tx, db)
			}
			return err
		}, nil
	case "savepoint":
		return func(ctx context.Context, tx *troth.Tx) error {
			db, err := transfer(ctx, tx)
			if err != nil {
				return err
			}
			nested, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			again(ctx, tx, db) // outside of the nested transaction
			return nested.Rollback()
		}, nil
	case "hidden":
		return func(ctx context.Context, tx *troth.Tx) error {
			if err := move(ctx, tx, pay, -1); err != nil {
				return err
			}
			db, err := receive(ctx, tx)
			if err != nil {
				return err
			}
			var done int
			return db.QueryRowContext(ctx, fmt.Sprintf("SELECT receive('%s')", tx.ID())).Scan(&done)
		}, nil
	}
	return nil, fmt.Errorf("no work is called %q", name)
}

// transfer runs n transactions; the last time the program changes its mind.
func transfer(ctx context.Context, m *troth.Manager, do work, n int, patience time.Duration) {
	for i := range n {
		ctx, cancel := context.WithTimeout(ctx, patience)
		var id troth.GID
		err := m.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
			id = tx.ID()
			fmt.Println("begin", id)
			if err := do(ctx, tx); err != nil {
				return err
			}
			if i == n-1 {
				return errChange
			}
			return nil
		})
		cancel()
		switch {
		case err == nil, errors.Is(err, troth.ErrPending):
			fmt.Println("committed", id)
		case errors.Is(err, troth.ErrRolledBack):
			fmt.Println("aborted", id)
		default:
			fmt.Println("unknown", id)
		}
		if err != nil && !errors.Is(err, errChange) {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// move changes the one account of a database and writes into its journal, in
// the database's own transaction.
func move(ctx context.Context, tx *troth.Tx, of branch, amount int) error {
	db, err := of(ctx, tx)
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, fmt.Sprintf("UPDATE account SET balance = balance + (%d) WHERE id = 1", amount)); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("INSERT INTO journal (gid, amount) VALUES ('%s', %d)", tx.ID(), amount))
	return err
}

// recoverFor makes recovery passes, and says what kept each from its work.
func recoverFor(ctx context.Context, m *troth.Manager, d time.Duration) {
	for start := time.Now(); time.Since(start) < d; time.Sleep(100 * time.Millisecond) {
		if _, err := m.Recover(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "recover:", err)
		}
	}
}

// settleAll recovers until no branch of ours is in doubt.
func settleAll(ctx context.Context, m *troth.Manager, limit time.Duration) error {
	start := time.Now()
	for {
		list, err := m.InDoubt(ctx)
		if err == nil && len(list) == 0 {
			fmt.Println("settled after", time.Since(start).Round(time.Millisecond))
			_, err := m.Recover(ctx)
			return err
		}
		if time.Since(start) > limit {
			for _, b := range list {
				fmt.Fprintln(os.Stderr, b.Resource, b.Native, b.Verdict)
			}
			return fmt.Errorf("%d branches in doubt after %v: %w", len(list), limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
