package api_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth/server/api"
	"github.com/troth-tx/troth/store"
)

// Every route is answered once with 200 and as the document says.
func TestEveryRouteKeepsTheContract(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := time.Now()
	b.put(t, store.Transaction{
		GID: "saga/1", Owner: "alice", Pattern: store.Saga, State: store.Aborting, Protocol: "http", Reason: "no seats", Created: now.Add(-time.Minute),
		Due: now.Add(time.Hour), Attempts: 2, QueryPrepared: "http://user:planted@127.0.0.1/q",
		Options: store.Options{Headers: map[string]string{"X-Key": "planted"}, RetryInterval: 90 * time.Second},
		Branches: []store.Branch{
			{ID: "01", Op: store.Compensate, URL: "http://127.0.0.1:1/b", State: store.BranchPrepared, Error: "down"},
			{ID: "01", Op: store.Action, URL: "http://127.0.0.1:1/a", State: store.BranchSucceeded, Called: now.Add(-time.Minute), Finished: now.Add(-50 * time.Second), Payload: []byte("planted")},
			{ID: "02", Op: store.Compensate, State: store.BranchPrepared},
			{ID: "02", Op: store.Action, URL: "http://127.0.0.1:1/c", State: store.BranchFailed, Called: now.Add(-40 * time.Second), Finished: now.Add(-30 * time.Second), Error: "no seats"},
		},
	})
	tx := want[api.Transaction](t, b, 200, "GET", "/api/v1/transactions/saga%2F1", "")
	var told []string
	for _, e := range tx.Timeline {
		told = append(told, strings.TrimSpace(e.Event+" "+e.Branch+" "+e.Op))
	}
	if got, want := strings.Join(told, ", "), "created, called 01 action, succeeded 01 action, called 02 action, failed 02 action, next_attempt"; got != want {
		t.Errorf("timeline: %s, want %s", got, want)
	}
	if !tx.Stuck || tx.Branches != 4 || tx.Done != 1 || tx.Options.RetryInterval != 90 || tx.List[1].PayloadBytes != 7 {
		t.Errorf("transaction: %+v", tx)
	}
	if text := b.call(t, admin, "GET", "/api/v1/transactions/saga%2F1", "").Body.String(); strings.Contains(text, "planted") {
		t.Errorf("a secret is shown: %s", text)
	}
	if page := want[api.Page](t, b, 200, "GET", "/api/v1/transactions", ""); len(page.Transactions) != 1 || page.Next != "" {
		t.Errorf("list: %+v", page)
	}
	want[api.Done](t, b, 200, "POST", "/api/v1/transactions/saga%2F1/retry", `{"reason":"the service is back"}`)
	want[api.Done](t, b, 200, "POST", "/api/v1/transactions/saga%2F1/stop", `{"reason":"repaired by hand"}`)
	if tx := want[api.Transaction](t, b, 200, "GET", "/api/v1/transactions/saga%2F1", ""); tx.State != "failed" || tx.Finished == nil {
		t.Errorf("after stop: %+v", tx)
	}

	want[api.Done](t, b, 200, "POST", "/api/v1/topics/fees/subscribers", `{"url":"http://127.0.0.1:1/?key=planted","remark":"books"}`)
	want[api.Done](t, b, 200, "POST", "/api/v1/topics/fees/subscribers", `{"url":"http://127.0.0.1:2/"}`)
	if list := want[api.Topics](t, b, 200, "GET", "/api/v1/topics", ""); !slices.Equal(list.Topics, []string{"fees"}) {
		t.Errorf("topics: %+v", list)
	}
	if topic := want[api.Topic](t, b, 200, "GET", "/api/v1/topics/fees", ""); len(topic.Subscribers) != 2 || topic.Subscribers[0].Remark != "books" {
		t.Errorf("topic: %+v", topic)
	}
	want[api.Done](t, b, 200, "DELETE", "/api/v1/topics/fees/subscribers?url="+url.QueryEscape("http://127.0.0.1:2/"), "")
	want[api.Done](t, b, 200, "DELETE", "/api/v1/topics/fees", "")

	audit := want[api.Audit](t, b, 200, "GET", "/api/v1/audit", "")
	var actions []string
	for _, e := range slices.Backward(audit.Entries) {
		actions = append(actions, e.Action)
	}
	if got := strings.Join(actions, " "); got != "retry-now force-stop subscribe subscribe unsubscribe delete-topic" {
		t.Errorf("audit: %s", got)
	}
	if e := audit.Entries[4]; e.Who != "ada from 192.0.2.1" || e.GID != "saga/1" || e.Reason != "repaired by hand" || time.Since(e.At) > time.Minute {
		t.Errorf("entry: %+v", e)
	}
	if strings.Contains(fmt.Sprint(audit), "planted") {
		t.Errorf("a secret is in the audit: %+v", audit)
	}
	if list := want[api.InDoubt](t, b, 200, "GET", "/api/v1/indoubt", ""); len(list.Branches) != 1 || len(list.Unreachable) != 1 {
		t.Errorf("in doubt: %+v", list)
	}
	if me := want[api.Me](t, b, 200, "GET", "/api/v1/me", ""); me != (api.Me{Principal: "ada", Role: "admin"}) {
		t.Errorf("me: %+v", me)
	}
	want[map[string]any](t, b, 200, "GET", "/api/v1/openapi.json", "")
	b.contract.all(t)
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := time.Now()
	for i, tx := range []store.Transaction{
		{GID: "order-1", Pattern: store.Saga, State: store.Submitted, Attempts: 3},
		{GID: "order-10", Pattern: store.TCC, State: store.Prepared},
		{GID: "order-2", Pattern: store.Saga, State: store.Succeeded, Owner: "alice"},
		{GID: "pay-1", Pattern: store.Message, State: store.Failed, Owner: "bob"},
	} {
		tx.Created = now.Add(-time.Duration(i) * time.Hour)
		tx.Due = now.Add(time.Hour)
		b.put(t, tx)
	}
	stamp := func(ago time.Duration) string { return url.QueryEscape(now.Add(-ago).Format(time.RFC3339Nano)) }
	for query, want := range map[string]string{
		"":                                      "order-1 order-10 order-2 pay-1",
		"state=submitted":                       "order-1",
		"state=prepared&state=failed":           "order-10 pay-1",
		"pattern=saga":                          "order-1 order-2",
		"pattern=msg":                           "pay-1",
		"stuck=true":                            "order-1",
		"stuck=false":                           "order-1 order-10 order-2 pay-1",
		"prefix=order-1":                        "order-1 order-10",
		"prefix=%25":                            "",
		"owner=alice":                           "order-2",
		"older_than=90m":                        "order-2 pay-1",
		"created_from=" + stamp(90*time.Minute): "order-1 order-10",
		"created_until=" + stamp(150*time.Minute): "pay-1",
		"state=succeed&pattern=tcc":               "",
	} {
		if got := gids(wantPage(t, b, query)); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func wantPage(t *testing.T, b *bundle, query string) api.Page {
	t.Helper()
	return want[api.Page](t, b, 200, "GET", "/api/v1/transactions?"+query, "")
}

func gids(p api.Page) string {
	var all []string
	for _, tx := range p.Transactions {
		all = append(all, tx.GID)
	}
	return strings.Join(all, " ")
}

// Pages give every transaction once, also while others come.
func TestPages(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 4, 20, 33, 70, 71, 1000} {
		b := setup(t)
		now := time.Now()
		for i := range 70 {
			b.put(t, store.Transaction{GID: fmt.Sprintf("g-%02d", i), Pattern: store.TCC, State: store.Prepared, Created: now.Add(-time.Duration(i/5) * time.Second), Due: now.Add(time.Hour)})
		}
		seen := make(map[string]int)
		pages := 0
		for cursor := ""; ; pages++ {
			page := wantPage(t, b, fmt.Sprintf("limit=%d&cursor=%s", limit, url.QueryEscape(cursor)))
			for _, tx := range page.Transactions {
				seen[tx.GID]++
			}
			if len(page.Transactions) > limit {
				t.Fatalf("limit %d: a page of %d", limit, len(page.Transactions))
			}
			b.put(t, store.Transaction{GID: fmt.Sprintf("late-%02d", pages), Pattern: store.TCC, State: store.Prepared, Created: now.Add(time.Hour), Due: now.Add(time.Hour)})
			if cursor = page.Next; cursor == "" {
				break
			}
			if pages > 70 {
				t.Fatal("pages without end")
			}
		}
		for i := range 70 {
			if gid := fmt.Sprintf("g-%02d", i); seen[gid] != 1 {
				t.Errorf("limit %d: %s was seen %d times", limit, gid, seen[gid])
			}
		}
		if want := (70+limit-1)/limit - 1; pages != want {
			t.Errorf("limit %d: %d pages after the first, want %d", limit, pages, want)
		}
	}
}

// What is wrong with a request is said, and nothing is done.
func TestMistakes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, store.Transaction{GID: "open", Pattern: store.TCC, State: store.Prepared, Due: time.Now().Add(time.Hour)})
	b.put(t, store.Transaction{GID: "over", Pattern: store.TCC, State: store.Succeeded})
	long := strings.Repeat("x", 2000)
	for _, m := range []struct {
		status             int
		method, path, body string
		says               string
	}{
		{badRequest, "GET", "/transactions?state=done", "", "want one of prepared"},
		{badRequest, "GET", "/transactions?pattern=sagas", "", "want one of msg"},
		{badRequest, "GET", "/transactions?stuck=yes", "", "true or false"},
		{badRequest, "GET", "/transactions?limit=0", "", "from 1 to 1000"},
		{badRequest, "GET", "/transactions?cursor=none", "", "next_cursor"},
		{badRequest, "GET", "/transactions?limit=1001", "", "from 1 to 1000"},
		{badRequest, "GET", "/transactions?limit=1&limit=2", "", "occurs twice"},
		{badRequest, "GET", "/transactions?stat=failed", "", "unknown parameter"},
		{badRequest, "GET", "/transactions?older_than=-1h", "", "a duration"},
		{badRequest, "GET", "/transactions?created_from=yesterday", "", "a time"},
		{badRequest, "GET", "/transactions?prefix=" + long, "", "at most 128"},
		{badRequest, "GET", "/audit?before=x", "", "a number"},
		{notFound, "GET", "/transactions/none", "", ""},
		{notFound, "POST", "/transactions/none/stop", `{"reason":"a test"}`, ""},
		{badRequest, "POST", "/transactions/open/stop", `{}`, "say why"},
		{badRequest, "POST", "/transactions/open/stop", `{"reason":"  "}`, "say why"},
		{badRequest, "POST", "/transactions/open/stop", `{"reason":"` + long + `"}`, "say why"},
		{badRequest, "POST", "/transactions/open/stop", `{"reason":"a test","force":true}`, "unknown field"},
		{badRequest, "POST", "/transactions/open/stop", `{"reason":"a test"} {}`, "goes on"},
		{badRequest, "POST", "/transactions/open/stop", `{"reason":7}`, "cannot be read"},
		{badRequest, "POST", "/transactions/open/stop", ``, "cannot be read"},
		{conflict, "POST", "/transactions/over/stop", `{"reason":"a test"}`, "over is succeed"},
		{conflict, "POST", "/transactions/over/retry", `{"reason":"a test"}`, "over is succeed"},
		{notFound, "GET", "/topics/none", "", ""},
		{notFound, "DELETE", "/topics/none", "", ""},
		{badRequest, "POST", "/topics/t/subscribers", `{"url":""}`, "want an address"},
		{badRequest, "POST", "/topics/t%00/subscribers", `{"url":"http://x/"}`, "want a name"},
		{badRequest, "DELETE", "/topics/t/subscribers", "", "which subscriber"},
		{notFound, "GET", "/unheard-of", "", "no such route"},
	} {
		p := want[api.Problem](t, b, m.status, m.method, "/api/v1"+m.path, m.body)
		if p.Code == "" || p.Message == "" || !strings.Contains(p.Message, m.says) {
			t.Errorf("%s %s: %+v, want %q", m.method, m.path, p, m.says)
		}
	}
	if tx, err := b.store.Get(t.Context(), "open"); err != nil || tx.State != store.Prepared {
		t.Errorf("a mistake changed the transaction: %+v %v", tx, err)
	}
	for _, e := range want[api.Audit](t, b, 200, "GET", "/api/v1/audit", "").Entries {
		if e.GID == "open" {
			t.Errorf("a mistake is in the audit: %+v", e)
		}
	}
}

// Without a trace in the audit nothing is done.
func TestNoActionWithoutATrace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, store.Transaction{GID: "open", Pattern: store.TCC, State: store.Prepared, Due: time.Now().Add(time.Hour)})
	b.store.auditErr = errStore
	for _, r := range [][3]string{
		{"POST", "/transactions/open/stop", `{"reason":"a test"}`},
		{"POST", "/transactions/open/retry", `{"reason":"a test"}`},
		{"POST", "/topics/t/subscribers", `{"url":"http://127.0.0.1/"}`},
	} {
		p := want[api.Problem](t, b, unavailable, r[0], "/api/v1"+r[1], r[2])
		if strings.Contains(p.Message, errStore.Error()) {
			t.Errorf("%s tells what the store said: %+v", r[1], p)
		}
	}
	if tx, err := b.store.Get(t.Context(), "open"); err != nil || tx.State != store.Prepared || tx.Version != 1 {
		t.Errorf("it was done all the same: %+v %v", tx, err)
	}
	if list, err := b.store.Topic(t.Context(), "t"); err != nil || len(list) != 0 {
		t.Errorf("it was done all the same: %+v %v", list, err)
	}
}

// Nobody does more than their role allows, and nobody sees what is somebody else's.
func TestRoles(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, store.Transaction{GID: "alices", Owner: "alice", Pattern: store.TCC, State: store.Prepared, Due: time.Now().Add(time.Hour)})
	get, stop, retry := "/api/v1/transactions/alices", "/api/v1/transactions/alices/stop", "/api/v1/transactions/alices/retry"
	const reason = `{"reason":"a test"}`
	if w := b.call(t, alice, "GET", get, ""); w.Code != http.StatusOK {
		t.Errorf("alice: %d", w.Code)
	}
	foreign, absent := b.call(t, bob, "GET", get, ""), b.call(t, bob, "GET", "/api/v1/transactions/none", "")
	if foreign.Code != notFound || foreign.Body.String() != absent.Body.String() {
		t.Errorf("bob: %d %s, absent: %s", foreign.Code, foreign.Body, absent.Body)
	}
	if w := b.call(t, bob, "GET", "/api/v1/transactions?owner=alice", ""); w.Code != 200 || strings.Contains(w.Body.String(), "alices") {
		t.Errorf("bob's list of alice's: %s", w.Body)
	}
	for _, r := range []struct {
		path   string
		who    string
		status int
	}{{stop, "alice", 403}, {retry, "alice", 403}, {stop, "operator", 403}, {retry, "operator", 200}, {stop, "admin", 200}} {
		by := alice
		switch r.who {
		case "operator":
			by = operator
		case "admin":
			by = admin
		}
		if w := b.call(t, by, "POST", r.path, reason); w.Code != r.status {
			t.Errorf("%s by %s: %d, want %d", r.path, r.who, w.Code, r.status)
		}
	}
	r := b.call(t, admin, "GET", get, "")
	if r.Header().Get("X-Content-Type-Options") != "nosniff" || r.Header().Get("Content-Type") != "application/json" {
		t.Errorf("headers: %v", r.Header())
	}
}
