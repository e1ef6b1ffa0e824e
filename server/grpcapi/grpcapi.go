// Package grpcapi speaks dtm's gRPC protocol, so that dtm's clients are clients of troth.
// Like package dtmapi, with which it shares how requests are read, it only translates:
// what happens is decided by package engine.
package grpcapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/dtmapi"
	"github.com/troth-tx/troth/server/grpcapi/dtmpb"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store"
)

// Config is what a service works with. Engine and Store are required.
type Config struct {
	Engine *engine.Engine
	Store  store.Store // the engine's: for topics

	// Check reports why the URL of a participant is refused, before anything is stored. Nil
	// refuses none.
	Check func(url string) error
}

// Register adds dtm's service, and reflection about it, to a gRPC server. Who may reach
// it, and as which principal ([engine.As]), is decided by the server's interceptors; it
// bounds the size of messages, too.
//
// Answers have the codes that dtm's clients know: Aborted is a definite no, and
// FailedPrecondition means that there is no result yet. Others say what is wrong with a
// request (InvalidArgument, NotFound, AlreadyExists), or that it may have been carried out
// and may be repeated (Unavailable, Canceled, DeadlineExceeded, Unknown).
func Register(to reflection.GRPCServer, cfg Config) {
	s := &service{cfg}
	to.RegisterService(s.description(), s)
	registerReflection(to)
}

// service has a method for each of dtm's.
type service struct{ Config }

func (s *service) newGID(context.Context, *emptypb.Empty) (*dtmpb.GidReply, error) {
	return &dtmpb.GidReply{Gid: dtmapi.NewGID()}, nil
}

func (s *service) prepare(ctx context.Context, m *dtmpb.Request) (*emptypb.Empty, error) {
	r, err := s.request(m)
	if err != nil {
		return nil, err
	}
	return asked(s.Engine.Prepare(ctx, r), r)
}

// submit goes forth. Of a workflow it tells the end: the same end again is no error.
func (s *service) submit(ctx context.Context, m *dtmpb.Request) (*emptypb.Empty, error) {
	if m.GetTransType() == store.Workflow.String() {
		return s.endWorkflow(ctx, m)
	}
	r, err := s.request(m)
	if err != nil {
		return nil, err
	}
	return asked(s.Engine.Submit(ctx, r), r)
}

func (s *service) abort(ctx context.Context, m *dtmpb.Request) (*emptypb.Empty, error) {
	return done(s.Engine.Abort(ctx, m.GetGid(), m.GetRollbackReason(), m.GetTransOptions().GetWaitResult()), m.GetGid())
}

func (s *service) registerBranch(ctx context.Context, m *dtmpb.BranchRequest) (*emptypb.Empty, error) {
	data := m.GetData()
	r := dtmapi.Registration{
		GID: m.GetGid(), TransType: m.GetTransType(), BranchID: m.GetBranchID(), Data: string(m.GetBusiPayload()),
		Confirm: data["confirm"], Cancel: data["cancel"], URL: data["url"], Op: data["op"], Status: data["status"],
	}
	branches, err := r.Branches()
	if err != nil {
		return nil, invalid(err)
	}
	for i := range branches {
		if err := s.check(branches[i].URL); err != nil {
			return nil, invalid(err)
		}
	}
	return done(s.Engine.Register(ctx, r.GID, branches...), r.GID)
}

// request turns what a client sent into what the engine understands.
func (s *service) request(m *dtmpb.Request) (engine.Request, error) {
	o := m.GetTransOptions()
	t := dtmapi.Transaction{
		GID: m.GetGid(), TransType: m.GetTransType(), Protocol: "grpc", QueryPrepared: m.GetQueryPrepared(),
		CustomData: m.GetCustomedData(), Payloads: make([]string, len(m.GetBinPayloads())),
	}
	for i, p := range m.GetBinPayloads() {
		t.Payloads[i] = string(p)
	}
	t.WaitResult, t.BranchHeaders = o.GetWaitResult(), o.GetBranchHeaders()
	t.TimeoutToFail, t.RequestTimeout = o.GetTimeoutToFail(), o.GetRequestTimeout()
	t.RetryInterval, t.RetryLimit = o.GetRetryInterval(), o.GetRetryLimit()
	if m.GetSteps() != "" {
		if err := json.Unmarshal([]byte(m.GetSteps()), &t.Steps); err != nil {
			return engine.Request{}, invalid(fmt.Errorf("Steps: want the JSON of a list of objects with strings: %w", err)) //nolint:staticcheck // the field's name
		}
	}
	r, err := t.Request()
	if err == nil {
		err = s.checkAll(r)
	}
	if err != nil {
		return engine.Request{}, invalid(err)
	}
	return r, nil
}

func (s *service) checkAll(r engine.Request) error {
	if err := outbound.CheckHeaders(r.Options.Headers); err != nil {
		return err
	}
	if err := s.check(r.QueryPrepared); err != nil {
		return fmt.Errorf("query_prepared: %w", err)
	}
	for i, step := range r.Steps {
		for _, url := range []string{step.Action, step.Compensate} {
			if err := s.check(url); err != nil {
				return fmt.Errorf("step %d: %w", i+1, err)
			}
		}
	}
	return nil
}

func (s *service) check(url string) error {
	if s.Check == nil {
		return nil
	}
	return s.Check(url)
}

// asked is done for what was asked with a pattern. A refusal because the gid belongs to a
// transaction of another one does not tell the state of that, which clients would take for
// their own: this protocol has no way to ask.
func asked(err error, r engine.Request) (*emptypb.Empty, error) {
	var state *engine.StateError
	if errors.As(err, &state) && state.Pattern != r.Pattern {
		return nil, ofAnother(r.GID, state.Pattern)
	}
	return done(err, r.GID)
}

func ofAnother(gid string, p store.Pattern) error {
	return status.Errorf(codes.Aborted, "gid %s is that of a %s", gid, p)
}

func done(err error, gid string) (*emptypb.Empty, error) {
	if err != nil {
		return nil, failed(err, gid)
	}
	return &emptypb.Empty{}, nil
}

// failed gives what the engine said one of dtm's codes and its words.
func failed(err error, gid string) error {
	code := codes.Unknown
	told := dtmapi.InWords(err, gid)
	switch {
	case dtmapi.Refused(told):
		code = codes.Aborted
	case dtmapi.Ongoing(told):
		code = codes.FailedPrecondition
	case errors.Is(err, engine.ErrInvalid):
		code = codes.InvalidArgument
	case errors.Is(err, engine.ErrNotFound):
		code = codes.NotFound
	case errors.Is(err, store.ErrExists):
		code = codes.AlreadyExists
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, engine.ErrUnknown), errors.Is(err, engine.ErrClosed):
		code = codes.Unavailable
	}
	return status.Error(code, told.Error())
}

func invalid(err error) error { return status.Error(codes.InvalidArgument, err.Error()) }
