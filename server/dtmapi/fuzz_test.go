package dtmapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/dtmapi"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// fuzzed returns a handler over an engine that calls nobody.
func fuzzed(f *testing.F) (http.Handler, store.Store) {
	s := memory.New()
	e, err := engine.Open(f.Context(), s, engine.Config{Funcs: nobody})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = e.Close(f.Context()) })
	return dtmapi.New(dtmapi.Config{Engine: e, Store: s}), s
}

func exchange(h http.Handler, method, path, body string) said {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return said{w.Code, strings.TrimSpace(w.Body.String())}
}

// FuzzTransaction sends anything as the body of the state-changing calls. None panics; 200 has
// the one body that nobody can take for a failure, and only for what is JSON and names a
// transaction that is stored.
func FuzzTransaction(f *testing.F) {
	for _, body := range []string{
		`{"gid":"g","trans_type":"saga","steps":[{"action":"","compensate":""}],"payloads":["{}"]}`,
		`{"gid":"g","trans_type":"msg","steps":[{"action":"topic://t","data":"x"}],"custom_data":"{\"delay\":10}","concurrent":true}`,
		`{"gid":"g","trans_type":"saga","steps":[{},{}],"payloads":["",""],"custom_data":"{\"concurrent\":true,\"orders\":{\"1\":[0],\"-1\":[1]}}"}`,
		`{"gid":"g","trans_type":"tcc","timeout_to_fail":9223372036854775807,"retry_limit":9223372036854775807,"retry_interval":1e3}`,
		`{"gid":"g","trans_type":"tcc","branch_id":"01","data":"d","confirm":"c","cancel":"x"}`,
		`{"gid":"g","trans_type":"xa","branch_id":"01","url":"u"}`,
		`{"gid":"g","trans_type":"workflow","branch_id":"01","op":"action","status":"succeed","data":"FAILURE"}`,
		`{"gid":"g","trans_type":"workflow","req_extra":{"status":"failed","rollback_reason":"FAILURE","result":"e30="}}`,
		`{"gid":"FAILURE;\r\n","trans_type":"tcc","rollback_reason":"FAILURE","branch_headers":{"a":null}}`,
		`null`, `[]`, `{"steps":[null],"payloads":[null]}`, `{"gid":null}`, "\xff\x00", `{"gid":"g"}{"gid":"h"}`,
	} {
		f.Add(uint(0), body)
	}
	names := []string{
		"prepare", "submit", "abort", "registerBranch", "registerTccBranch", "forceStop", "resetNextCronTime", "prepareWorkflow",
	}
	h, s := fuzzed(f)
	f.Fuzz(func(t *testing.T, first uint, body string) {
		for i := range names {
			name := names[(first+uint(i))%uint(len(names))]
			a := exchange(h, http.MethodPost, "/api/dtmsvr/"+name, body)
			if a.status != 200 {
				if a.status < 400 || a.body == "" {
					t.Errorf("%s: %+v", name, a)
				}
				continue
			}
			if name != "prepareWorkflow" && a.body != `{"dtm_result":"SUCCESS"}` {
				t.Errorf("%s: 200 with %s", name, a.body)
			}
			var sent struct {
				GID string `json:"gid"`
			}
			if err := json.Unmarshal([]byte(body), &sent); err != nil {
				t.Fatalf("%s: 200 for what is no JSON: %v", name, err)
			}
			gid := strings.NewReplacer("\r", "", "\n", "", ";", "").Replace(sent.GID)
			if _, err := s.Get(t.Context(), gid); err != nil {
				t.Errorf("%s: 200, and %q is not stored: %v", name, gid, err)
			}
		}
	})
}

// FuzzQuery sends anything as the query of what is shown, and of topics.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{
		"gid=g", "limit=1&position=x&status=succeed", "createTimeStart=9223372036854775807", "limit=99999999999999999999",
		"cat=topics&key=t&position=%00", "topic=t&url=u&remark=FAILURE", "timeout=9223372036854775807", "gid=%zz", "a;b",
	} {
		f.Add(q)
	}
	h, _ := fuzzed(f)
	f.Fuzz(func(t *testing.T, query string) {
		for _, name := range []string{"query", "all", "resetCronTime", "scanKV", "queryKV", "subscribe", "unsubscribe"} {
			r := httptest.NewRequest(http.MethodGet, "/api/dtmsvr/"+name, nil)
			r.URL.RawQuery = query
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 200 && w.Code < 400 || !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
			if (name == "subscribe" || name == "unsubscribe") && w.Code == 200 && strings.TrimSpace(w.Body.String()) != `{"dtm_result":"SUCCESS"}` {
				t.Errorf("%s: 200 with %s", name, w.Body)
			}
		}
	})
}

// FuzzJSONRPC sends anything as a call. Every answer is one of JSON-RPC, with a result or an error.
func FuzzJSONRPC(f *testing.F) {
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":"1","method":"newGid","params":{}}`,
		`{"jsonrpc":"2.0","id":"1","method":"submit","params":{"gid":"g","trans_type":"tcc"}}`,
		`{"jsonrpc":"2.0","id":"1","method":"registerBranch","params":{"gid":"g","trans_type":"tcc","branch_id":"1"}}`,
		`{"jsonrpc":"2.0","id":"1","method":"abort","params":null}`, `[]`, `{"id":{}}`, "",
	} {
		f.Add(body)
	}
	h, _ := fuzzed(f)
	f.Fuzz(func(t *testing.T, body string) {
		a := exchange(h, http.MethodPost, "/api/json-rpc", body)
		var reply struct {
			Version string `json:"jsonrpc"`
			Error   *struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := json.Unmarshal([]byte(a.body), &reply); err != nil || reply.Version != "2.0" {
			t.Fatalf("%d %s (%v)", a.status, a.body, err)
		}
		if reply.Error != nil && (reply.Error.Code >= 0 || reply.Error.Message == "") || reply.Error == nil && (a.status != 200 || !json.Valid([]byte(body))) {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}

// nobody is all that these engines can call.
var nobody = map[string]engine.Func{"nobody": func(context.Context, engine.Call) error { return engine.ErrFailed }}
