package outbound_test

import (
	"encoding/json"
	"testing"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/outbound"
)

func TestJSONRPCRequest(t *testing.T) {
	t.Parallel()
	url, calls := participant(t, 200, `{"jsonrpc":"2.0","id":"x","result":{}}`)
	c := newCaller(t, outbound.Config{})
	call := actionCall(url + "/rpc?method=Pay")
	call.Protocol = "json-rpc"
	if a, text := c.Call(t.Context(), call); a != engine.Success {
		t.Fatalf("%d %s", a, text)
	}
	got := <-calls
	var body struct {
		Version string         `json:"jsonrpc"`
		ID      string         `json:"id"`
		Method  string         `json:"method"`
		Params  map[string]any `json:"params"`
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		t.Fatal(err)
	}
	if got.method != "POST" || got.target != "/rpc?method=Pay" || body.Version != "2.0" || body.ID == "" || body.Method != "Pay" ||
		body.Params["amount"] != 30.0 || body.Params["gid"] != "g1" || body.Params["op"] != "action" ||
		body.Params["branch_id"] != "01" || body.Params["trans_type"] != "saga" {
		t.Errorf("got %s %s %s", got.method, got.target, got.body)
	}
	call.Payload = []byte("[1]")
	if a, text := c.Call(t.Context(), call); a != engine.Unknown || text == "" {
		t.Errorf("a payload that is no object: %d %s", a, text)
	}
	call.Payload = []byte("null")
	if a, text := c.Call(t.Context(), call); a != engine.Success {
		t.Errorf("null: %d %s", a, text)
	}
	call = actionCall(url + "/plain") // no method: not JSON-RPC
	call.Protocol = "json-rpc"
	_, _ = c.Call(t.Context(), call)
	<-calls
	if got := <-calls; got.body != `{"amount":30}` {
		t.Errorf("got %s", got.body)
	}
}

func TestJSONRPCAnswers(t *testing.T) {
	t.Parallel()
	for reply, want := range map[string]engine.Answer{
		`{"result":{},"error":null}`:                     engine.Success,
		`{"result":1}`:                                   engine.Success,
		`{"error":{"code":-32901,"message":"no money"}}`: engine.Failure, // dtm never sees it
		`{"error":{"code":-32901.0,"message":"no"}}`:     engine.Failure,
		`{"error":{"code":-32902,"message":"not yet"}}`:  engine.Ongoing,
		`{"error":{"code":-32603,"message":"broken"}}`:   engine.Unknown,
		`{"error":{"code":-32603,"message":"FAILURE"}}`:  engine.Failure, // by the word
		`{"error":{"message":"no code"}}`:                engine.Unknown,
		`{"error":"text"}`:                               engine.Unknown,
		`no JSON`:                                        engine.Unknown,
		``:                                               engine.Unknown,
		`null`:                                           engine.Unknown,
		`[]`:                                             engine.Unknown,
		`{}`:                                             engine.Success,
	} {
		url, _ := participant(t, 200, reply)
		call := actionCall(url + "/?method=Pay")
		call.Protocol = "json-rpc"
		if a, text := newCaller(t, outbound.Config{}).Call(t.Context(), call); a != want {
			t.Errorf("%s: %d %s, want %d", reply, a, text, want)
		}
	}
}
