// Package grpcclient is package client over gRPC: a transport to the server's gRPC port,
// interceptors that carry the transaction between services, and the service at which a
// server goes on with workflows.
//
//	conn, err := grpc.NewClient("127.0.0.1:36790", ...)
//	...
//	c, err := client.New(client.Config{Transport: grpcclient.New(conn, "127.0.0.1:36790")})
package grpcclient

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/server/grpcapi/dtmpb"
)

// A transport is a client.Transport over a connection.
type transport struct {
	conn   grpc.ClientConnInterface
	server string
}

// New returns a transport. The connection stays the caller's; its credentials and
// interceptors are those of the server: a token goes into grpc.WithPerRPCCredentials.
// server is what participants are told; empty if they register no branches.
func New(conn grpc.ClientConnInterface, server string) client.Transport {
	return &transport{conn: conn, server: server}
}

// Server implements client.Transport.
func (t *transport) Server() string { return t.server }

// Protocol implements client.Transport.
func (t *transport) Protocol() string { return "grpc" }

const service = "/dtmgimp.Dtm/"

// keySame lets the server refuse a workflow that is stored with another name or input:
// its reply tells neither. A server of dtm's does not know it, and refuses nothing.
const keySame = "troth-same"

func (t *transport) call(ctx context.Context, op, method, gid string, request, reply any) error {
	err := t.conn.Invoke(ctx, service+method, request, reply)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return &client.Error{Op: op, GID: gid, Kind: client.ErrUnknown, Err: cause}
	}
	s := status.Convert(err)
	kind := client.ErrUnknown
	switch s.Code() {
	case codes.Aborted:
		return client.Refused(op, gid, s.Message())
	case codes.FailedPrecondition:
		kind = client.ErrOngoing
	case codes.InvalidArgument, codes.Unimplemented, codes.OutOfRange:
		kind = client.ErrInvalid
	case codes.ResourceExhausted:
		if strings.HasPrefix(s.Message(), "grpc: ") { // a message that is too large; else a rate that is
			kind = client.ErrInvalid
		}
	case codes.NotFound:
		kind = client.ErrNotFound
	case codes.AlreadyExists:
		kind = client.ErrExists
	case codes.Unauthenticated, codes.PermissionDenied:
		kind = client.ErrDenied
	case codes.OK, codes.Canceled, codes.Unknown, codes.DeadlineExceeded, codes.Internal, codes.Unavailable, codes.DataLoss:
	}
	switch text := s.Message(); { // dtm has no codes for these
	case s.Code() != codes.Unknown:
	case strings.Contains(text, "UniqueKeyConflict"):
		kind = client.ErrExists
	case strings.Contains(text, "no TransGlobal with gid"):
		kind = client.ErrNotFound
	}
	return &client.Error{Op: op, GID: gid, Kind: kind, Text: s.Message()}
}

func (t *transport) request(ctx context.Context, op, method string, x *client.Transaction, extra map[string]string) error {
	r, err := requestOf(x, extra)
	if err != nil {
		return &client.Error{Op: op, GID: x.Options.GID, Kind: client.ErrInvalid, Err: err}
	}
	return t.call(ctx, op, method, x.Options.GID, r, new(emptypb.Empty))
}

// Prepare implements client.Transport.
func (t *transport) Prepare(ctx context.Context, x *client.Transaction) error {
	return t.request(ctx, "prepare", "Prepare", x, nil)
}

// Submit implements client.Transport.
func (t *transport) Submit(ctx context.Context, x *client.Transaction) error {
	err := t.request(ctx, "submit", "Submit", x, nil)
	var e *client.Error
	if x.Options.Wait && errors.Is(err, client.ErrRefused) && errors.As(err, &e) && e.State == "" && !ofAnother(e) {
		e.Kind = client.ErrFailed // the words are those of the branch that failed
	}
	return err
}

// ofAnother reports whether a refusal says that its name belongs to a transaction of
// another pattern.
func ofAnother(e *client.Error) bool { return strings.HasPrefix(e.Text, "gid "+e.GID+" is that of a ") }

// Abort implements client.Transport.
func (t *transport) Abort(ctx context.Context, x *client.Transaction) error {
	return t.request(ctx, "abort", "Abort", x, nil)
}

// Register implements client.Transport.
func (t *transport) Register(ctx context.Context, b *client.Branch) error {
	r := &dtmpb.BranchRequest{Gid: b.GID, TransType: string(b.Pattern), BranchID: b.ID, BusiPayload: b.Payload}
	switch b.Pattern {
	case client.PatternXA:
		r.Data = map[string]string{"url": b.URL}
	case client.PatternWorkflow:
		r.BusiPayload = b.Data
		r.Data = map[string]string{"op": string(b.Op), "status": string(client.Succeeded)}
		if b.Failed {
			r.Data["status"] = string(client.Failed)
		}
	case client.PatternTCC:
		r.Data = map[string]string{"confirm": b.Confirm, "cancel": b.Cancel}
	case client.PatternMessage, client.PatternSaga:
		return &client.Error{Op: "register", GID: b.GID, Kind: client.ErrInvalid, Err: fmt.Errorf("a %s registers no branches", b.Pattern)}
	}
	return t.call(ctx, "register", "RegisterBranch", b.GID, r, new(emptypb.Empty))
}

// StartWorkflow implements client.Transport.
func (t *transport) StartWorkflow(ctx context.Context, x *client.Transaction) (*client.Status, error) {
	gid := x.Options.GID
	r, err := requestOf(x, nil)
	if err != nil {
		return nil, &client.Error{Op: "start", GID: gid, Kind: client.ErrInvalid, Err: err}
	}
	reply := new(dtmpb.ProgressesReply)
	ctx = metadata.AppendToOutgoingContext(ctx, keySame, "1")
	if err := t.call(ctx, "start", "PrepareWorkflow", gid, r, reply); err != nil {
		return nil, err
	}
	g := reply.GetTransaction()
	s := &client.Status{GID: gid, Pattern: client.PatternWorkflow, State: client.State(g.GetStatus()), Reason: g.GetRollbackReason()}
	if s.Result, err = base64.StdEncoding.DecodeString(g.GetResult()); err != nil {
		s.Result = []byte(g.GetResult()) // not ours
	}
	for _, p := range reply.GetProgresses() {
		s.Branches = append(s.Branches, client.BranchStatus{
			ID: p.GetBranchID(), Op: client.Op(p.GetOp()), State: client.State(p.GetStatus()), Data: p.GetBinData(),
		})
	}
	return s, nil
}

// EndWorkflow implements client.Transport.
func (t *transport) EndWorkflow(ctx context.Context, x *client.Transaction) error {
	extra := map[string]string{"status": string(client.Succeeded), "result": base64.StdEncoding.EncodeToString(x.Result)}
	if x.Failed {
		extra = map[string]string{"status": string(client.Failed), "rollback_reason": x.Reason}
	}
	return t.request(ctx, "submit", "Submit", x, extra)
}

// Status implements client.Transport: dtm's gRPC protocol has no such question.
func (t *transport) Status(_ context.Context, gid string) (*client.Status, error) {
	return nil, &client.Error{Op: "status", GID: gid, Kind: client.ErrInvalid, Err: errors.New("the gRPC protocol has no status: ask over HTTP")}
}

func requestOf(x *client.Transaction, extra map[string]string) (*dtmpb.Request, error) {
	o := &x.Options
	custom, err := x.CustomData()
	r := &dtmpb.Request{
		Gid: o.GID, TransType: string(x.Pattern), QueryPrepared: x.QueryPrepared, CustomedData: custom,
		ReqExtra: extra, RollbackReason: x.Reason,
		TransOptions: &dtmpb.TransOptions{
			WaitResult: o.Wait, TimeoutToFail: client.Seconds(o.TimeoutToFail), RetryInterval: client.Seconds(o.RetryInterval),
			RequestTimeout: client.Seconds(o.RequestTimeout), RetryLimit: int64(o.RetryLimit), BranchHeaders: o.Headers,
		},
	}
	if err != nil || len(x.Steps) == 0 {
		return r, err
	}
	steps := make([]map[string]string, len(x.Steps))
	for i, s := range x.Steps {
		steps[i] = s.Wire()
		r.BinPayloads = append(r.BinPayloads, s.Payload)
	}
	text, err := json.Marshal(steps)
	r.Steps = string(text)
	return r, err
}
