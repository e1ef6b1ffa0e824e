package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/store"
)

// Whatever is asked, the answer is one that the document has, nothing panics, and
// nobody but an admin changes anything.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][3]string{
		{"GET", "/transactions?state=prepared&limit=3", ""},
		{"GET", "/transactions?cursor=%00&prefix=%27--", ""},
		{"GET", "/transactions/a%2Fb%00", ""},
		{"POST", "/transactions/open/stop", `{"reason":"a test"}`},
		{"POST", "/transactions/open/retry", `{"reason":["a"]}`},
		{"POST", "/topics/t/subscribers", `{"url":"http://[::1","remark":null}`},
		{"DELETE", "/topics/%ff", ""},
		{"GET", "/audit?before=9223372036854775808", ""},
		{"PATCH", "/me", "[[[[[["},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		r, err := http.NewRequest(method, "http://x/api/v1/"+strings.TrimPrefix(path, "/"), http.NoBody)
		if err != nil || r.URL.Fragment != "" {
			return // no request that could be sent
		}
		b := setup(t)
		b.put(t, store.Transaction{GID: "open", Owner: "alice", Pattern: store.TCC, State: store.Prepared, Due: time.Now().Add(time.Hour)})
		for _, by := range []auth.Caller{bob, alice, operator} {
			w := b.call(t, by, method, r.URL.RequestURI(), body)
			if w.Code >= 500 {
				t.Errorf("%s %s: %d %s", method, r.URL, w.Code, w.Body)
			}
		}
		tx, err := b.store.Get(t.Context(), "open")
		if err != nil || tx.State != store.Prepared {
			t.Errorf("%s %s: somebody changed it: %+v %v", method, r.URL, tx, err)
		}
		if names, err := b.store.AllTopics(t.Context(), "", 10); err != nil || len(names) > 0 {
			t.Errorf("%s %s: somebody made topics: %v %v", method, r.URL, names, err)
		}
	})
}
