package client_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/client"
)

// Two calls of one gid at once, of which the first fails when the second already waits
// for it. The message must not be dropped when the second commits (I15).
func TestDoFailsBesideARepetition(t *testing.T) {
	eachDatabase(t, func(t *testing.T, b *bank) {
		for range 5 {
			if _, err := b.DB.ExecContext(t.Context(), "UPDATE account SET balance = 100"); err != nil {
				t.Fatal(err)
			}
			w, s := newWorld(t, nil), newService(t, nil)
			gid := "transfer-" + rand.Text()
			send := func(f func(ctx context.Context, tx *sql.Tx) error) error {
				return w.Message(client.GID(gid), client.Wait()).Add(s.URL, 30).DoAndSubmit(t.Context(), b.Outbox, b.query.URL, f)
			}
			entered := make(chan struct{})
			var wg sync.WaitGroup
			var second error
			wg.Go(func() {
				<-entered
				second = send(withdraw)
			})
			mine := errors.New("mine")
			first := send(func(context.Context, *sql.Tx) error {
				close(entered)
				time.Sleep(100 * time.Millisecond) // the second comes to wait for our row
				return mine
			})
			wg.Wait()
			balance, state := b.balance(t), w.state(t, gid)
			if committed := balance == 70; committed != (state == client.Succeeded) || committed != (second == nil) {
				t.Errorf("balance %d, message %s; the first said %v, the second %v", balance, state, first, second)
			}
		}
	})
}
