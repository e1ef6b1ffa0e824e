package postgres

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
)

// After a crash the server may have given the transaction's number to another, so
// "committed" proves nothing: neither if all of it was killed, nor if it went on
// after one of its processes was. (TestNumberGivenOutAgain of the simulated servers
// is the wrong answer that came of it.)
func TestSettleAfterACrash(t *testing.T) {
	t.Parallel()
	for name, index := range map[string]int{"the server is killed": 2, "one of its processes is killed": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := dbtest.SharedPostgres(t, index)
			server.MustOwn(t)
			dsn := server.NewDatabase(t)
			r := newRig(t, "pgx", dsn)
			r.exec("SELECT pg_stat_reset_shared('bgwriter')") // long ago, as far as the test is concerned
			time.Sleep(10 * time.Millisecond)                 // the server's clock has no signal
			proxy := cutproxy.New(t, server.Addr())
			through, err := url.Parse(dsn)
			if err != nil {
				t.Fatal(err)
			}
			through.Host = proxy.Addr()
			r.db = open(t, "pgx", through.String(), 0)
			cfg := config()
			cfg.NeedDecisions = false
			r.res = New("porthos", r.db)
			if err := r.res.Open(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = r.res.Close(context.Background()) })
			b, db := r.begin()
			r.work(db, "UPDATE account SET balance = 1 WHERE id = 1")
			cut := proxy.Cut(cutproxy.AfterAnswer, "COMMIT", 1)
			if outcome, err := b.CommitDeciding(t.Context(), troth.Decision{GID: newXID().GID, Outcome: troth.Committed}); outcome != troth.Undecided {
				t.Fatal(outcome, err)
			}
			<-cut
			b.Close()
			if name == "the server is killed" {
				if err := server.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := server.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else {
				pid, err := strconv.Atoi(r.get("SELECT pg_backend_pid()::text"))
				if err != nil {
					t.Fatal(err)
				}
				const reset = "SELECT stats_reset::text FROM pg_stat_bgwriter"
				before := r.get(reset)
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) { // nor has its recovery
					var now string
					if err := r.outside.QueryRowContext(t.Context(), reset).Scan(&now); err == nil && now != before {
						break
					} else if time.Now().After(end) {
						t.Fatalf("statistics are of %s, then of %s: %v", before, now, err)
					}
				}
			}
			var outcome troth.Outcome
			for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // the server has no signal
				if outcome, err = b.Settle(t.Context()); err == nil || errors.Is(err, troth.ErrNoEvidence) {
					break
				}
			}
			if outcome != troth.Undecided || !errors.Is(err, troth.ErrNoEvidence) {
				t.Errorf("settled %v, %v; want undecided, ErrNoEvidence", outcome, err)
			}
		})
	}
}
