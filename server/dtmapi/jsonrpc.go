package dtmapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// The codes of errors: those of JSON-RPC 2.0, and dtm's for its two words.
const (
	codeParse    = -32700
	codeRequest  = -32600
	codeMethod   = -32601
	codeInternal = -32603
	codeFailure  = -32901
	codeOngoing  = -32902
)

type rpcRequest struct {
	Version string          `json:"jsonrpc"`
	ID      string          `json:"id"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type rpcAnswer struct {
	Version string    `json:"jsonrpc"`
	ID      string    `json:"id"`
	Result  any       `json:"result"`
	Error   *rpcError `json:"error"`
}

// jsonRPC serves one call. Its answer has status 200 if the call could be read.
func (h *handler) jsonRPC(w http.ResponseWriter, r *http.Request) {
	a := rpcAnswer{Version: "2.0"}
	body, done, err := h.body(w, r)
	if err != nil {
		status, told := judge(err)
		a.Error = &rpcError{codeRequest, told.Message}
		reply(w, status, a)
		return
	}
	defer done()
	var call rpcRequest
	if err := json.Unmarshal(body, &call); err != nil {
		a.Error = &rpcError{codeParse, "Parse json error: " + err.Error()}
		reply(w, http.StatusBadRequest, a)
		return
	}
	a.ID = call.ID
	a.Result, a.Error = h.call(r.Context(), &call)
	reply(w, http.StatusOK, a)
}

func (h *handler) call(ctx context.Context, call *rpcRequest) (result any, _ *rpcError) {
	if call.ID == "" || call.Version != "2.0" {
		return nil, &rpcError{codeRequest, `Bad json request: want "jsonrpc":"2.0" and an id that is a string`}
	}
	var c change
	switch call.Method {
	case "newGid":
		return map[string]string{"gid": newGID()}, nil
	case "prepare":
		c = h.prepare
	case "submit":
		c = h.submit
	case "abort":
		c = h.abort
	case "registerBranch":
		c = h.registerBranch
	default:
		return nil, &rpcError{codeMethod, fmt.Sprintf("Method not found: %s", call.Method)}
	}
	err := c(ctx, call.Params)
	var no refusal
	switch {
	case err == nil:
		return nil, nil
	case errors.As(err, &no):
		return nil, &rpcError{codeFailure, err.Error()}
	case errors.Is(err, errNotOver):
		return nil, &rpcError{codeOngoing, err.Error()}
	}
	return nil, &rpcError{codeInternal, err.Error()}
}
