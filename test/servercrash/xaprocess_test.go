//go:build linux

package servercrash

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/xabranch"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
)

// xaEnv tells a process of this binary to be the participants of XA transactions.
const xaEnv = "TROTH_SERVERCRASH_XA"

// xaConfig is the value of xaEnv, in JSON.
type xaConfig struct {
	Server string    `json:"server"`
	DSN    [2]string `json:"dsn"` // of the PostgreSQL and the MariaDB
	Domain string    `json:"domain"`
}

// serveXA serves the two banks as branches of XA transactions, until it is killed. It says
// on standard output where it listens.
func serveXA(text string) error {
	var cfg xaConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	c, err := client.New(client.Config{Server: cfg.Server, RequestTimeout: time.Second, Attempts: 6, RetryPause: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	for i, at := range xaDatabases {
		service, b, err := openXA(c, at, cfg.DSN[i], cfg.Domain)
		if err != nil {
			return err
		}
		mux.Handle(fmt.Sprintf("/%d", i), service.Handler(b.prepared))
	}
	if _, err := fmt.Println(httptest.NewServer(mux).Listener.Addr()); err != nil {
		return err
	}
	select {}
}

// openXA waits for the database, which may be killed as well.
func openXA(c *client.Client, at xaDatabase, dsn, domain string) (s *xabranch.Service, b *bank, err error) {
	b = &bank{clock: nobodysClock}
	if b.table, err = barrier.NewTable(at.dialect, nil); err != nil {
		return nil, nil, err
	}
	// The resource keeps sessions of prepared branches; the barrier must not wait for them.
	var pools [2]*sql.DB
	for i := range pools {
		if pools[i], err = sql.Open(at.driver, dsn); err != nil {
			return nil, nil, err
		}
		pools[i].SetMaxOpenConns(16)
	}
	b.db = pools[1]
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		s, err = xabranch.Open(context.Background(), xabranch.Config{
			Client: c, Resource: at.resource(pools[0]), DB: b.db, Barrier: b.table, Domain: domain,
			HoldMax: 2 * time.Second, // so that any session ends what waited for long
			WaitMax: 500 * time.Millisecond,
		})
		if err == nil || time.Now().After(deadline) {
			return s, b, err
		}
	}
}

// prepared is a bank's part in an XA transaction.
func (b *bank) prepared(ctx context.Context, db *sql.DB, call *client.Call) (any, error) {
	var m move
	if err := call.Decode(&m); err != nil {
		return nil, err
	}
	step, err := barrier.NewStep(string(call.Pattern), call.GID, call.Branch, barrier.Action)
	if err != nil {
		return nil, err
	}
	if err := b.book(ctx, db, step, m); err != nil || !m.Refuse {
		return nil, err
	}
	return nil, fmt.Errorf("account %d is closed: %w", m.Account, client.ErrFailed) // after the work, which must vanish
}

// An xaDatabase is a kind of database that has branches.
type xaDatabase struct {
	driver   string
	dialect  barrier.Dialect
	resource func(db *sql.DB) troth.Resource
}

// xaDatabases are where an XA transaction has its two branches.
var xaDatabases = [2]xaDatabase{
	{"pgx", barrier.PostgreSQL, func(db *sql.DB) troth.Resource { return postgres.New("bank", db) }},
	{"mysql", barrier.MySQL, func(db *sql.DB) troth.Resource { return mysql.New("bank", db) }},
}

// beXA makes this process the participants if it was started for that.
func beXA() {
	text := os.Getenv(xaEnv)
	if text == "" {
		return
	}
	if err := serveXA(text); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "XA participants:", err)
		os.Exit(1)
	}
}
