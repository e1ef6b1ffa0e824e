package client_test

import (
	"context"
	"database/sql"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

// The sender is a process of its own, and is killed: after it committed and before
// its submission arrives, or while its transaction is open. B gets the money exactly
// if A has paid it.
func TestSenderIsKilled(t *testing.T) {
	for at, want := range map[string]struct {
		state      client.State
		balance    int
		deliveries int
	}{
		"submit": {client.Succeeded, 70, 1},
		"work":   {client.Failed, 100, 0},
	} {
		t.Run("at "+at, func(t *testing.T) {
			eachDatabase(t, func(t *testing.T, b *bank) {
				w, s := newWorld(t, nil), newService(t, nil)
				child := newChild(t, w, b, s)
				killed := make(chan struct{})
				var starting sync.Mutex // until the child is known
				starting.Lock()
				kill := sync.OnceFunc(func() {
					starting.Lock()
					defer starting.Unlock()
					if err := child.Process.Kill(); err != nil {
						t.Error(err)
					}
					close(killed)
				})
				w.setIntercept(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
					if strings.HasSuffix(r.URL.Path, "/"+at) { // "work" is the child's word to us
						kill()
						panic(http.ErrAbortHandler)
					}
					next.ServeHTTP(rw, r)
				})
				err := child.Start()
				starting.Unlock()
				if err != nil {
					t.Fatal(err)
				}
				err = child.Wait()
				select {
				case <-killed:
				case <-time.After(2 * time.Minute): // it may have ended before who killed it says so
					t.Fatalf("the sender ended by itself: %v\n%s", err, child.Stderr)
				}
				w.later()
				w.await(t, childGID, want.state)
				if got, n := b.balance(t), len(s.seen()); got != want.balance || n != want.deliveries {
					t.Errorf("balance %d, %d deliveries, want %d and %d", got, n, want.balance, want.deliveries)
				}
			})
		})
	}
}

const (
	childGID = "killed-1"
	childEnv = "TROTH_CLIENT_TEST_CHILD" // server, driver, data source, query, receiver, separated by spaces
)

func newChild(t *testing.T, w *world, b *bank, s *service) *exec.Cmd {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSender$")
	child.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{w.server.URL, b.driver, b.dsn, b.query.URL, s.URL}, " "))
	child.Stderr = new(strings.Builder)
	return child
}

// TestSender is the child.
func TestSender(t *testing.T) {
	args := strings.Fields(os.Getenv(childEnv))
	if len(args) != 5 {
		t.Skip("runs as a child of TestSenderIsKilled")
	}
	server, driver, dsn, query, receiver := args[0], args[1], args[2], args[3], args[4]
	dialect := barrier.PostgreSQL
	if driver == "mysql" {
		dialect = barrier.MySQL
	}
	c, err := client.New(client.Config{Server: server})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Message(client.GID(childGID)).Add(receiver, 30).
		DoAndSubmit(t.Context(), openOutbox(t, driver, dsn, dialect), query, func(ctx context.Context, tx *sql.Tx) error {
			if err := withdraw(ctx, tx); err != nil {
				return err
			}
			r, err := http.Post(server+"/work", "", nil)
			if err == nil {
				err = r.Body.Close()
			}
			_ = err // the parent kills us there, or does not know the address
			return nil
		})
	t.Fatalf("DoAndSubmit returned %v: nobody killed this process", err)
}
