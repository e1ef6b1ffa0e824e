package dtmapi

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

// transaction is what clients send to prepare, submit and abort. They send fields that
// we do not know, and null for those that they do not use.
type transaction struct {
	GID            string              `json:"gid"`
	TransType      string              `json:"trans_type"`
	Protocol       string              `json:"protocol"`
	Steps          []map[string]string `json:"steps"`
	Payloads       []string            `json:"payloads"`
	QueryPrepared  string              `json:"query_prepared"`
	CustomData     string              `json:"custom_data"`
	RollbackReason string              `json:"rollback_reason"`
	ReqExtra       map[string]string   `json:"req_extra"`

	WaitResult     bool              `json:"wait_result"`
	TimeoutToFail  int64             `json:"timeout_to_fail"`
	RetryInterval  int64             `json:"retry_interval"`
	RequestTimeout int64             `json:"request_timeout"`
	RetryLimit     int64             `json:"retry_limit"`
	BranchHeaders  map[string]string `json:"branch_headers"`
	Concurrent     bool              `json:"concurrent"`
}

// custom is what custom_data holds for messages and sagas.
type custom struct {
	Delay      int64            `json:"delay"`
	Orders     map[string][]int `json:"orders"`
	Concurrent bool             `json:"concurrent"`
}

var patterns = map[string]store.Pattern{
	"msg": store.Message, "saga": store.Saga, "tcc": store.TCC, "xa": store.XA, "workflow": store.Workflow,
}

// request turns what a client sent into what the engine understands.
func (t *transaction) request() (engine.Request, error) {
	p, ok := patterns[t.TransType]
	if !ok {
		return engine.Request{}, fmt.Errorf("trans_type %q: want msg, saga, tcc, xa or workflow", t.TransType)
	}
	r := engine.Request{
		GID: clean(t.GID), Pattern: p, Protocol: t.Protocol, QueryPrepared: t.QueryPrepared, Data: t.CustomData,
		Options: store.Options{
			Wait: t.WaitResult, TimeoutToFail: seconds(t.TimeoutToFail), RetryInterval: seconds(t.RetryInterval),
			RequestTimeout: seconds(t.RequestTimeout), RetryLimit: int(t.RetryLimit), Headers: t.BranchHeaders, Concurrent: t.Concurrent,
		},
	}
	if r.Protocol == "" {
		r.Protocol = "http"
	}
	if p == store.Message || p == store.Saga {
		if err := t.custom(&r.Options); err != nil {
			return engine.Request{}, err
		}
	}
	if len(t.Payloads) < len(t.Steps) && p == store.Saga {
		return engine.Request{}, fmt.Errorf("payloads: %d for %d steps", len(t.Payloads), len(t.Steps))
	}
	for i, s := range t.Steps {
		step := engine.Step{Action: s["action"], Compensate: s["compensate"]}
		switch {
		case i < len(t.Payloads):
			step.Payload = []byte(t.Payloads[i])
		case s["data"] != "": // an old form
			step.Payload = []byte(s["data"])
		}
		r.Steps = append(r.Steps, step)
	}
	return r, nil
}

func (t *transaction) custom(o *store.Options) error {
	if t.CustomData == "" {
		return nil
	}
	var c custom
	if err := json.Unmarshal([]byte(t.CustomData), &c); err != nil {
		return fmt.Errorf("custom_data: %w", err)
	}
	o.Delay = seconds(c.Delay)
	o.Concurrent = o.Concurrent || c.Concurrent
	for step, before := range c.Orders {
		i, err := strconv.Atoi(step)
		if err != nil {
			return fmt.Errorf("custom_data: orders: %q is no number of a step", step)
		}
		if o.Orders == nil {
			o.Orders = make(map[int][]int)
		}
		o.Orders[i] = before
	}
	return nil
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// clean takes out what dtm takes out of a gid.
func clean(s string) string { return strings.NewReplacer("\r", "", "\n", "", ";", "").Replace(s) }
