package dtmapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/troth-tx/troth/store"
)

type progresses struct {
	Transaction *struct {
		GID            string `json:"gid"`
		Status         string `json:"status"`
		RollbackReason string `json:"rollback_reason"`
		Result         string `json:"result"`
	} `json:"transaction"`
	Progresses []struct {
		Status   string `json:"status"`
		BinData  []byte `json:"bin_data"`
		BranchID string `json:"branch_id"`
		Op       string `json:"op"`
	} `json:"progresses"`
}

func TestWorkflow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	start := obj{"gid": "g", "trans_type": "workflow", "custom_data": `{"name":"trip","data":"e30="}`, "query_prepared": w.participants.url("wf"), "protocol": "http"}
	p := parse[progresses](w, w.post("prepareWorkflow", start))
	if p.Transaction == nil || p.Transaction.GID != "g" || p.Transaction.Status != "prepared" || p.Progresses == nil || len(p.Progresses) != 0 {
		t.Fatalf("a new workflow: %+v", p)
	}

	step := func(branch, op, status, data string) said {
		return w.post("registerBranch", obj{"gid": "g", "trans_type": "workflow", "branch_id": branch, "op": op, "status": status, "data": data})
	}
	w.must(step("01", "action", "succeed", `{"ok":1}`))
	w.must(step("02", "action", "failed", "no seats FAILURE"))
	w.must(step("01", "rollback", "succeed", ""))
	w.want(step("01", "action", "succeed", `{"ok":1}`), 500, `{"message":"storage: UniqueKeyConflict"}`)
	for _, bad := range []said{step("03", "fly", "succeed", ""), step("03", "action", "prepared", "")} {
		if bad.status != 400 {
			t.Errorf("a step that is none: %+v", bad)
		}
	}

	p = parse[progresses](w, w.post("prepareWorkflow", start))
	var shown []string
	for _, b := range p.Progresses {
		shown = append(shown, strings.Join([]string{b.BranchID, b.Op, b.Status, string(b.BinData)}, " "))
	}
	if is := strings.Join(shown, "|"); is != `01 action succeed {"ok":1}|02 action failed no seats FAILURE|01 rollback succeed ` {
		t.Errorf("the steps are %s", is)
	}

	end := func(status, reason, result string) said {
		return w.post("submit", obj{"gid": "g", "trans_type": "workflow", "req_extra": obj{"status": status, "rollback_reason": reason, "result": result}})
	}
	w.must(end("failed", "no seats FAILURE", ""))
	w.must(end("failed", "no seats FAILURE", "")) // the answer to the first was lost
	w.want(end("succeed", "", "e30="), 409, `{"dtm_result":"FAILURE","message":"current status 'failed', cannot sumbmit. FAILURE"}`)
	if a := step("04", "action", "succeed", ""); a.status != 409 {
		t.Errorf("a step after the end: %+v", a)
	}
	p = parse[progresses](w, w.post("prepareWorkflow", start))
	if p.Transaction.Status != "failed" || p.Transaction.RollbackReason != "no seats FAILURE" {
		t.Errorf("it ended as %+v", p.Transaction)
	}

	w.must(w.post("submit", func() obj {
		parse[progresses](w, w.post("prepareWorkflow", with(start, "gid", "h")))
		return obj{"gid": "h", "trans_type": "workflow", "req_extra": obj{"status": "succeed", "result": "e30="}}
	}()))
	if p := parse[progresses](w, w.post("prepareWorkflow", start)); p.Transaction.Status != "succeed" || p.Transaction.Result != "e30=" {
		t.Errorf("it ended as %+v", p.Transaction)
	}
}

// dtm's Go client ends with a panic at JSON without a transaction, whatever the status.
func TestWorkflowErrorsAreNoJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.prepared("tcc", "tcc")
	for _, body := range []any{
		"hello", "", "{}",
		obj{"gid": "g", "trans_type": "saga"},
		obj{"gid": "", "trans_type": "workflow"},
		obj{"gid": "tcc", "trans_type": "workflow"},
		`{"gid":1}`, strings.Repeat("x", 9<<20),
	} {
		a := w.post("prepareWorkflow", body)
		if a.status < 400 || json.Valid([]byte(a.body)) || a.body == "" {
			t.Errorf("%d %s", a.status, brief(a.body))
		}
	}
	if s := w.state("tcc"); s != store.Prepared {
		t.Errorf("it is %s", s)
	}
}
