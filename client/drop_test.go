package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

// rolledBack is a local transaction that fails.
type rolledBack struct{}

var errOverdrawn = errors.New("overdrawn")

func (rolledBack) Run(context.Context, barrier.Step) error               { return errOverdrawn }
func (rolledBack) Committed(context.Context, barrier.Step) (bool, error) { return false, nil }

// A sender whose own transaction failed need not wait for the end of the message, whatever
// it asked for: a server that hangs would hold it up until FinishTimeout.
func TestDropDoesNotWait(t *testing.T) {
	t.Parallel()
	var abort string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); strings.HasSuffix(r.URL.Path, "/abort") {
			abort = string(body)
		}
		_, _ = io.WriteString(w, `{"dtm_result":"SUCCESS"}`)
	}))
	defer s.Close()
	c, err := client.New(client.Config{Server: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Message(client.Wait()).Add(s.URL, nil).DoAndSubmitLocal(t.Context(), s.URL, rolledBack{})
	if !errors.Is(err, client.ErrFailed) || !errors.Is(err, errOverdrawn) {
		t.Errorf("got %v", err)
	}
	if abort == "" || strings.Contains(abort, `"wait_result":true`) {
		t.Errorf("the abort was %q", abort)
	}
}
