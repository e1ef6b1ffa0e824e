package grpcapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/grpcapi/dtmpb"
	"github.com/troth-tx/troth/store"
)

// sameKey is metadata of a PrepareWorkflow, with the value "1": a workflow that is stored
// under its gid with another name or input is refused (Aborted). dtm's reply has no field
// for them, in which a client could see it. dtm's clients do not ask, and go on with the
// workflow that is stored.
const sameKey = "troth-same"

// prepareWorkflow creates a workflow, or returns how far it is.
func (s *service) prepareWorkflow(ctx context.Context, m *dtmpb.Request) (*dtmpb.ProgressesReply, error) {
	if m.GetTransType() != store.Workflow.String() {
		return nil, invalid(fmt.Errorf("trans_type %q: want workflow", m.GetTransType()))
	}
	r, err := s.request(m)
	if err != nil {
		return nil, err
	}
	t, err := s.Engine.StartWorkflow(ctx, r)
	if err != nil {
		return nil, failed(err, r.GID)
	}
	if t.Pattern != store.Workflow {
		return nil, ofAnother(r.GID, t.Pattern)
	}
	if wantsSame(ctx) {
		if err := same(t, r); err != nil {
			return nil, err
		}
	}
	reply := &dtmpb.ProgressesReply{
		Transaction: &dtmpb.Transaction{Gid: t.GID, Status: t.State.String(), RollbackReason: t.Reason, Result: t.Result},
		Progresses:  make([]*dtmpb.Progress, len(t.Branches)),
	}
	for i := range t.Branches {
		b := &t.Branches[i]
		reply.Progresses[i] = &dtmpb.Progress{Status: b.State.String(), BinData: b.Payload, BranchID: b.ID, Op: b.Op.String()}
	}
	return reply, nil
}

// endWorkflow records the end that a workflow's function came to.
func (s *service) endWorkflow(ctx context.Context, m *dtmpb.Request) (*emptypb.Empty, error) {
	extra, ok := m.GetReqExtra(), false
	switch extra["status"] {
	case store.Succeeded.String():
		ok = true
	case store.Failed.String():
	default:
		return nil, invalid(errors.New("ReqExtra: status: want succeed or failed"))
	}
	return done(s.Engine.EndWorkflow(ctx, m.GetGid(), ok, extra["result"], extra["rollback_reason"]), m.GetGid())
}

func wantsSame(ctx context.Context) bool {
	values := metadata.ValueFromIncomingContext(ctx, sameKey)
	return len(values) == 1 && values[0] == "1"
}

// same refuses a request for another workflow than the one that is stored.
func same(stored *store.Transaction, asked engine.Request) error {
	name, input := engine.WorkflowOf(stored.Data)
	askedName, askedInput := engine.WorkflowOf(asked.Data)
	differs := ""
	switch {
	case name != askedName:
		differs = "name"
	case !bytes.Equal(input, askedInput):
		differs = "input"
	default:
		return nil
	}
	return status.Errorf(codes.Aborted, "gid %s is that of a workflow with another %s", asked.GID, differs)
}
