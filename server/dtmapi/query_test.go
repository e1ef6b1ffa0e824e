package dtmapi_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

func TestSmallEndpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.want(w.get("version"), 200, `{"version":"v0.0.0-test"}`)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		w.want(w.ask(method, "/api/ping", nil), 200, `{"msg":"pong"}`)
	}
	w.want(w.get("nothing"), 404, "404 page not found")
	if a := w.post("query", nil); a.status == 200 {
		t.Errorf("query by POST: %+v", a)
	}
	seen := make(map[string]bool)
	form := regexp.MustCompile(`^[2-9A-HJ-NP-Za-km-z]{22}$`)
	for range 100 {
		a := parse[map[string]string](w, w.get("newGid")) // dtm's client panics at anything but strings
		if gid := a["gid"]; len(a) != 2 || a["dtm_result"] != "SUCCESS" || !form.MatchString(gid) || seen[gid] {
			t.Fatalf("newGid answers %v", a)
		}
		seen[a["gid"]] = true
	}
}

// TestQuery is the shape of what is shown.
func TestQuery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.want(w.get("query", "gid", "nothing"), 200, `{"transaction":null,"branches":[]}`)
	w.want(w.get("query"), 500, `{"message":"no gid specified"}`)

	w.participants.will("b", "action", refuses)
	s := with(w.saga("g", "a", "b"), "wait_result", true, "timeout_to_fail", 60, "retry_interval", 15, "request_timeout", 5,
		"retry_limit", 2, "branch_headers", obj{"x-test": "1"}, "custom_data", `{"concurrent":true,"orders":{"1":[0]}}`)
	began := time.Now()
	if a := w.post("submit", s); a.status != 409 {
		t.Fatalf("%+v", a)
	}
	a := parse[map[string]any](w, w.get("query", "gid", "g"))
	tx := a["transaction"].(obj)
	for name, want := range (obj{
		"id": 0.0, "gid": "g", "trans_type": "saga", "status": "failed", "protocol": "http", "rollback_reason": "HTTP 409: " + refuses.body,
		"wait_result": true, "timeout_to_fail": 60.0, "retry_interval": 15.0, "request_timeout": 5.0, "retry_limit": 2.0, "concurrent": true,
		"custom_data": `{"concurrent":true,"orders":{"1":[0]}}`,
		"options":     `{"wait_result":true,"timeout_to_fail":60,"request_timeout":5,"retry_interval":15,"branch_headers":{"x-test":"1"},"concurrent":true,"retry_limit":2}`,
	}) {
		if tx[name] != want {
			t.Errorf("%s is %#v, want %#v", name, tx[name], want)
		}
	}
	for _, name := range []string{"create_time", "update_time", "rollback_time"} {
		at, err := time.Parse(time.RFC3339, fmt.Sprint(tx[name]))
		if err != nil || at.Before(began.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("%s is %v", name, tx[name])
		}
	}
	for _, absent := range []string{"finish_time", "result", "query_prepared", "next_cron_time", "owner"} {
		if v, ok := tx[absent]; ok {
			t.Errorf("%s is %v, want nothing", absent, v)
		}
	}
	var shown []string
	for _, b := range a["branches"].([]any) {
		b := b.(obj)
		shown = append(shown, fmt.Sprint(b["branch_id"], " ", b["op"], " ", b["status"], " ", b["bin_data"], " ", b["gid"]))
	}
	const payload = "eyJhbW91bnQiOjMwfQ==" // {"amount":30}
	want := "01 compensate succeed " + payload + " g|01 action succeed " + payload + " g|02 compensate succeed " + payload + " g|02 action failed " + payload + " g"
	if is := strings.Join(shown, "|"); is != want {
		t.Errorf("the branches are\n%s\nwant\n%s", is, want)
	}

	w.prepared("tcc", "open") // what is open has concurrent all the same, and a time when it is looked at
	a = parse[map[string]any](w, w.get("query", "gid", "open"))
	tx = a["transaction"].(obj)
	if tx["concurrent"] != false || tx["options"] != `{"concurrent":false}` || tx["next_cron_time"] == nil || tx["status"] != "prepared" {
		t.Errorf("an open one is shown as %v", tx)
	}
	if b, ok := a["branches"].([]any); !ok || len(b) != 0 {
		t.Errorf("branches: %v, want an empty list", a["branches"])
	}
}

type page struct {
	Transactions []struct {
		GID    string `json:"gid"`
		Type   string `json:"trans_type"`
		Status string `json:"status"`
	} `json:"transactions"`
	Next string `json:"next_position"`
}

func (p page) gids() string {
	var all []string
	for _, t := range p.Transactions {
		all = append(all, t.GID)
	}
	return strings.Join(all, " ")
}

func TestAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.want(w.get("all"), 200, `{"transactions":[],"next_position":""}`)
	began := time.Now()
	for i := range 3 {
		w.must(w.post("submit", with(w.msg(fmt.Sprintf("m%d", i), "a"), "wait_result", true)))
		time.Sleep(time.Millisecond) // their order is that of their times
	}
	w.prepared("tcc", "t")
	ms := func(at time.Time) string { return strconv.FormatInt(at.UnixMilli(), 10) }
	for _, c := range []struct {
		query string
		want  string
	}{
		{"", "t m2 m1 m0"},
		{"gid=m1", "m1"},
		{"gid=nothing", ""},
		{"status=succeed", "m2 m1 m0"},
		{"status=prepared", "t"},
		{"status=aborting", ""},
		{"transType=tcc", "t"},
		{"transType=msg&status=prepared", ""},
		{"createTimeStart=" + ms(began.Add(-time.Minute)) + "&createTimeEnd=" + ms(time.Now().Add(time.Minute)), "t m2 m1 m0"},
		{"createTimeStart=" + ms(began.Add(-10*time.Minute)) + "&createTimeEnd=" + ms(began.Add(-5*time.Minute)), ""},
	} {
		if p := parse[page](w, w.ask("GET", "/api/dtmsvr/all?"+c.query, nil)); p.gids() != c.want || p.Next != "" {
			t.Errorf("all?%s: %s, next %q, want %s", c.query, p.gids(), p.Next, c.want)
		}
	}
	var paged []string
	for position, pages := "", 0; ; pages++ {
		p := parse[page](w, w.get("all", "limit", "1", "position", position))
		paged = append(paged, p.gids())
		if position = p.Next; position == "" || pages > 9 {
			break
		}
	}
	if is := strings.TrimSpace(strings.Join(paged, " ")); is != "t m2 m1 m0" {
		t.Errorf("in pages: %s", is)
	}
	for _, bad := range []string{"limit=x", "limit=-1", "createTimeStart=x", "createTimeEnd=-1", "status=x", "transType=x"} {
		if a := w.ask("GET", "/api/dtmsvr/all?"+bad, nil); a.status != 500 || !strings.Contains(a.body, bad[:strings.Index(bad, "=")]) {
			t.Errorf("all?%s: %+v", bad, a)
		}
	}
}

// TestResetCronTime is what an operator does after an outage.
func TestResetCronTime(t *testing.T) {
	t.Parallel()
	background(t)
	w := newWorld(t, later())
	w.participants.will("a", "action", breaks)
	for i := range 5 {
		a := w.post("submit", with(w.saga(fmt.Sprintf("g%d", i), "a"), "wait_result", true))
		w.want(a, 425, `{"dtm_result":"ONGOING","message":"ONGOING"}`)
	}
	w.want(w.get("resetCronTime", "timeout", "100000"), 200, `{"succeed_count":0,"has_remaining":false}`)
	w.participants.will("a", "action", succeeds)
	w.want(w.get("resetCronTime", "timeout", "60", "limit", "2"), 200, `{"succeed_count":2,"has_remaining":true}`)
	eventually(t, func() error {
		if p := parse[page](w, w.get("all", "status", "succeed")); len(p.Transactions) < 2 {
			return fmt.Errorf("%s succeeded", p.gids())
		}
		return nil
	})
	if a := w.get("resetCronTime", "limit", "x"); a.status != 500 {
		t.Errorf("limit x: %+v", a)
	}
}

func TestResetNextCronTime(t *testing.T) {
	t.Parallel()
	background(t)
	w := newWorld(t, later())
	w.participants.will("a", "action", breaks, succeeds)
	w.want(w.post("submit", with(w.saga("g", "a"), "wait_result", true)), 425, `{"dtm_result":"ONGOING","message":"ONGOING"}`)
	w.must(w.post("resetNextCronTime", obj{"gid": "g"}))
	w.await("g", store.Succeeded)
	w.must(w.post("resetNextCronTime", obj{"gid": "g"})) // it is over: nothing is left to do
}

func TestTopicsAreShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	for _, c := range [][2]string{
		{"subscribe?url=u", "empty topic"},
		{"subscribe?topic=t", "empty url"},
		{"unsubscribe?url=u", "empty topic"},
		{"unsubscribe?topic=t", "empty url"},
		{"unsubscribe?topic=t&url=u", "no such a topic"},
		{"subscribe?url=u&topic=" + strings.Repeat("t", 129), "the limit is 128"},
		{"subscribe?topic=t&url=" + strings.Repeat("u", 1025), "the limit is 1024"},
		{"subscribe?topic=t&url=u&remark=" + strings.Repeat("r", 1025), "the limit is 1024"},
	} {
		if a := w.ask("GET", "/api/dtmsvr/"+c[0], nil); a.status != 500 || !strings.Contains(a.body, c[1]) {
			t.Errorf("%s: %+v", brief(c[0]), a)
		}
	}
	w.want(w.ask("DELETE", "/api/dtmsvr/topic/t", nil), 500, `{"message":"storage: NotFound"}`)
	w.want(w.get("scanKV", "cat", "topics"), 200, `{"kv":[],"next_position":""}`)

	for _, topic := range []string{"a", "b", "c"} {
		w.must(w.get("subscribe", "topic", topic, "url", "http://u", "remark", "r"))
	}
	w.want(w.get("subscribe", "topic", "a", "url", "http://u"), 500, `{"message":"this url exists"}`)
	w.want(w.get("unsubscribe", "topic", "a", "url", "http://v"), 500, `{"message":"no such an url"}`)

	type kv struct {
		Category string `json:"cat"`
		Key      string `json:"k"`
		Value    string `json:"v"`
	}
	type answer struct {
		KV   []kv   `json:"kv"`
		Next string `json:"next_position"`
	}
	var all []kv
	for position := ""; ; {
		a := parse[answer](w, w.get("scanKV", "cat", "topics", "limit", "1", "position", position))
		if all = append(all, a.KV...); a.Next == "" {
			break
		}
		position = a.Next
	}
	if len(all) != 3 || all[1] != (kv{"topics", "b", `[{"url":"http://u","remark":"r"}]`}) {
		t.Errorf("the topics are %+v", all)
	}
	if a := parse[answer](w, w.get("queryKV", "cat", "topics", "key", "c")); len(a.KV) != 1 || a.KV[0].Key != "c" {
		t.Errorf("queryKV: %+v", a)
	}
	if a := parse[answer](w, w.get("queryKV", "cat", "topics")); len(a.KV) != 3 {
		t.Errorf("queryKV of all: %+v", a)
	}
	w.want(w.get("queryKV", "cat", "topics", "key", "nothing"), 200, `{"kv":[]}`)
	w.want(w.get("scanKV", "cat", "others"), 200, `{"kv":[],"next_position":""}`)
}
