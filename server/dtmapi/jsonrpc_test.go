package dtmapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/troth-tx/troth/store"
)

func TestJSONRPC(t *testing.T) {
	t.Parallel()
	w := newWorld(t, later())
	w.participants.will("refuses", "action", refuses)
	w.participants.will("goes-on", "action", goesOn)
	call := func(method string, params any) obj {
		return obj{"jsonrpc": "2.0", "id": "no-use", "method": method, "params": params}
	}
	for _, c := range []struct {
		name   string
		body   any
		status int
		code   int // 0: no error
		says   string
	}{
		{"prepare", call("prepare", obj{"gid": "t", "trans_type": "tcc"}), 200, 0, ""},
		{"registerBranch", call("registerBranch", obj{"gid": "t", "trans_type": "tcc", "branch_id": "01", "confirm": w.participants.url("a")}), 200, 0, ""},
		{"submit", call("submit", obj{"gid": "t", "trans_type": "tcc", "wait_result": true}), 200, 0, ""},
		{"submit again", call("submit", obj{"gid": "t", "trans_type": "tcc"}), 200, -32901, "current status 'succeed', cannot sumbmit. FAILURE"},
		{"abort what is over", call("abort", obj{"gid": "t", "trans_type": "tcc"}), 200, -32901, "cannot abort. FAILURE"},
		{"a saga that fails", call("submit", with(w.saga("f", "refuses"), "wait_result", true)), 200, -32901, "no money"},
		{"a saga that goes on", call("submit", with(w.saga("o", "goes-on"), "wait_result", true)), 200, -32902, "ONGOING"},
		{"abort nothing", call("abort", obj{"gid": "nothing", "trans_type": "tcc"}), 200, -32603, "no TransGlobal with gid: nothing found"},
		{"register as nothing", call("registerBranch", obj{"trans_type": "not-exists"}), 200, -32603, "unknow trans type"},
		{"no JSON", "hello", 400, -32700, "Parse json error"},
		{"a number as id", `{"jsonrpc":"2.0","id":1,"method":"newGid"}`, 400, -32700, "Parse json error"},
		{"another version", with(call("newGid", ""), "jsonrpc", "1.0"), 200, -32600, "Bad json request"},
		{"no id", with(call("newGid", ""), "id", ""), 200, -32600, "Bad json request"},
		{"no method", call("not-exists", ""), 200, -32601, "Method not found: not-exists"},
		{"params that are none", call("submit", "x"), 200, -32603, "json"},
		{"no params", `{"jsonrpc":"2.0","id":"i","method":"submit"}`, 200, -32603, "JSON"},
	} {
		a := w.ask("POST", "/api/json-rpc", c.body)
		if a.status != c.status {
			t.Errorf("%s: %+v", c.name, a)
			continue
		}
		a.status = 200
		v := parse[obj](w, a)
		if c.code == 0 {
			if v["error"] != nil || v["jsonrpc"] != "2.0" || v["id"] != "no-use" {
				t.Errorf("%s: %v", c.name, v)
			}
			continue
		}
		e, ok := v["error"].(obj)
		if !ok || e["code"] != float64(c.code) || !strings.Contains(fmt.Sprint(e["message"]), c.says) {
			t.Errorf("%s: %v", c.name, v)
		}
	}
	if s := w.state("t"); s != store.Succeeded {
		t.Errorf("it is %s", s)
	}
	v := parse[obj](w, w.ask("POST", "/api/json-rpc", call("newGid", "")))
	if r, ok := v["result"].(obj); !ok || len(fmt.Sprint(r["gid"])) != 22 {
		t.Errorf("newGid: %v", v)
	}
}
