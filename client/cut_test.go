package client_test

import (
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
)

// The connection to the database is cut at the commit. Whether it was carried out decides,
// and nobody guesses.
func TestCutAtCommit(t *testing.T) {
	for name, c := range map[string]struct {
		place   cutproxy.Place
		err     error // of DoAndSubmit; nil: the message goes out
		state   client.State
		balance int
	}{
		"before the server": {cutproxy.BeforeServer, client.ErrFailed, client.Failed, 100},
		"after the answer":  {cutproxy.AfterAnswer, nil, client.Succeeded, 70},
		"stranded before":   {cutproxy.StrandedBefore, client.ErrUnknown, client.Failed, 100}, // its transaction stays open for a while
		"stranded after":    {cutproxy.StrandedAfter, nil, client.Succeeded, 70},
	} {
		t.Run(name, func(t *testing.T) {
			eachDatabase(t, func(t *testing.T, b *bank) {
				w, s := newWorld(t, nil), newService(t, nil)
				proxy, through, commit := throughProxy(t, b)
				patience := time.Minute
				if c.place == cutproxy.StrandedBefore { // until then it waits for the answer that nobody can give
					patience = time.Second
				}
				sender, err := client.New(client.Config{Server: w.server.URL, Token: "secret", FinishTimeout: patience})
				if err != nil {
					t.Fatal(err)
				}
				m := sender.Message().Add(s.URL, 30)
				cut := proxy.Cut(c.place, commit, 1)
				err = m.DoAndSubmit(t.Context(), through, b.query.URL, withdraw)
				if !errors.Is(err, c.err) || c.err == nil && err != nil {
					t.Errorf("error is %v, want %v", err, c.err)
				}
				select {
				case <-cut:
				case <-time.After(time.Minute): // the sender may hear of the cut before it is told here
					t.Error("nothing was cut")
				}
				proxy.Release()
				w.later()
				w.await(t, m.GID(), c.state)
				if got := b.balance(t); got != c.balance {
					t.Errorf("balance is %d, want %d", got, c.balance)
				}
			})
		})
	}
}

// throughProxy is the bank's outbox through a proxy that can cut. commit is what a
// session sends then.
func throughProxy(t *testing.T, b *bank) (proxy *cutproxy.Proxy, o client.Outbox, commit string) {
	t.Helper()
	if b.driver == "mysql" {
		cfg, err := mysql.ParseDSN(b.dsn)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Net, cfg.Addr, proxy = "tcp", "", cutproxy.New(t, dbtest.SharedMariaDB(t, 0).Addr())
		cfg.Addr = proxy.Addr()
		return proxy, openOutbox(t, b.driver, cfg.FormatDSN(), b.Barrier.Dialect()), "COMMIT"
	}
	u, err := url.Parse(b.dsn)
	if err != nil {
		t.Fatal(err)
	}
	proxy = cutproxy.New(t, dbtest.SharedPostgres(t, 0).Addr())
	u.Host = proxy.Addr()
	return proxy, openOutbox(t, b.driver, u.String(), b.Barrier.Dialect()), "commit"
}
