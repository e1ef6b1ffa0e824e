// Command transfer-message moves money between two banks, services that share nothing
// but HTTP, by a two-phase message: Alice's bank takes the money in a transaction of its
// own database, and Bob's gets the message if, and only if, that transaction commits.
//
//	go run ./cmd/troth serve     # in another terminal
//	go run ./examples/transfer-message --amount 30
//	go run ./examples/transfer-message --amount 30 --die-before-submit
//	go run ./examples/transfer-message --serve-only
//
// With --die-before-submit the bank kills itself after its own commit, before it tells
// anybody. When it is back (--serve-only: it does nothing but answer) the server asks it
// what became of that transfer, and delivers the message: Bob gets the money once.
//
// Each bank has a SQLite file in --dir. Here both run in one process; nothing would
// change if they did not.
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
	"strings"
	"time"

	_ "modernc.org/sqlite" // database/sql driver "sqlite"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

func main() {
	log.SetFlags(0)
	server := flag.String("server", "http://127.0.0.1:36789", "`URL` of the troth server")
	listen := flag.String("listen", "127.0.0.1:8101", "`address` of the banks; the server finds them there after a restart, too")
	dir := flag.String("dir", filepath.Join(os.TempDir(), "troth-transfer-message"), "`directory` of the banks' databases")
	amount := flag.Int64("amount", 30, "how much Alice sends to Bob")
	die := flag.Bool("die-before-submit", false, "die after the commit, before the message is submitted")
	serveOnly := flag.Bool("serve-only", false, "send nothing; wait for the end of the last transfer")
	flag.Parse()
	p := &program{address: "http://" + *listen}
	err := p.open(context.Background(), *server, *listen, *dir, *die)
	if err == nil {
		err = p.run(context.Background(), *amount, *serveOnly)
	}
	if errors.Is(err, client.ErrUnknown) {
		log.Printf("Does a troth server listen at %s? Start one with: go run ./cmd/troth serve", *server)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// program is both banks. An Outbox is a database and the barrier in it: the table that
// tells what has been done.
type program struct {
	athos, porthos client.Outbox
	client         *client.Client
	address        string
}

func (p *program) run(ctx context.Context, amount int64, serveOnly bool) error {
	if err := p.tell(ctx, "before: "); err != nil {
		return err
	}
	if !serveOnly {
		switch err := p.transfer(ctx, amount); {
		case errors.Is(err, client.ErrFailed): // and nothing happened
			fmt.Println("refused:", err)
		case err != nil && !errors.Is(err, client.ErrOngoing):
			return err
		}
	}
	var gid sql.NullString // names of messages sort by their age
	if err := p.athos.DB.QueryRowContext(ctx, "SELECT max(gid) FROM transfer").Scan(&gid); err != nil {
		return err
	}
	if gid.Valid {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		if err := p.client.Await(ctx, gid.String); err != nil {
			return fmt.Errorf("the last transfer: %w", err)
		}
		fmt.Printf("the last transfer, message %s, is delivered\n", gid.String)
	}
	return p.tell(ctx, "after:  ")
}

// transfer is what Alice's bank does. The message is announced to the server, then the
// function runs in a transaction with the barrier, then the message is submitted.
func (p *program) transfer(ctx context.Context, amount int64) error {
	// The server asks about a message that is not submitted, after 35 s if we do not say
	// otherwise; and it asks, or delivers, again 10 s after it found nobody.
	m := p.client.Message(client.Wait(), client.TimeoutToFail(3*time.Second), client.RetryInterval(time.Second)).
		Add(p.address+"/porthos/deposit", amount)
	return m.DoAndSubmit(ctx, p.athos, p.address+"/athos/committed", func(ctx context.Context, tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance - ? WHERE holder = 'Alice' AND balance >= ?", amount, amount)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return errors.Join(errors.New("not enough money"), err)
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO transfer (gid, amount) VALUES (?, ?)", m.GID(), amount)
		return err
	})
}

// deposit is what Bob's bank does when the message comes, once, however often it comes.
func (p *program) deposit(ctx context.Context, call *client.Call) (any, error) {
	var amount int64
	if err := call.Decode(&amount); err != nil {
		return nil, err
	}
	step, err := call.Step()
	if err != nil {
		return nil, err
	}
	return nil, p.porthos.Barrier.Run(ctx, p.porthos.DB, step, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + ? WHERE holder = 'Bob'", amount)
		return err
	})
}

// open opens the banks' databases and serves the two addresses that the server calls.
func (p *program) open(ctx context.Context, server, listen, dir string, die bool) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if p.athos, err = openBank(ctx, dir, "athos", "INSERT INTO account VALUES ('Alice', 200) ON CONFLICT DO NOTHING"); err != nil {
		return err
	}
	if p.porthos, err = openBank(ctx, dir, "porthos", "INSERT INTO account VALUES ('Bob', 0) ON CONFLICT DO NOTHING"); err != nil {
		return err
	}
	cfg := client.Config{Server: server}
	if die {
		cfg.HTTP = &http.Client{Transport: deadly{}}
	}
	if p.client, err = client.New(cfg); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/athos/committed", client.QueryPrepared(p.athos))
	mux.Handle("/porthos/deposit", client.Handler(p.deposit))
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	go func() { log.Fatal(http.Serve(l, mux)) }() // until the program ends
	return nil
}

func openBank(ctx context.Context, dir, name, accounts string) (o client.Outbox, err error) {
	o.DB, err = sql.Open("sqlite", "file:"+filepath.Join(dir, name+".db")+"?_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		return o, err
	}
	for _, statement := range []string{
		"CREATE TABLE IF NOT EXISTS account (holder TEXT PRIMARY KEY, balance INTEGER NOT NULL)",
		"CREATE TABLE IF NOT EXISTS transfer (gid TEXT PRIMARY KEY, amount INTEGER NOT NULL)",
		accounts,
	} {
		if _, err := o.DB.ExecContext(ctx, statement); err != nil {
			return o, fmt.Errorf("bank %s: %w", name, err)
		}
	}
	if o.Barrier, err = barrier.NewTable(barrier.SQLite, nil); err != nil {
		return o, err
	}
	return o, o.Barrier.Create(ctx, o.DB)
}

func (p *program) tell(ctx context.Context, when string) error {
	var alice, bob int64
	if err := p.athos.DB.QueryRowContext(ctx, "SELECT balance FROM account").Scan(&alice); err != nil {
		return err
	}
	if err := p.porthos.DB.QueryRowContext(ctx, "SELECT balance FROM account").Scan(&bob); err != nil {
		return err
	}
	fmt.Printf("%sAlice %d at athos, Bob %d at porthos, together %d\n", when, alice, bob, alice+bob)
	return nil
}

// deadly carries requests, and ends this process with SIGKILL instead of submitting.
type deadly struct{}

// RoundTrip implements http.RoundTripper.
func (deadly) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(r.URL.Path, "/submit") {
		return http.DefaultTransport.RoundTrip(r)
	}
	fmt.Println("killed: athos has committed, and told nobody")
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {} // the signal is on its way
}
