package dtmapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/troth-tx/troth/store"
)

// progress is what a step of a workflow came to. Clients read it as the JSON form of a
// protobuf message.
type progress struct {
	Status   string `json:"status,omitempty"`
	BinData  []byte `json:"bin_data,omitempty"`
	BranchID string `json:"branch_id,omitempty"`
	Op       string `json:"op,omitempty"`
}

// prepareWorkflow creates a workflow, or returns how far it is. dtm's Go client does not
// look at the status, and fails on any JSON that has no transaction: errors
// are plain text.
func (h *handler) prepareWorkflow(w http.ResponseWriter, r *http.Request) {
	t, err := h.startWorkflow(w, r)
	if err != nil {
		status, a := judge(err)
		http.Error(w, "workflow: "+a.Message, status)
		return
	}
	progresses := make([]progress, len(t.Branches))
	for i := range t.Branches {
		b := &t.Branches[i]
		progresses[i] = progress{Status: b.State.String(), BinData: b.Payload, BranchID: b.ID, Op: b.Op.String()}
	}
	reply(w, http.StatusOK, map[string]any{"transaction": viewOf(t), "progresses": progresses})
}

func (h *handler) startWorkflow(w http.ResponseWriter, r *http.Request) (*store.Transaction, error) {
	body, done, err := h.body(w, r)
	if err != nil {
		return nil, err
	}
	defer done()
	t, err := decode(body)
	if err != nil {
		return nil, malformed{err}
	}
	if t.TransType != "workflow" {
		return nil, malformed{fmt.Errorf("trans_type %q: want workflow", t.TransType)}
	}
	asked, err := h.request(t)
	if err != nil {
		return nil, malformed{err}
	}
	started, err := h.Engine.StartWorkflow(r.Context(), asked)
	switch {
	case err != nil:
		return nil, in(err, t.GID, cannotPrepare)
	case started.Pattern != store.Workflow:
		return nil, refusal(fmt.Sprintf("gid %s is that of a %s", t.GID, started.Pattern))
	}
	return started, nil
}

// endWorkflow records the end that the workflow's function came to.
func (h *handler) endWorkflow(ctx context.Context, t *transaction) error {
	var ok bool
	switch t.ReqExtra["status"] {
	case store.Succeeded.String():
		ok = true
	case store.Failed.String():
	default:
		return malformed{errors.New("req_extra: status: want succeed or failed")}
	}
	err := h.Engine.EndWorkflow(ctx, t.GID, ok, t.ReqExtra["result"], t.ReqExtra["rollback_reason"])
	return in(err, t.GID, cannotSubmit)
}
