package dtmapi_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/troth-tx/troth/store"
)

// TestWaitResult is the table of the answers to submit and abort with wait_result, for
// what the first pass came to. F7: dtm answers some that are not decided with FAILURE.
func TestWaitResult(t *testing.T) {
	t.Parallel()
	const (
		ok      = `{"dtm_result":"SUCCESS"}`
		ongoing = `{"dtm_result":"ONGOING","message":"ONGOING"}`
	)
	for _, c := range []struct {
		name, pattern string
		op            string // that the participant reacts to
		reaction      reaction
		abort         bool
		status        int
		body          string
		state         store.State
	}{
		{"msg, succeeded", "msg", "action", succeeds, false, 200, ok, store.Succeeded},
		{"msg, ongoing", "msg", "action", goesOn, false, 425, ongoing, store.Submitted},
		{"msg, 500", "msg", "action", breaks, false, 425, ongoing, store.Submitted},
		{"msg, 201", "msg", "action", reaction{201, "made"}, false, 425, ongoing, store.Submitted},
		{"msg, refused, which it may not", "msg", "action", refuses, false, 425, ongoing, store.Submitted},
		{"saga, succeeded", "saga", "action", succeeds, false, 200, ok, store.Succeeded},
		{"saga, rolled back", "saga", "action", refuses, false, 409, `{"dtm_result":"FAILURE","message":"HTTP 409: {\"error\":\"no money FAILURE\"} FAILURE"}`, store.Failed},
		{"saga, rolled back by a word", "saga", "action", reaction{200, "FAILURE"}, false, 409, `{"dtm_result":"FAILURE","message":"HTTP 200: FAILURE"}`, store.Failed},
		{"saga, ongoing", "saga", "action", goesOn, false, 425, ongoing, store.Submitted},
		{"saga, 500", "saga", "action", breaks, false, 425, ongoing, store.Submitted},
		{"tcc, confirmed", "tcc", "confirm", succeeds, false, 200, ok, store.Succeeded},
		{"tcc, ongoing", "tcc", "confirm", goesOn, false, 425, ongoing, store.Submitted},
		{"tcc, 500", "tcc", "confirm", breaks, false, 425, ongoing, store.Submitted},
		{"tcc, refused, which it may not", "tcc", "confirm", refuses, false, 425, ongoing, store.Submitted},
		{"xa, committed", "xa", "commit", succeeds, false, 200, ok, store.Succeeded},
		{"xa, ongoing", "xa", "commit", goesOn, false, 425, ongoing, store.Submitted},
		{"xa, 204", "xa", "commit", reaction{204, ""}, false, 425, ongoing, store.Submitted},
		{"abort of tcc, cancelled", "tcc", "cancel", succeeds, true, 200, ok, store.Failed},
		{"abort of tcc, cancel fails", "tcc", "cancel", breaks, true, 425, ongoing, store.Aborting},
		{"abort of xa, rolled back", "xa", "rollback", succeeds, true, 200, ok, store.Failed},
		{"abort of xa, ongoing", "xa", "rollback", goesOn, true, 425, ongoing, store.Aborting},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, later())
			w.participants.will("a", c.op, c.reaction)
			request := obj{"gid": "g", "trans_type": c.pattern}
			switch c.pattern {
			case "msg":
				request = w.msg("g", "a")
			case "saga":
				request = w.saga("g", "a")
			default:
				w.prepared(c.pattern, "g", "a")
			}
			call := "submit"
			if c.abort {
				call = "abort"
			}
			w.want(w.post(call, with(request, "wait_result", true)), c.status, c.body)
			if s := w.state("g"); s != c.state {
				t.Errorf("it is %s, want %s", s, c.state)
			}
			if n := len(w.participants.calls("a", c.op, "g")); n != 1 {
				t.Errorf("%s was called %d times, want once", c.op, n)
			}
		})
	}
}

// TestRefusals is the table of requests that come too late, too early or not at all
// right, with the words that people and clients look for.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.must(w.post("submit", with(w.saga("done", "a"), "wait_result", true)))
	w.prepared("tcc", "prepared", "a")
	w.participants.will("broken", "confirm", breaks)
	w.prepared("tcc", "submitted", "broken")
	w.want(w.post("submit", obj{"gid": "submitted", "trans_type": "tcc", "wait_result": true}), 425, `{"dtm_result":"ONGOING","message":"ONGOING"}`)
	w.must(w.post("prepare", w.msg("announced", "a")))

	for _, c := range []struct {
		name   string
		call   string
		body   any
		status int
		says   string // in the message
	}{
		{"prepare what is over", "prepare", obj{"gid": "done", "trans_type": "saga"}, 409, "current status 'succeed', cannot prepare. FAILURE"},
		{"prepare as something else", "prepare", obj{"gid": "prepared", "trans_type": "xa"}, 409, "current status 'prepared', cannot prepare. FAILURE"},
		{"submit what is over", "submit", w.saga("done", "a"), 409, "current status 'succeed', cannot sumbmit. FAILURE"},
		{"submit as something else", "submit", obj{"gid": "prepared", "trans_type": "xa"}, 409, "current status 'prepared', cannot sumbmit. FAILURE"},
		{"abort what is over", "abort", obj{"gid": "done", "trans_type": "saga"}, 409, "trans type: 'saga' current status 'succeed', cannot abort. FAILURE"},
		{"abort what was submitted", "abort", obj{"gid": "submitted", "trans_type": "tcc"}, 409, "trans type: 'tcc' current status 'submitted', cannot abort. FAILURE"},
		{"abort nothing", "abort", obj{"gid": "nothing", "trans_type": "tcc"}, 500, "no TransGlobal with gid: nothing found"},
		{"register too late", "registerBranch", obj{"gid": "submitted", "trans_type": "tcc", "branch_id": "02"}, 409, "no trans with gid: submitted status: prepared found FAILURE"},
		{"register at nothing", "registerBranch", obj{"gid": "nothing", "trans_type": "xa", "branch_id": "02"}, 409, "no trans with gid: nothing status: prepared found FAILURE"},
		{"register twice", "registerBranch", obj{"gid": "prepared", "trans_type": "tcc", "branch_id": "01"}, 500, "storage: UniqueKeyConflict"},
		{"register at a message", "registerBranch", obj{"gid": "announced", "trans_type": "tcc", "branch_id": "01"}, 409, "no trans with gid: announced status: prepared found FAILURE"},
		{"register as something else", "registerBranch", obj{"gid": "prepared", "trans_type": "saga", "branch_id": "02"}, 400, "unknow trans type: saga"},
		{"register without a branch", "registerBranch", obj{"gid": "prepared", "trans_type": "tcc"}, 400, "branch_id is empty"},
		{"register a number", "registerBranch", `{"gid":1}`, 400, "json: cannot unmarshal number"},
		{"stop what is over", "forceStop", obj{"gid": "done"}, 409, "global transaction force stop error. status: succeed. error: FAILURE"},
		{"stop nothing", "forceStop", obj{"gid": "nothing"}, 500, "no TransGlobal with gid: nothing found"},
		{"retry nothing", "resetNextCronTime", obj{"gid": "nothing"}, 500, "no TransGlobal with gid: nothing found"},
		{"no pattern", "submit", obj{"gid": "x"}, 400, "trans_type"},
		{"no gid", "prepare", obj{"trans_type": "tcc"}, 400, "gid is empty"},
		{"gid of something else than text", "prepare", `{"gid":7,"trans_type":"tcc"}`, 400, "gid"},
		{"no JSON", "submit", "hello", 400, "invalid character"},
		{"nothing", "abort", "", 400, "unexpected end of JSON"},
		{"too few payloads", "submit", with(w.saga("x", "a", "b"), "payloads", []string{"{}"}), 400, "payloads: 1 for 2 steps"},
		{"orders of no step", "submit", with(w.saga("x", "a"), "custom_data", `{"concurrent":true,"orders":{"0":[7]}}`), 400, "orders"},
		{"a header that is none", "submit", with(w.saga("x", "a"), "branch_headers", obj{"a b": "c"}), 400, "branch_headers"},
		{"a negative time", "submit", with(w.saga("x", "a"), "retry_interval", -1), 400, "retry_interval is -1"},
		{"a negative delay", "submit", with(w.msg("x", "a"), "custom_data", `{"delay":-1}`), 400, "delay is -1"},
		{"a topic that is not there", "submit", obj{"gid": "x", "trans_type": "msg", "steps": []obj{{"action": "topic://none"}}, "payloads": []string{"{}"}}, 400, "not found"},
		{"the end of no workflow", "submit", obj{"gid": "done", "trans_type": "workflow", "req_extra": obj{"status": "succeed"}}, 409, "current status 'succeed', cannot sumbmit. FAILURE"},
		{"a workflow without an end", "submit", obj{"gid": "done", "trans_type": "workflow"}, 400, "req_extra"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := w.post(c.call, c.body)
			if a.status != c.status || !strings.Contains(a.body, c.says) {
				t.Errorf("the answer is %d %s\nwant %d ... %s", a.status, brief(a.body), c.status, c.says)
			}
			if failure := strings.Contains(a.body, `"dtm_result":"FAILURE"`); failure != (c.status == 409) {
				t.Errorf("%d with the body %s", a.status, a.body)
			}
		})
	}
}

// TestSagaCalls looks at what the participants of a saga hear: dtm's query, the payload
// as it was sent, and GET if there is none.
func TestSagaCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.participants.will("c", "action", refuses)
	s := with(w.saga("g", "a", "b", "c"), "payloads", []string{`{"amount":30}`, "", "plain"}, "wait_result", true)
	if a := w.post("submit", s); a.status != 409 {
		t.Fatalf("%+v", a)
	}
	for _, want := range []heard{
		{"a", "action", "g", "01", "saga", "POST", `{"amount":30}`},
		{"b", "action", "g", "02", "saga", "GET", ""},
		{"c", "action", "g", "03", "saga", "POST", "plain"},
		{"a", "compensate", "g", "01", "saga", "POST", `{"amount":30}`},
		{"b", "compensate", "g", "02", "saga", "GET", ""},
		{"c", "compensate", "g", "03", "saga", "POST", "plain"},
	} {
		if is := w.participants.calls(want.name, want.op, "g"); len(is) != 1 || is[0] != want {
			t.Errorf("%s %s heard %+v, want %+v once", want.name, want.op, is, want)
		}
	}
}

// TestOldForms accepts what clients of all ages and languages send.
func TestOldForms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	a := w.participants.url("a")
	for name, body := range map[string]string{
		"python": `{"gid":"python","trans_type":"saga","steps":[{"action":"` + a + `","compensate":null}],"payloads":["{}"],"custom_data":null,
			"query_prepared":null,"protocol":null,"passthrough_headers":[],"branch_headers":null,"wait_result":true,"timeout_to_fail":null,"req_extra":null}`,
		"data-in-steps": `{"gid":"data-in-steps","trans_type":"saga","wait_result":true,"steps":[{"action":"` + a + `","compensate":"","data":"{\"n\":1}"}]}`,
		"unknown":       `{"gid":"unknown","trans_type":"msg","wait_result":true,"steps":[{"action":"` + a + `","extra":"x"}],"payloads":["{}"],"more":{"a":[1,2.5,null]}}`,
		"stripped":      `{"gid":"str\r\nip;ped","trans_type":"saga","wait_result":true,"steps":[{"action":"` + a + `"}],"payloads":["{}"]}`,
		"no-url":        `{"gid":"no-url","trans_type":"saga","wait_result":true,"steps":[{"action":"","compensate":""}],"payloads":[""]}`,
	} {
		w.must(w.post("submit", body))
		if s := w.state(name); s != store.Succeeded {
			t.Errorf("%s is %s", name, s)
		}
	}
	if is := w.participants.calls("a", "action", "data-in-steps"); len(is) != 1 || is[0].body != `{"n":1}` || is[0].method != "POST" {
		t.Errorf("data in steps: heard %+v", is)
	}
	for _, alias := range []string{"registerTccBranch", "registerXaBranch"} {
		pattern := strings.ToLower(alias[len("register") : len(alias)-len("Branch")])
		w.must(w.post("prepare", obj{"gid": alias, "trans_type": pattern}))
		w.must(w.post(alias, obj{"gid": alias, "trans_type": pattern, "branch_id": "01", "try": "x", "status": "prepared", "data": nil}))
	}
}

// TestRegister looks at the branches that a registration makes, and their order.
func TestRegister(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.must(w.post("prepare", obj{"gid": "tcc", "trans_type": "tcc"}))
	w.must(w.post("registerBranch", obj{"gid": "tcc", "trans_type": "tcc", "branch_id": "0101", "data": "d", "confirm": "http://c", "cancel": "http://x"}))
	w.must(w.post("prepare", obj{"gid": "xa", "trans_type": "xa"}))
	w.must(w.post("registerBranch", obj{"gid": "xa", "trans_type": "xa", "branch_id": "01", "url": "http://u"}))
	type branch struct {
		GID      string `json:"gid"`
		URL      string `json:"url"`
		BinData  string `json:"bin_data"`
		BranchID string `json:"branch_id"`
		Op       string `json:"op"`
		Status   string `json:"status"`
	}
	type answer struct {
		Branches []branch `json:"branches"`
	}
	d := base64.StdEncoding.EncodeToString([]byte("d"))
	for gid, want := range map[string][]branch{
		"tcc": {{"tcc", "http://x", d, "0101", "cancel", "prepared"}, {"tcc", "http://c", d, "0101", "confirm", "prepared"}},
		"xa":  {{"xa", "http://u", "", "01", "rollback", "prepared"}, {"xa", "http://u", "", "01", "commit", "prepared"}},
	} {
		is := parse[answer](w, w.get("query", "gid", gid)).Branches
		if len(is) != 2 || is[0] != want[0] || is[1] != want[1] {
			t.Errorf("%s has the branches %+v\nwant %+v", gid, is, want)
		}
	}
}

// TestPrepare may be repeated, and a message may be aborted.
func TestPrepare(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	for range 2 {
		w.must(w.post("prepare", w.msg("g", "a")))
	}
	w.must(w.post("abort", obj{"gid": "g", "trans_type": "msg", "rollback_reason": "changed my mind"}))
	if s := w.state("g"); s != store.Failed {
		t.Errorf("it is %s, want failed", s)
	}
	w.must(w.post("prepare", w.msg("h", "a")))
	w.must(w.post("submit", w.msg("h", "a")))
	w.await("h", store.Succeeded)
	if n := len(w.participants.calls("a", "action", "")); n != 1 {
		t.Errorf("a was called %d times, want once", n)
	}
}

// TestForceStop calls nobody.
func TestForceStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.prepared("tcc", "g", "a")
	w.must(w.post("forceStop", obj{"gid": "g"}))
	if s := w.state("g"); s != store.Failed {
		t.Errorf("it is %s, want failed", s)
	}
	if n := len(w.participants.calls("a", "cancel", "")); n != 0 {
		t.Errorf("cancel was called %d times", n)
	}
}

// TestCheck refuses what would never be called, before anything is stored.
func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.handler.Check = func(url string) error {
		if strings.Contains(url, "evil") {
			return errors.New("evil is not allowed")
		}
		return nil
	}
	w.serve()
	w.prepared("tcc", "t")
	for name, a := range map[string]said{
		"action":     w.post("submit", w.saga("g", "evil")),
		"compensate": w.post("submit", with(w.saga("g", "a"), "steps", []obj{{"action": "", "compensate": "http://evil"}})),
		"query":      w.post("prepare", with(w.msg("g", "a"), "query_prepared", "http://evil")),
		"workflow":   w.post("prepareWorkflow", obj{"gid": "g", "trans_type": "workflow", "query_prepared": "http://evil", "custom_data": `{"name":"n","data":""}`}),
		"confirm":    w.post("registerBranch", obj{"gid": "t", "trans_type": "tcc", "branch_id": "01", "confirm": "http://evil"}),
		"subscriber": w.get("subscribe", "topic", "t", "url", "http://evil"),
	} {
		if a.status != 400 || !strings.Contains(a.body, "evil is not allowed") {
			t.Errorf("%s: %+v", name, a)
		}
	}
	w.want(w.get("query", "gid", "g"), 200, `{"transaction":null,"branches":[]}`)
}
