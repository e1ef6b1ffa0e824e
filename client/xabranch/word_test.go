package xabranch_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/xabranch"
	"github.com/troth-tx/troth/postgres"
)

// With an address of its own for the server's word, the address of the work takes none.
func TestWordHasItsOwnAddress(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	s := newShop(t, "pgx", c)
	service, err := xabranch.Open(t.Context(), xabranch.Config{
		Client: c, Resource: postgres.New("shop2", s.db), DB: s.db, Barrier: s.table(t), URL: "http://127.0.0.1:1/word",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, h := range []struct {
		handler http.Handler
		status  int
	}{
		{service.Handler(sell), http.StatusInternalServerError},
		{service.Word(), http.StatusOK},
		{service.Word(client.SignedBy(make([]byte, 32))), http.StatusUnauthorized},
	} {
		q := url.Values{"gid": {"never"}, "trans_type": {"xa"}, "branch_id": {"01"}, "op": {"rollback"}}
		w := httptest.NewRecorder()
		h.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/?"+q.Encode(), http.NoBody))
		if w.Code != h.status {
			t.Errorf("answer is %d %s, want %d", w.Code, w.Body, h.status)
		}
	}
}
