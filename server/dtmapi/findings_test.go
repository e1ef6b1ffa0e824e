package dtmapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/troth-tx/troth/store"
)

// F1: dtm takes a repeated submit of a TCC or XA whose second phase is not finished for
// its success, and never confirms.
func TestF1RepeatedSubmitDoesNotSucceed(t *testing.T) {
	t.Parallel()
	for pattern, op := range map[string]string{"tcc": "confirm", "xa": "commit"} {
		t.Run(pattern, func(t *testing.T) {
			t.Parallel()
			w := newWorldOver(t, durable(t), later())
			w.prepared(pattern, "g", "a", "b")
			w.participants.will("a", op, breaks)
			submit := obj{"gid": "g", "trans_type": pattern, "wait_result": true}
			for n := 1; n <= 3; n++ {
				w.want(w.post("submit", submit), 425, `{"dtm_result":"ONGOING","message":"ONGOING"}`)
				if s := w.state("g"); s != store.Submitted {
					t.Fatalf("after %d submits it is %s", n, s)
				}
				if calls := len(w.participants.calls("a", op, "g")); calls != n {
					t.Errorf("after %d submits a was called %d times", n, calls)
				}
			}
			w.participants.will("a", op, succeeds)
			w.must(w.post("submit", submit))
			if s := w.state("g"); s != store.Succeeded {
				t.Errorf("it is %s", s)
			}
			if calls := len(w.participants.calls("b", op, "g")); calls != 1 {
				t.Errorf("b, which succeeded at once, was called %d times", calls)
			}
		})
	}
}

// A submit that is repeated while the first pass is under way neither succeeds nor
// calls a participant twice.
func TestSubmitAtOnceTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.prepared("tcc", "g", "a")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			a := w.post("submit", obj{"gid": "g", "trans_type": "tcc", "wait_result": true})
			late := a.status == 409 && strings.Contains(a.body, "current status 'succeed', cannot sumbmit")
			if a.status != 200 && !late {
				t.Errorf("the answer is %+v", a)
			}
		})
	}
	wg.Wait()
	if calls := len(w.participants.calls("a", "confirm", "g")); calls != 1 {
		t.Errorf("confirm was called %d times", calls)
	}
}

// F2: of gids that are prefixes of one another dtm's default store loses branches.
func TestF2GIDsThatArePrefixes(t *testing.T) {
	t.Parallel()
	const n = 2000
	w := newWorldOver(t, durable(t), later())
	var wg sync.WaitGroup
	next := make(chan string)
	for range 64 {
		wg.Go(func() {
			for gid := range next {
				w.prepared("tcc", gid, "a")
				w.must(w.post("submit", obj{"gid": gid, "trans_type": "tcc", "wait_result": true}))
			}
		})
	}
	for i := 1; i <= n; i++ {
		next <- fmt.Sprintf("order-%d", i)
	}
	close(next)
	wg.Wait()
	confirmed := make(map[string]int)
	for _, c := range w.participants.calls("a", "confirm", "") {
		confirmed[c.gid]++
	}
	for i := 1; i <= n; i++ {
		gid := fmt.Sprintf("order-%d", i)
		if confirmed[gid] != 1 {
			t.Errorf("%s was confirmed %d times", gid, confirmed[gid])
		}
		if s := w.state(gid); s != store.Succeeded {
			t.Errorf("%s is %s", gid, s)
		}
	}
}

// F7: what is not decided is ONGOING, and may succeed.
func TestF7NotDecidedIsNotFailure(t *testing.T) {
	t.Parallel()
	background(t)
	w := newWorld(t, soon())
	w.participants.will("a", "action", breaks, goesOn, succeeds)
	a := w.post("submit", with(w.saga("g", "a"), "wait_result", true))
	w.want(a, 425, `{"dtm_result":"ONGOING","message":"ONGOING"}`)
	w.await("g", store.Succeeded)
}

// F8: dtm's SQL stores refuse what is long, or stay where they are because of it.
func TestF8LongInputs(t *testing.T) {
	t.Parallel()
	w := newWorldOver(t, durable(t), later())
	mb := strings.Repeat("x", 1<<20)

	s := with(w.saga("payload", "a"), "payloads", []string{mb}, "wait_result", true)
	w.must(w.post("submit", s))
	if calls := w.participants.calls("a", "action", "payload"); len(calls) != 1 || calls[0].body != mb {
		t.Error("the payload of a megabyte did not arrive")
	}

	input := `{"name":"wf","data":"` + strings.Repeat("QUFB", 1<<20) + `"}`
	if a := w.post("prepareWorkflow", obj{"gid": "wf", "trans_type": "workflow", "custom_data": input}); a.status != 200 {
		t.Fatalf("%d %s", a.status, brief(a.body))
	}
	w.must(w.post("registerBranch", obj{"gid": "wf", "trans_type": "workflow", "branch_id": "01", "op": "action", "status": "succeed", "data": mb}))
	w.must(w.post("submit", obj{"gid": "wf", "trans_type": "workflow", "req_extra": obj{
		"status": "failed", "rollback_reason": strings.Repeat("é", 5<<10), "result": "",
	}}))
	stored, err := w.store.Get(t.Context(), "wf")
	if err != nil {
		t.Fatal(err)
	}
	if stored.State != store.Failed || stored.Data != input || len(stored.Branches) != 1 || string(stored.Branches[0].Payload) != mb {
		t.Error("the workflow is not stored as it was sent")
	}
	if !strings.HasPrefix(stored.Reason, strings.Repeat("é", 500)) {
		t.Errorf("the reason is %q", brief(stored.Reason))
	}

	w.prepared("tcc", "abort", "a")
	w.must(w.post("abort", obj{"gid": "abort", "trans_type": "tcc", "wait_result": true, "rollback_reason": strings.Repeat("r", 10<<10)}))

	w.participants.will("b", "action", reaction{409, strings.Repeat("n", 2000)})
	if a := w.post("submit", with(w.saga("body", "a", "b"), "wait_result", true)); a.status != 409 {
		t.Errorf("%d %s", a.status, brief(a.body))
	}
	if s := w.state("body"); s != store.Failed {
		t.Errorf("it is %s", s)
	}

	if a := w.post("submit", with(w.saga("large", "a"), "payloads", []string{strings.Repeat("x", 9<<20)})); a.status != 413 || !strings.Contains(a.body, "8388608 bytes") {
		t.Errorf("a body of 9 MiB: %d %s", a.status, brief(a.body))
	}
}

// F9: in dtm a topic that was deleted goes on delivering, and one that was made again
// delivers to the old subscribers, until a restart.
func TestF9Topics(t *testing.T) {
	t.Parallel()
	w := newWorldOver(t, durable(t), later())
	publish := func(gid string) said {
		return w.post("submit", obj{
			"gid": gid, "trans_type": "msg", "wait_result": true, "steps": []obj{{"action": "topic://news"}}, "payloads": []string{"{}"},
		})
	}
	count := func(name, gid string, want int) {
		t.Helper()
		if n := len(w.participants.calls(name, "action", gid)); n != want {
			t.Errorf("%s heard of %s %d times, want %d", name, gid, n, want)
		}
	}
	subscribe := func(name string) {
		w.must(w.get("subscribe", "topic", "news", "url", w.participants.url(name), "remark", "r"))
	}

	subscribe("old")
	w.must(publish("1"))
	count("old", "1", 1)

	w.must(w.ask(http.MethodDelete, "/api/dtmsvr/topic/news", nil))
	if a := publish("2"); a.status != 400 || !strings.Contains(a.body, "not found") {
		t.Errorf("a message to a topic that was deleted: %+v", a)
	}
	count("old", "2", 0)

	subscribe("new")
	subscribe("newer")
	w.must(publish("3"))
	count("old", "3", 0)
	count("new", "3", 1)
	count("newer", "3", 1)
	if c := w.participants.calls("newer", "action", "3"); c[0].branch != "01-02" {
		t.Errorf("the branch of the second subscriber is %s", c[0].branch)
	}

	w.must(w.get("unsubscribe", "topic", "news", "url", w.participants.url("new")))
	w.must(publish("4"))
	count("new", "4", 0)
	count("newer", "4", 1)
}

// F9: dtm's topics are a map that is read and written without a lock.
func TestF9SubscribeAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorldOver(t, durable(t), later())
	w.must(w.get("subscribe", "topic", "news", "url", w.participants.url("s")))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			u := w.participants.url(fmt.Sprintf("s%d", i))
			for range 10 {
				w.must(w.get("subscribe", "topic", "news", "url", u))
				w.must(w.get("unsubscribe", "topic", "news", "url", u))
			}
			w.must(w.get("subscribe", "topic", "news", "url", u))
		})
		wg.Go(func() {
			for n := range 10 {
				w.must(w.post("submit", obj{
					"gid": fmt.Sprintf("%d-%d", i, n), "trans_type": "msg", "steps": []obj{{"action": "topic://news"}}, "payloads": []string{"{}"},
				}))
			}
		})
	}
	wg.Wait()
	subscribers, err := w.store.Topic(t.Context(), "news")
	if err != nil || len(subscribers) != 9 {
		t.Errorf("%d subscribers (%v), want 9", len(subscribers), err)
	}
}
