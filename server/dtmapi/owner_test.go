package dtmapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/dtmapi"
)

// A principal sees and changes its own transactions only; the others are not there for it.
func TestOwners(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	h := dtmapi.New(w.handler)
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		owner, _, _ := strings.Cut(r.URL.Path[1:], "/")
		inner := r.WithContext(engine.As(r.Context(), strings.TrimPrefix(owner, "all")))
		http.StripPrefix("/"+owner, h).ServeHTTP(rw, inner)
	}))
	t.Cleanup(w.server.Close)
	as := func(owner, call string, body any) said { return w.ask("POST", "/"+owner+"/api/dtmsvr/"+call, body) }
	see := func(owner, call string) said { return w.ask("GET", "/"+owner+"/api/dtmsvr/"+call, nil) }

	w.must(as("ann", "prepare", obj{"gid": "of-ann", "trans_type": "tcc"}))
	w.must(as("bob", "prepare", obj{"gid": "of-bob", "trans_type": "tcc"}))
	for owner, want := range map[string]string{"ann": "of-ann", "bob": "of-bob"} {
		if p := parse[page](w, see(owner, "all")); p.gids() != want {
			t.Errorf("%s sees %s", owner, p.gids())
		}
	}
	if p := parse[page](w, see("all", "all")); len(p.Transactions) != 2 {
		t.Errorf("an operator sees %s", p.gids())
	}
	w.want(see("bob", "query?gid=of-ann"), 200, `{"transaction":null,"branches":[]}`)
	w.want(see("bob", "all?gid=of-ann"), 200, `{"transactions":[],"next_position":""}`)
	for _, call := range []string{"submit", "abort", "prepare", "registerBranch", "forceStop", "resetNextCronTime"} {
		a := as("bob", call, obj{"gid": "of-ann", "trans_type": "tcc", "branch_id": "01", "confirm": "", "cancel": ""})
		if a.status < 400 {
			t.Errorf("bob may %s what is ann's: %+v", call, a)
		}
	}
	w.want(see("bob", "resetCronTime?timeout=0"), 200, `{"succeed_count":1,"has_remaining":false}`)
	w.must(as("ann", "abort", obj{"gid": "of-ann", "trans_type": "tcc", "wait_result": true}))
}
