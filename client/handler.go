package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/internal/callsign"
)

// A Call is what a participant is told: which branch of which transaction calls it, and
// for what.
type Call struct {
	GID     string
	Pattern Pattern
	Branch  string
	Op      Op

	Server    string // where branches are registered, if the caller is a program of the transaction
	Phase2URL string // of an XA branch: where it wants to be committed

	Body []byte // in a Handler; a Middleware leaves the body of the request
}

// Decode reads the JSON of the body. Its error is ErrInvalid.
func (c *Call) Decode(into any) error {
	if err := json.Unmarshal(c.Body, into); err != nil {
		return &Error{Op: string(c.Op), GID: c.GID, Kind: ErrInvalid, Err: err}
	}
	return nil
}

// Step is the call for package barrier, which makes it count once.
func (c *Call) Step() (barrier.Step, error) {
	return barrier.NewStep(string(c.Pattern), c.GID, c.Branch, barrier.Op(c.Op))
}

type callKey struct{}

// An incoming call is what a participant is called for, with what it calls because of it
// as part of the transaction.
type incoming struct {
	call *Call
	ids  branchIDs
	lost firstError
}

// WithCall returns a context that carries a call. Middleware of other protocols uses it.
func WithCall(ctx context.Context, call *Call) context.Context {
	return context.WithValue(ctx, callKey{}, &incoming{call: call, ids: branchIDs{parent: call.Branch}})
}

// CallFrom returns the call that a context carries.
func CallFrom(ctx context.Context) (*Call, bool) {
	if in := incomingFrom(ctx); in != nil {
		return in.call, true
	}
	return nil, false
}

func incomingFrom(ctx context.Context) *incoming {
	in, _ := ctx.Value(callKey{}).(*incoming)
	return in
}

// JoinError returns the first error of the branches that a participant has called as part
// of the transaction that calls it: see [Client.JoinTCC]. Whoever answers the call returns
// it, as [Handler], [WriteReply] and the interceptor of package grpcclient do.
func JoinError(ctx context.Context) error {
	if in := incomingFrom(ctx); in != nil {
		return in.lost.get()
	}
	return nil
}

type outgoingKey struct{}

// WithOutgoing returns a context whose calls of participants are those of a branch.
func WithOutgoing(ctx context.Context, call *Call) context.Context {
	return context.WithValue(ctx, outgoingKey{}, call)
}

// OutgoingFrom returns the branch whose calls a context makes. Clients of other protocols
// use it, such as the interceptor of package grpcclient.
func OutgoingFrom(ctx context.Context) (*Call, bool) {
	call, ok := ctx.Value(outgoingKey{}).(*Call)
	return call, ok
}

// A HandlerOption changes a Handler or a Middleware.
type HandlerOption func(*handlerConfig)

type handlerConfig struct {
	bodyMax  int64
	verifier *callsign.Verifier
	err      error
}

// BodyMax bounds the body of a request, in bytes. Defaults to 16 MiB.
func BodyMax(n int64) HandlerOption { return func(c *handlerConfig) { c.bodyMax = n } }

// SignedBy lets only calls in that the server signed with one of the keys, which have 32
// bytes or more: two while a key is changed. Others are answered with 401. A program's
// own calls, of TCC and XA, are not signed: give their handlers other addresses.
func SignedBy(keys ...[]byte) HandlerOption {
	return func(c *handlerConfig) {
		c.verifier, c.err = callsign.NewVerifier(callsign.Config{Keys: keys})
	}
}

const bodyMaxDefault = 16 << 20

func handlerConfigOf(opts []HandlerOption) *handlerConfig {
	c := &handlerConfig{bodyMax: bodyMaxDefault}
	for _, f := range opts {
		f(c)
	}
	return c
}

// Handler turns a function into a participant. What it returns is answered as JSON with
// status 200; nil as {"dtm_result":"SUCCESS"}. Its errors become the agreed answers:
// ErrFailed 409, ErrOngoing 425, any other 500, after which the server calls again.
// The texts of errors of a kind reach the caller, others do not.
func Handler(f func(ctx context.Context, call *Call) (any, error), opts ...HandlerOption) http.Handler {
	cfg := handlerConfigOf(opts)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, ok := cfg.accept(w, r, true)
		if !ok {
			return
		}
		ctx := WithCall(r.Context(), call)
		reply, err := f(ctx, call)
		WriteReply(w, r.WithContext(ctx), reply, err)
	})
}

// Middleware puts the call into the context of the requests that next gets, where
// [CallFrom], [Client.JoinTCC] and package barrier find it. Requests of no transaction
// pass unchanged, unless [SignedBy] is asked for; so do those that have another use for
// a parameter gid, and no branch_id and op.
func Middleware(next http.Handler, opts ...HandlerOption) http.Handler {
	cfg := handlerConfigOf(opts)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := r.URL.Query(); cfg.verifier == nil && cfg.err == nil && (q.Get("gid") == "" || q.Get("branch_id") == "" && q.Get("op") == "") {
			next.ServeHTTP(w, r)
			return
		}
		if call, ok := cfg.accept(w, r, false); ok {
			next.ServeHTTP(w, r.WithContext(WithCall(r.Context(), call)))
		}
	})
}

// accept reads the call from a request, or answers it. readBody moves the body into the
// call.
func (c *handlerConfig) accept(w http.ResponseWriter, r *http.Request, readBody bool) (*Call, bool) {
	if c.err != nil {
		writeAnswer(w, http.StatusInternalServerError, "", c.err.Error())
		return nil, false
	}
	q := r.URL.Query()
	call := &Call{
		GID: q.Get("gid"), Pattern: Pattern(q.Get("trans_type")), Branch: q.Get("branch_id"), Op: Op(q.Get("op")),
		Server: q.Get("dtm"), Phase2URL: q.Get("phase2_url"),
	}
	if call.GID == "" || call.Branch == "" || call.Op == "" {
		writeAnswer(w, http.StatusBadRequest, "", "the query lacks gid, branch_id or op: this address is for participants of transactions")
		return nil, false
	}
	r.Body = http.MaxBytesReader(w, r.Body, c.bodyMax)
	if !readBody && c.verifier == nil {
		return call, true
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		status := http.StatusBadRequest
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			status = http.StatusRequestEntityTooLarge
		}
		writeAnswer(w, status, "", err.Error())
		return nil, false
	}
	if c.verifier != nil {
		if err := c.verifier.Verify(r.Header.Get(callsign.Header), callsign.Of(r, body)); err != nil {
			writeAnswer(w, http.StatusUnauthorized, "", err.Error())
			return nil, false
		}
	}
	if readBody {
		call.Body = body
	} else {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return call, true
}

// WriteReply answers a call as [Handler] does: for handlers of frameworks, behind
// Middleware. It answers with [JoinError] where err is nil.
func WriteReply(w http.ResponseWriter, r *http.Request, reply any, err error) {
	if err == nil {
		err = JoinError(r.Context())
	}
	var body []byte
	if err == nil {
		body, err = replyOf(r.Context(), reply)
	}
	switch status := HTTPStatus(err); {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // the caller has gone
	case status == statusFailed:
		writeAnswer(w, status, resultFailed, err.Error())
	case status == statusOngoing:
		writeAnswer(w, status, resultOngoing, err.Error())
	case kindOf(err) != nil:
		writeAnswer(w, status, "", err.Error())
	default:
		writeAnswer(w, status, "", "internal error")
	}
}

// HTTPStatus is the status that WriteReply gives to an error: 200, 409, 425 or 500.
func HTTPStatus(err error) int {
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, ErrFailed):
		return statusFailed
	case errors.Is(err, ErrOngoing):
		return statusOngoing
	}
	return http.StatusInternalServerError
}

// replyOf encodes a reply. Servers that follow dtm take a body that has one of the two
// words anywhere for that answer, so one for a server, which ignores it otherwise, must
// not: "payment for FAILURE analysis" would undo a saga.
func replyOf(ctx context.Context, reply any) ([]byte, error) {
	body, ok := reply.([]byte)
	if !ok && reply != nil {
		var err error
		if body, err = json.Marshal(reply); err != nil {
			return nil, err
		}
	}
	call, _ := CallFrom(ctx)
	misleading := call.fromServer() && (bytes.Contains(body, []byte(resultFailed)) || bytes.Contains(body, []byte(resultOngoing)))
	if len(body) == 0 || misleading {
		body = []byte(`{"dtm_result":"SUCCESS"}`)
	}
	return body, nil
}

// fromServer reports whether the call was made by a server, rather than by a program.
func (c *Call) fromServer() bool {
	if c == nil {
		return false
	}
	switch c.Pattern {
	case PatternMessage, PatternSaga:
		return true
	case PatternTCC, PatternXA:
		return c.Op != OpTry && c.Op != OpAction
	case PatternWorkflow:
	}
	return false
}

// quiet takes the agreed words out of what people wrote.
var quiet = strings.NewReplacer(resultFailed, "failure", resultOngoing, "ongoing")

func writeAnswer(w http.ResponseWriter, status int, result, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answerBody{Result: result, Message: quiet.Replace(clip(message))}) // the caller has gone
}
