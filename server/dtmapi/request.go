package dtmapi

import (
	"encoding/json"
	"errors"
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
	GID            string            `json:"gid"`
	TransType      string            `json:"trans_type"`
	Protocol       string            `json:"protocol"`
	Steps          []step            `json:"steps"`
	Payloads       []string          `json:"payloads"` // of the steps, in their order
	QueryPrepared  string            `json:"query_prepared"`
	CustomData     string            `json:"custom_data"`
	RollbackReason string            `json:"rollback_reason"`
	ReqExtra       map[string]string `json:"req_extra"` // the end of a workflow
	options
}

// step is one of a message or a saga.
type step struct {
	Action     string `json:"action"`
	Compensate string `json:"compensate"` // of a saga
	Data       string `json:"data"`       // the payload, from old clients
}

// options are what clients may ask for, in requests and in what is shown of them. Times
// are in seconds.
type options struct {
	WaitResult     bool              `json:"wait_result,omitempty"`
	TimeoutToFail  int64             `json:"timeout_to_fail,omitempty"`
	RequestTimeout int64             `json:"request_timeout,omitempty"`
	RetryInterval  int64             `json:"retry_interval,omitempty"`
	BranchHeaders  map[string]string `json:"branch_headers,omitempty"`
	Concurrent     bool              `json:"concurrent"` // shown even if it is false
	RetryLimit     int64             `json:"retry_limit,omitempty"`
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

// decode reads the body of a request about one transaction.
func decode(body []byte) (*transaction, error) {
	t := new(transaction)
	if err := json.Unmarshal(body, t); err != nil {
		return nil, err
	}
	t.GID = clean(t.GID)
	return t, nil
}

// request turns what a client sent into what the engine understands.
func (t *transaction) request() (engine.Request, error) {
	p, ok := patterns[t.TransType]
	if !ok {
		return engine.Request{}, fmt.Errorf("trans_type %q: want msg, saga, tcc, xa or workflow", t.TransType)
	}
	o, err := t.stored()
	if err != nil {
		return engine.Request{}, err
	}
	r := engine.Request{
		GID: t.GID, Pattern: p, Protocol: t.Protocol, QueryPrepared: t.QueryPrepared, Data: t.CustomData, Options: o,
	}
	if r.Protocol == "" {
		r.Protocol = "http"
	}
	if p == store.Message || p == store.Saga {
		if err := customize(&r.Options, t.CustomData); err != nil {
			return engine.Request{}, err
		}
		if r.Steps, err = t.steps(); err != nil {
			return engine.Request{}, err
		}
	}
	return r, nil
}

// stored returns the options as the engine keeps them.
func (o *options) stored() (store.Options, error) {
	for _, f := range [...]struct {
		name  string
		value int64
	}{
		{"timeout_to_fail", o.TimeoutToFail},
		{"request_timeout", o.RequestTimeout},
		{"retry_interval", o.RetryInterval},
		{"retry_limit", o.RetryLimit},
	} {
		if f.value < 0 {
			return store.Options{}, fmt.Errorf("%s is %d: it cannot be negative", f.name, f.value)
		}
	}
	return store.Options{
		Wait: o.WaitResult, TimeoutToFail: seconds(o.TimeoutToFail), RetryInterval: seconds(o.RetryInterval),
		RequestTimeout: seconds(o.RequestTimeout), RetryLimit: int(min(o.RetryLimit, retryLimitMax)),
		Headers: o.BranchHeaders, Concurrent: o.Concurrent,
	}, nil
}

// steps returns the steps of a message or a saga with their payloads. Old clients put
// a payload into its step, as "data".
func (t *transaction) steps() ([]engine.Step, error) {
	payloads := t.Payloads
	for i := range t.Steps {
		if d := t.Steps[i].Data; d != "" {
			payloads = append(payloads, d)
		}
	}
	if len(payloads) < len(t.Steps) {
		return nil, fmt.Errorf("payloads: %d for %d steps, every step needs one (it may be empty)", len(payloads), len(t.Steps))
	}
	steps := make([]engine.Step, len(t.Steps))
	for i := range t.Steps {
		s := &t.Steps[i]
		steps[i] = engine.Step{Action: s.Action, Compensate: s.Compensate, Payload: []byte(payloads[i])}
	}
	return steps, nil
}

// customize adds what custom_data asks for.
func customize(o *store.Options, data string) error {
	if data == "" {
		return nil
	}
	var c custom
	if err := json.Unmarshal([]byte(data), &c); err != nil {
		return fmt.Errorf("custom_data: %w", err)
	}
	if c.Delay < 0 {
		return fmt.Errorf("custom_data: delay is %d: it cannot be negative", c.Delay)
	}
	o.Delay = seconds(c.Delay)
	o.Concurrent = o.Concurrent || c.Concurrent
	for step, before := range c.Orders {
		i, err := strconv.Atoi(step)
		if err != nil {
			return fmt.Errorf("custom_data: orders: %q is no number of a step", step)
		}
		if o.Orders == nil {
			o.Orders = make(map[int][]int, len(c.Orders))
		}
		o.Orders[i] = before
	}
	return nil
}

// registration is what clients send to registerBranch. Other keys are ignored.
type registration struct {
	GID       string `json:"gid"`
	TransType string `json:"trans_type"`
	BranchID  string `json:"branch_id"`
	Data      string `json:"data"`
	Confirm   string `json:"confirm"` // of a TCC
	Cancel    string `json:"cancel"`
	URL       string `json:"url"` // of an XA
	Op        string `json:"op"`  // of a workflow
	Status    string `json:"status"`
}

const branchIDMax = 128 // bytes, as dtm's

// ops are the operations that a workflow may record.
var ops = map[string]store.Op{
	"action": store.Action, "compensate": store.Compensate, "confirm": store.Confirm, "cancel": store.Cancel,
	"commit": store.Commit, "rollback": store.Rollback, "business": store.Business,
}

var branchStates = map[string]store.BranchState{"succeed": store.BranchSucceeded, "failed": store.BranchFailed}

// branches returns what is to be registered: one operation for each way that a TCC or
// an XA may go, in dtm's order; of a workflow the step that was done.
func (r *registration) branches() ([]store.Branch, error) {
	var b []store.Branch
	payload := []byte(r.Data)
	switch r.TransType {
	case "tcc":
		b = []store.Branch{{Op: store.Cancel, URL: r.Cancel}, {Op: store.Confirm, URL: r.Confirm}}
	case "xa":
		b = []store.Branch{{Op: store.Rollback, URL: r.URL}, {Op: store.Commit, URL: r.URL}}
	case "workflow":
		op, state := ops[r.Op], branchStates[r.Status]
		switch {
		case op == 0:
			return nil, fmt.Errorf("op %q: want action, commit, rollback or business", r.Op)
		case state == 0:
			return nil, fmt.Errorf("status %q: want succeed or failed", r.Status)
		}
		now := time.Now()
		b = []store.Branch{{Op: op, State: state, Called: now, Finished: now}}
	default:
		return nil, fmt.Errorf("unknow trans type: %s", r.TransType) // dtm's spelling
	}
	switch {
	case r.BranchID == "":
		return nil, errors.New("branch_id is empty")
	case len(r.BranchID) > branchIDMax:
		return nil, fmt.Errorf("branch_id has %d bytes, the limit is %d", len(r.BranchID), branchIDMax)
	}
	for i := range b {
		b[i].ID, b[i].Payload = r.BranchID, payload
		if b[i].State == 0 {
			b[i].State = store.BranchPrepared
		}
	}
	return b, nil
}

// What a number may stand for at most: more is as good as for ever.
const (
	secondsMax    = 100 * 365 * 24 * 60 * 60
	retryLimitMax = 1_000_000
)

func seconds(n int64) time.Duration { return time.Duration(min(n, secondsMax)) * time.Second }

var stripped = strings.NewReplacer("\r", "", "\n", "", ";", "")

// clean takes out what dtm takes out of a gid.
func clean(s string) string {
	if !strings.ContainsAny(s, "\r\n;") {
		return s
	}
	return stripped.Replace(s)
}

// decodeRegistration reads the body of registerBranch.
func decodeRegistration(body []byte) (*registration, error) {
	r := new(registration)
	if err := json.Unmarshal(body, r); err != nil {
		return nil, err
	}
	r.GID = clean(r.GID)
	return r, nil
}
