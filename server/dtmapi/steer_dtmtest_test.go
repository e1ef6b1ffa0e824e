//go:build dtmtest

package dtmapi_test

import (
	"net/http"
	"testing"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

const steered = true

func (w *world) hook(method, path string) said {
	w.t.Helper()
	return w.ask(method, "/api/dtmtest/"+path, nil)
}

func (w *world) cronOnce(query, gid string) {
	w.t.Helper()
	w.want(w.hook(http.MethodPost, "cronOnce"+query), 200, `{"gid":"`+gid+`"}`)
}

func (w *world) processed(gid string) {
	w.t.Helper()
	timeout := "10000"
	if gid == "" {
		timeout = "20"
	}
	w.want(w.hook(http.MethodGet, "processed?timeout="+timeout), 200, `{"gid":"`+gid+`"}`)
}

// TestHooks walks through what a suite does: it submits, waits for the pass, turns the
// clock and takes the next step by hand.
func TestHooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, engine.Limits{})
	w.processed("")
	w.cronOnce("", "")

	w.participants.will("a", "action", goesOn, breaks, succeeds)
	w.must(w.post("submit", w.saga("g", "a")))
	w.processed("g")
	if s := w.state("g"); s != store.Submitted {
		t.Fatalf("it is %s", s)
	}
	w.cronOnce("?cron=0", "") // due in 10 s
	w.cronOnce("", "g")       // which is within 180 s
	w.processed("g")
	w.cronOnce("?cron=2000", "")
	w.cronOnce("?cron=100000", "g")
	w.processed("g")
	if s := w.state("g"); s != store.Succeeded {
		t.Errorf("it is %s", s)
	}
	w.cronOnce("", "")
	w.processed("")

	w.prepared("tcc", "t", "a")
	w.cronOnce("", "t") // looked at, and too young to be aborted
	w.processed("t")
	if s := w.state("t"); s != store.Prepared {
		t.Errorf("it is %s", s)
	}
	w.cronOnce("?now=300000", "t")
	w.processed("t")
	if s := w.state("t"); s != store.Failed {
		t.Errorf("it is %s", s)
	}
	if n := len(w.participants.calls("a", "cancel", "t")); n != 1 {
		t.Errorf("cancel was called %d times", n)
	}

	w.must(w.hook(http.MethodPost, "forward?now=0&cron=0"))
	w.prepared("tcc", "u", "a")
	w.cronOnce("", "")
	w.must(w.hook(http.MethodPost, "forward?now=300000")) // cron stays at 0
	w.cronOnce("", "")
	w.cronOnce("?cron=180000", "u")
	w.processed("u")
	if s := w.state("u"); s != store.Failed {
		t.Errorf("it is %s", s)
	}

	w.must(w.get("subscribe", "topic", "news", "url", "http://u"))
	w.must(w.hook(http.MethodPost, "topics"))
	w.prepared("tcc", "v", "a")
	w.must(w.hook(http.MethodPost, "reset"))
	w.want(w.get("all"), 200, `{"transactions":[],"next_position":""}`)
	w.want(w.get("scanKV", "cat", "topics"), 200, `{"kv":[],"next_position":""}`)
	w.must(w.post("prepare", obj{"gid": "v", "trans_type": "xa"})) // as if it had never been
	if a := w.hook(http.MethodPost, "forward?now=x"); a.status != 500 {
		t.Errorf("%+v", a)
	}
}

// A message's delay is judged by the clock that is ahead, and a workflow's end is no pass.
func TestHooksDelayAndWorkflow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, engine.Limits{})
	w.must(w.hook(http.MethodPost, "forward?now=0&cron=0"))
	w.must(w.post("submit", with(w.msg("m", "a"), "custom_data", `{"delay":20}`)))
	w.processed("m")
	w.cronOnce("?cron=10000", "")
	w.cronOnce("?cron=30000", "m")
	w.processed("m")
	if s := w.state("m"); s != store.Succeeded {
		t.Errorf("it is %s", s)
	}
	parse[progresses](w, w.post("prepareWorkflow", obj{"gid": "wf", "trans_type": "workflow", "custom_data": `{"name":"n","data":""}`}))
	w.must(w.post("submit", obj{"gid": "wf", "trans_type": "workflow", "req_extra": obj{"status": "succeed"}}))
	w.processed("")
}
