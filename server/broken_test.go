package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/store"
)

type brokenStore struct{ store.Store }

var errBroken = fmt.Errorf("%w: disk I/O error", store.ErrBroken)

func (brokenStore) NextDue(context.Context) (time.Time, error) { return time.Time{}, errBroken }
func (brokenStore) Ready(context.Context) error                { return errBroken }

// A server whose store has failed for good says that it is of no use any more, so that it
// is started anew, instead of refusing everything for ever.
func TestServerEndsWithItsStore(t *testing.T) {
	t.Parallel()
	w := start(t, func(c *server.Config, _ *engine.Config) { c.Store = brokenStore{c.Store} })
	select {
	case err := <-w.Failed():
		if !errors.Is(err, store.ErrBroken) {
			t.Errorf("it failed with %v", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("nobody is told")
	}
	if code, _ := w.do(t, "GET", "/readyz", ""); code != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d", code)
	}
}
