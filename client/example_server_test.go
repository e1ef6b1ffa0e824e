package client_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"time"

	_ "modernc.org/sqlite" // driver "sqlite"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/dtmapi"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store/memory"
)

// startServer stands for "troth serve". It returns its address.
func startServer() (address string, stop func()) {
	calls, err := outbound.New(outbound.Config{})
	check(err)
	kept := memory.New()
	e, err := engine.Open(context.Background(), kept, engine.Config{
		Caller: calls, PollEvery: 20 * time.Millisecond, Limits: engine.Limits{RetryInterval: 50 * time.Millisecond},
	})
	check(err)
	s := httptest.NewServer(dtmapi.New(dtmapi.Config{Engine: e, Store: kept}))
	return s.URL, func() {
		s.Close()
		check(e.Close(context.Background()))
		check(calls.Close())
	}
}

// openBank is a database with an account of 100 and a barrier.
func openBank() (o client.Outbox, done func()) {
	dir, err := os.MkdirTemp("", "bank")
	check(err)
	o.DB, err = sql.Open("sqlite", "file:"+dir+"/bank.db?_pragma=busy_timeout(5000)&_txlock=immediate")
	check(err)
	_, err = o.DB.ExecContext(context.Background(), "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER); INSERT INTO account VALUES (1, 100)")
	check(err)
	o.Barrier, err = barrier.NewTable(barrier.SQLite, nil)
	check(err)
	check(o.Barrier.Create(context.Background(), o.DB))
	return o, func() { check(errors.Join(o.DB.Close(), os.RemoveAll(dir))) }
}

func balance(o client.Outbox) (n int) {
	check(o.DB.QueryRowContext(context.Background(), "SELECT balance FROM account").Scan(&n))
	return n
}

func check(err error) {
	if err != nil {
		panic(fmt.Sprint("example: ", err))
	}
}
