// Command workflow-transfer moves money between two banks by a workflow: a transaction
// that is written as a function. The server keeps the results of its steps, so that it
// can be gone on with after a crash.
//
//	go run ./cmd/troth serve     # in another terminal
//	go run ./examples/workflow-transfer
//
// The first transfer has a local step, in the database of Alice's bank, and a step that
// calls Bob's bank over HTTP. The second is to Carol, who has no account there: the call
// is refused, and the first step is rolled back. The third is given up between its steps,
// as if the process had died there: the server has the function called again, and Alice
// does not pay twice. Each bank has a SQLite file, removed in the end.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

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

// A transfer is the workflow's input.
type transfer struct {
	Payee  string
	Amount int64
}

func run(ctx context.Context, server string) (err error) {
	dir, err := os.MkdirTemp("", "workflow-transfer-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	athos, err := openBank(ctx, dir, "athos", "Alice", 200)
	if err != nil {
		return err
	}
	defer func() { _ = athos.DB.Close() }()
	porthos, err := openBank(ctx, dir, "porthos", "Bob", 0)
	if err != nil {
		return err
	}
	defer func() { _ = porthos.DB.Close() }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := "http://" + l.Addr().String()
	c, err := client.New(client.Config{Server: server})
	if err != nil {
		return err
	}

	b := &bank{outbox: athos, other: address + "/porthos/deposit"}
	workflows := c.Workflows(address + "/athos/workflows")
	if err := workflows.Register("transfer", b.transfer); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/athos/workflows", workflows.Handler())
	mux.Handle("/porthos/deposit", deposit(porthos))
	served := &http.Server{Handler: mux}
	go func() { _ = served.Serve(l) }() // until run ends
	defer func() { _ = served.Close() }()
	defer func() { err = errors.Join(err, workflows.Close(ctx)) }() // waits for runs that the server asked for

	for _, t := range []struct {
		transfer
		givesUp bool
	}{{transfer{"Bob", 30}, false}, {transfer{"Carol", 30}, false}, {transfer{"Bob", 50}, true}} {
		fmt.Printf("\n%d to %s:\n", t.Amount, t.Payee)
		b.givesUp.Store(t.givesUp)
		input, err := json.Marshal(t.transfer)
		if err != nil {
			return err
		}
		gid := client.NewGID()
		result, err := workflows.Execute(ctx, "transfer", input, client.GID(gid), client.TimeoutToFail(3*time.Second), client.RetryInterval(time.Second))
		switch {
		case err == nil:
			fmt.Printf("  done: %s\n", result)
		case errors.Is(err, client.ErrFailed):
			fmt.Println("  rolled back:", err)
		case errors.Is(err, errGivenUp):
			if err := c.Await(ctx, gid); err != nil {
				return err
			}
			fmt.Println("  done by a later call")
		default:
			return err
		}
		if err := tell(ctx, athos, porthos); err != nil {
			return err
		}
	}
	return nil
}

var errGivenUp = errors.New("given up between the steps")

type bank struct {
	outbox  client.Outbox
	other   string
	givesUp atomic.Bool // the next time, between the steps
}

// transfer is the workflow. It takes the same steps whenever it is called with the same
// input; a step that has a result returns it and does nothing.
func (b *bank) transfer(ctx context.Context, w *client.Workflow, input []byte) ([]byte, error) {
	var t transfer
	if err := json.Unmarshal(input, &t); err != nil {
		return nil, err
	}
	out := w.Step("out").OnRollback(func(ctx context.Context, s *client.WorkflowStep) error {
		return s.Local(ctx, b.outbox, func(ctx context.Context, tx *sql.Tx) error {
			fmt.Printf("  %d back to Alice\n", t.Amount)
			return change(ctx, tx, "Alice", t.Amount)
		})
	})
	err := out.Local(ctx, b.outbox, func(ctx context.Context, tx *sql.Tx) error {
		fmt.Printf("  %d from Alice\n", t.Amount)
		return change(ctx, tx, "Alice", -t.Amount)
	})
	if err != nil {
		return nil, err
	}
	if b.givesUp.Swap(false) {
		fmt.Println("  given up, as if the process had died")
		return nil, errGivenUp // neither success nor client.ErrFailed: it is called again
	}
	return w.Step("in").Post(ctx, b.other, t)
}

// deposit is the participant at the other bank. A call that comes twice counts once.
func deposit(porthos client.Outbox) http.Handler {
	return client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		var t transfer
		if err := call.Decode(&t); err != nil {
			return nil, err
		}
		step, err := call.Step()
		if err != nil {
			return nil, err
		}
		err = porthos.Barrier.Run(ctx, porthos.DB, step, func(ctx context.Context, tx *sql.Tx) error {
			return change(ctx, tx, t.Payee, t.Amount)
		})
		return t, err
	})
}

func change(ctx context.Context, tx *sql.Tx, holder string, by int64) error {
	result, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + ?1 WHERE holder = ?2 AND balance + ?1 >= 0", by, holder)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(fmt.Errorf("%s has no account, or not enough in it: %w", holder, client.ErrFailed), err)
	}
	return nil
}

func openBank(ctx context.Context, dir, name, holder string, balance int64) (o client.Outbox, err error) {
	o.DB, err = sql.Open("sqlite", "file:"+filepath.Join(dir, name+".db")+"?_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		return o, err
	}
	for _, statement := range []string{
		"CREATE TABLE account (holder TEXT PRIMARY KEY, balance INTEGER NOT NULL)",
		fmt.Sprintf("INSERT INTO account VALUES ('%s', %d)", holder, balance),
	} {
		if _, err := o.DB.ExecContext(ctx, statement); err != nil {
			return o, errors.Join(err, o.DB.Close())
		}
	}
	if o.Barrier, err = barrier.NewTable(barrier.SQLite, nil); err == nil {
		err = o.Barrier.Create(ctx, o.DB)
	}
	if err != nil {
		return o, errors.Join(err, o.DB.Close())
	}
	return o, nil
}

func tell(ctx context.Context, athos, porthos client.Outbox) error {
	var alice, bob int64
	if err := athos.DB.QueryRowContext(ctx, "SELECT balance FROM account").Scan(&alice); err != nil {
		return err
	}
	if err := porthos.DB.QueryRowContext(ctx, "SELECT balance FROM account").Scan(&bob); err != nil {
		return err
	}
	fmt.Printf("  Alice %d at athos, Bob %d at porthos, together %d\n", alice, bob, alice+bob)
	return nil
}
