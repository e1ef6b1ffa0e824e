package outbound

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/troth-tx/troth/engine"
)

// The codes of JSON-RPC errors that decide.
const (
	jsonRPCFailure = -32901
	jsonRPCOngoing = -32902
)

type jsonRPCRequest struct {
	Version string                     `json:"jsonrpc"`
	ID      string                     `json:"id"`
	Method  string                     `json:"method"`
	Params  map[string]json.RawMessage `json:"params"`
}

// callJSONRPC calls a method of JSON-RPC 2.0, which is a parameter of the URL. The
// payload is an object, or empty; what names the branch is added to it.
func (c *Caller) callJSONRPC(ctx context.Context, t *target, call *engine.Call) (engine.Answer, string) {
	request := jsonRPCRequest{Version: "2.0", ID: call.GID + "-" + call.Branch + "-" + opOf(call), Method: t.rpcMethod}
	if payload := bytes.TrimSpace(call.Payload); len(payload) > 0 {
		if err := json.Unmarshal(payload, &request.Params); err != nil {
			return engine.Unknown, "payload: want a JSON object for JSON-RPC"
		}
	}
	if request.Params == nil {
		request.Params = make(map[string]json.RawMessage)
	}
	for name, value := range map[string]string{
		"gid": call.GID, "trans_type": call.Pattern.String(), "branch_id": call.Branch, "op": opOf(call),
	} {
		request.Params[name], _ = json.Marshal(value) // a string
	}
	body, err := json.Marshal(request)
	if err != nil {
		return engine.Unknown, readable(err.Error())
	}
	a, text, reply := c.exchange(ctx, t, t.url.RawQuery, http.MethodPost, body, call)
	if a != engine.Success {
		return a, text
	}
	return jsonRPCAnswer(reply)
}

// jsonRPCAnswer says what a reply with status 200 means. A reply that is none decides
// nothing.
func jsonRPCAnswer(reply []byte) (engine.Answer, string) {
	var r *struct {
		Error *struct {
			Code    json.Number `json:"code"`
			Message string      `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(reply, &r); err != nil || r == nil {
		return engine.Unknown, readable("the answer is no JSON-RPC reply: " + string(reply[:min(len(reply), textMax)]))
	}
	if r.Error == nil {
		return engine.Success, ""
	}
	text := readable(fmt.Sprintf("JSON-RPC error %s: %s", r.Error.Code, r.Error.Message))
	switch code, _ := r.Error.Code.Float64(); code { // -32901 or -32901.0
	case jsonRPCFailure:
		return engine.Failure, text
	case jsonRPCOngoing:
		return engine.Ongoing, text
	}
	return engine.Unknown, text
}
