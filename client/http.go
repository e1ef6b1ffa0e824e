package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// answerMax is how much of an answer is read.
const answerMax = 64 << 20

// An httpTransport speaks the HTTP protocol of dtm.
type httpTransport struct {
	base  string // with the path, without a slash at the end
	token string
	http  *http.Client
}

var _ Transport = (*httpTransport)(nil)

func newHTTPTransport(server, token string, h *http.Client) *httpTransport {
	return &httpTransport{base: server + "/api/dtmsvr", token: token, http: h}
}

// Server implements Transport.
func (h *httpTransport) Server() string { return h.base }

// Protocol implements Transport.
func (h *httpTransport) Protocol() string { return "http" }

// Prepare implements Transport.
func (h *httpTransport) Prepare(ctx context.Context, t *Transaction) error {
	return h.post(ctx, "prepare", t, nil)
}

// Submit implements Transport.
func (h *httpTransport) Submit(ctx context.Context, t *Transaction) error {
	return h.post(ctx, "submit", t, nil)
}

// Abort implements Transport.
func (h *httpTransport) Abort(ctx context.Context, t *Transaction) error {
	return h.post(ctx, "abort", t, nil)
}

func (h *httpTransport) post(ctx context.Context, op string, t *Transaction, extra map[string]string) error {
	body, err := wireOf(t, extra)
	if err != nil {
		return &Error{Op: op, GID: t.Options.GID, Kind: ErrInvalid, Err: err}
	}
	_, err = h.do(ctx, op, t.Options.GID, http.MethodPost, h.base+"/"+op, body)
	return err
}

// Register implements Transport.
func (h *httpTransport) Register(ctx context.Context, b *Branch) error {
	if !utf8.Valid(b.Payload) || !utf8.Valid(b.Data) {
		return &Error{Op: "register", GID: b.GID, Kind: ErrInvalid, Err: errNotText}
	}
	m := map[string]string{"gid": b.GID, "trans_type": string(b.Pattern), "branch_id": b.ID}
	switch b.Pattern {
	case PatternXA:
		m["url"] = b.URL
	case PatternWorkflow:
		m["op"], m["status"], m["data"] = string(b.Op), string(Succeeded), string(b.Data)
		if b.Failed {
			m["status"] = string(Failed)
		}
	case PatternTCC, PatternMessage, PatternSaga: // the server refuses the last two
		m["confirm"], m["cancel"], m["data"] = b.Confirm, b.Cancel, string(b.Payload)
	}
	_, err := h.do(ctx, "register", b.GID, http.MethodPost, h.base+"/registerBranch", m)
	return err
}

// StartWorkflow implements Transport.
func (h *httpTransport) StartWorkflow(ctx context.Context, t *Transaction) (*Status, error) {
	body, err := wireOf(t, nil)
	if err != nil {
		return nil, &Error{Op: "start", GID: t.Options.GID, Kind: ErrInvalid, Err: err}
	}
	answer, err := h.do(ctx, "start", t.Options.GID, http.MethodPost, h.base+"/prepareWorkflow", body)
	if err != nil {
		return nil, err
	}
	var p struct {
		Transaction *wireStatus `json:"transaction"`
		Progresses  []wireStep  `json:"progresses"`
	}
	if err := json.Unmarshal(answer, &p); err != nil || p.Transaction == nil {
		return nil, &Error{Op: "start", GID: t.Options.GID, Kind: ErrUnknown, Err: err, Text: "the answer holds no transaction"}
	}
	return p.Transaction.status(p.Progresses), nil
}

// EndWorkflow implements Transport.
func (h *httpTransport) EndWorkflow(ctx context.Context, t *Transaction) error {
	extra := map[string]string{"status": string(Succeeded), "result": base64.StdEncoding.EncodeToString(t.Result)}
	if t.Failed {
		extra = map[string]string{"status": string(Failed), "rollback_reason": t.Reason}
	}
	return h.post(ctx, "submit", t, extra)
}

// Status implements Transport.
func (h *httpTransport) Status(ctx context.Context, gid string) (*Status, error) {
	answer, err := h.do(ctx, "status", gid, http.MethodGet, h.base+"/query?gid="+url.QueryEscape(gid), nil)
	if err != nil {
		return nil, err
	}
	var q struct {
		Transaction *wireStatus `json:"transaction"`
		Branches    []wireStep  `json:"branches"`
	}
	if err := json.Unmarshal(answer, &q); err != nil {
		return nil, &Error{Op: "status", GID: gid, Kind: ErrUnknown, Err: err}
	}
	if q.Transaction == nil || q.Transaction.GID == "" {
		return nil, &Error{Op: "status", GID: gid, Kind: ErrNotFound}
	}
	return q.Transaction.status(q.Branches), nil
}

// do makes one request. Its errors are *Error.
func (h *httpTransport) do(ctx context.Context, op, gid, method, to string, body any) ([]byte, error) {
	fail := func(kind error, text string, err error) ([]byte, error) {
		return nil, &Error{Op: op, GID: gid, Kind: kind, Text: clip(text), Err: err}
	}
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return fail(ErrInvalid, "", err)
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, to, content)
	if err != nil {
		return fail(ErrInvalid, "", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if h.token != "" {
		req.Header.Set("Authorization", "Bearer "+h.token)
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return fail(ErrUnknown, "", causeOf(ctx, err))
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return fail(ErrUnknown, "", causeOf(ctx, err))
	}
	kind := kindOfAnswer(op, resp.StatusCode, answer)
	switch {
	case kind == nil:
		return answer, nil
	case errors.Is(kind, ErrRefused):
		return nil, Refused(op, gid, textOf(answer))
	}
	return fail(kind, textOf(answer), nil)
}

// kindOfAnswer maps the answers of our server and of dtm's to kinds. dtm says 500 to
// everything that is not agreed, and old versions say 200 to everything. So do other
// programs, and proxies before a server that is gone: only the agreed word is success,
// and 404 says nothing of a transaction.
func kindOfAnswer(op string, status int, answer []byte) error {
	result := resultOf(answer)
	asked := op == "status" || op == "start" // their 200 holds what users wrote
	switch {
	case status == http.StatusOK && (asked || result == resultDone):
		return nil
	case status == http.StatusTooEarly, status == http.StatusOK && result == resultOngoing:
		return ErrOngoing
	case status == http.StatusConflict, status == http.StatusOK && result == resultFailed:
		return ErrRefused // or over: the caller asks which
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return ErrDenied
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status == http.StatusNotFound:
		return ErrUnknown
	case status == http.StatusInternalServerError && strings.Contains(textOf(answer), "UniqueKeyConflict"):
		return ErrExists
	case status == http.StatusInternalServerError && (strings.Contains(textOf(answer), "no such transaction") || strings.Contains(textOf(answer), "no TransGlobal with gid")):
		return ErrNotFound
	case status >= 300 && status < 500:
		return ErrInvalid
	}
	return ErrUnknown
}

// answerBody is the agreed form of answers, the server's and participants'.
type answerBody struct {
	Result  string `json:"dtm_result,omitempty"`
	Message string `json:"message,omitempty"`
}

func resultOf(answer []byte) string {
	var a answerBody
	_ = json.Unmarshal(answer, &a) // any text is an answer
	return a.Result
}

func textOf(answer []byte) string {
	var a answerBody
	if json.Unmarshal(answer, &a) == nil && a.Message != "" {
		return a.Message
	}
	return string(answer[:min(len(answer), textMax+1)])
}

// causeOf prefers what ended the context to what the connection made of it.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return withoutURL(err)
}

// withoutURL is an error without the address, which the operation implies.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

var errNotText = fmt.Errorf("a payload is not UTF-8 text, which HTTP needs: use the gRPC transport")
