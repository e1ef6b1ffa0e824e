package demo

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

// A bankConfig tells a bank's process who it is.
type bankConfig struct {
	Database address
	Listen   string // its address, the same after a restart
	Server   string // the troth server
}

// A payment is asked of a bank by its customer.
type payment struct {
	Holder, Payee string
	Amount        int64
	To            string // the other bank's address
	Death         death  // of the bank, on the way; empty: none
}

// An entry is one change of an account, as branches carry it.
type entry struct {
	Holder string
	Amount int64
}

// How a bank may die.
const (
	deathBeforeCommit death = "before its own commit"
	deathBeforeSubmit death = "after its own commit, before the message is submitted"
)

// bank is a service over one database. Its steps count once, however often they come.
type bank struct {
	cfg     bankConfig
	outbox  client.Outbox
	client  *client.Client
	reaper  *reaper
	address string
}

// Bank is the main function of a bank's process: it reads its configuration and serves
// until ctx ends.
func Bank(ctx context.Context, in io.Reader) error {
	b := &bank{reaper: &reaper{next: http.DefaultTransport}}
	if err := json.NewDecoder(in).Decode(&b.cfg); err != nil {
		return fmt.Errorf("demo: read the configuration: %w", err)
	}
	db, err := b.cfg.Database.open()
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	table, err := barrier.NewTable(dialects[b.cfg.Database.Engine], nil)
	if err != nil {
		return err
	}
	b.outbox = client.Outbox{DB: db, Barrier: table}
	b.client, err = client.New(client.Config{Server: b.cfg.Server, HTTP: &http.Client{Transport: b.reaper}})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", b.cfg.Listen)
	if err != nil {
		return err
	}
	b.address = "http://" + b.cfg.Listen
	server := &http.Server{Handler: b.routes(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

var dialects = map[engine]barrier.Dialect{
	enginePostgres: barrier.PostgreSQL, engineMariaDB: barrier.MySQL, engineSQLite: barrier.SQLite,
}

func (b *bank) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /transfer", b.transfer)
	mux.Handle("/committed", client.QueryPrepared(b.outbox))
	mux.Handle("/pay-in", b.step("UPDATE account SET balance = balance + ? WHERE holder = ?"))
	mux.Handle("/pay-out", b.step("UPDATE account SET balance = balance - ? WHERE holder = ?"))
	mux.Handle("/reserve", b.step("UPDATE account SET balance = balance - ? WHERE holder = ?", "UPDATE reserved SET amount = amount + ? WHERE holder = ?"))
	mux.Handle("/take", b.step("UPDATE reserved SET amount = amount - ? WHERE holder = ?"))
	mux.Handle("/give-back", b.step("UPDATE reserved SET amount = amount - ? WHERE holder = ?", "UPDATE account SET balance = balance + ? WHERE holder = ?"))
	mux.Handle("/nothing", b.step())
	return mux
}

// step is a branch: its statements happen in one transaction with the barrier, once. A
// holder that is not there, or has too little, is a definite no.
func (b *bank) step(statements ...string) http.Handler {
	return client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		var e entry
		if err := call.Decode(&e); err != nil {
			return nil, err
		}
		step, err := call.Step()
		if err != nil {
			return nil, err
		}
		return nil, b.outbox.Barrier.Run(ctx, b.outbox.DB, step, func(ctx context.Context, tx *sql.Tx) error {
			for _, s := range statements {
				if err := b.change(ctx, tx, s, e); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (b *bank) change(ctx context.Context, tx *sql.Tx, statement string, e entry) error {
	if b.cfg.Database.Engine == enginePostgres {
		statement = strings.Replace(strings.Replace(statement, "?", "$1", 1), "?", "$2", 1)
	}
	result, err := tx.ExecContext(ctx, statement, e.Amount, e.Holder)
	if err != nil && strings.Contains(err.Error(), "balance") { // the table's constraint names the column
		return fmt.Errorf("%s has less than %d: %w", e.Holder, e.Amount, client.ErrFailed)
	}
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n != 1 {
		err = fmt.Errorf("%s has no account: %w", e.Holder, client.ErrFailed)
	}
	return err
}

// transfer takes the money from an account here, and sends a message to the other bank:
// both, or neither.
func (b *bank) transfer(w http.ResponseWriter, r *http.Request) {
	var t payment
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&t); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.reaper.beforeSubmit = t.Death == deathBeforeSubmit
	m := b.client.Message(client.Wait(), client.TimeoutToFail(3*time.Second), client.RetryInterval(time.Second)).
		Add(t.To+"/pay-in", entry{t.Payee, t.Amount})
	err := m.DoAndSubmit(r.Context(), b.outbox, b.address+"/committed", func(ctx context.Context, tx *sql.Tx) error {
		err := b.change(ctx, tx, "UPDATE account SET balance = balance - ? WHERE holder = ?", entry{t.Holder, t.Amount})
		if err == nil && t.Death == deathBeforeCommit {
			die()
		}
		return err
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// reaper kills the process when it is about to submit.
type reaper struct {
	next         http.RoundTripper
	beforeSubmit bool
}

// RoundTrip implements http.RoundTripper.
func (m *reaper) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.beforeSubmit && strings.HasSuffix(r.URL.Path, "/submit") {
		die()
	}
	return m.next.RoundTrip(r)
}
