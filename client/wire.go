package client

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// wireTransaction is dtm's JSON form of a transaction.
type wireTransaction struct {
	GID           string              `json:"gid"`
	TransType     Pattern             `json:"trans_type"`
	Protocol      string              `json:"protocol,omitempty"`
	Steps         []map[string]string `json:"steps,omitempty"`
	Payloads      []string            `json:"payloads,omitempty"`
	QueryPrepared string              `json:"query_prepared,omitempty"`
	CustomData    string              `json:"custom_data,omitempty"`
	Reason        string              `json:"rollback_reason,omitempty"`
	Extra         map[string]string   `json:"req_extra,omitempty"`

	Wait           bool              `json:"wait_result,omitempty"`
	TimeoutToFail  int64             `json:"timeout_to_fail,omitempty"`
	RetryInterval  int64             `json:"retry_interval,omitempty"`
	RequestTimeout int64             `json:"request_timeout,omitempty"`
	RetryLimit     int               `json:"retry_limit,omitempty"`
	Headers        map[string]string `json:"branch_headers,omitempty"`
	Concurrent     bool              `json:"concurrent,omitempty"`
}

func wireOf(t *Transaction, extra map[string]string) (*wireTransaction, error) {
	o := &t.Options
	w := &wireTransaction{
		GID: o.GID, TransType: t.Pattern, QueryPrepared: t.QueryPrepared, Reason: t.Reason, Extra: extra,
		Wait: o.Wait, TimeoutToFail: Seconds(o.TimeoutToFail), RetryInterval: Seconds(o.RetryInterval),
		RequestTimeout: Seconds(o.RequestTimeout), RetryLimit: o.RetryLimit, Headers: o.Headers, Concurrent: t.Concurrent,
	}
	for _, s := range t.Steps {
		if !utf8.Valid(s.Payload) {
			return nil, errNotText
		}
		w.Steps = append(w.Steps, s.Wire())
		w.Payloads = append(w.Payloads, string(s.Payload))
	}
	var err error
	w.CustomData, err = t.CustomData()
	return w, err
}

// Wire is the step as dtm's protocols have it, without its payload.
func (s Step) Wire() map[string]string {
	m := map[string]string{"action": s.Action}
	if s.Compensate != "" {
		m["compensate"] = s.Compensate
	}
	return m
}

// CustomData is what dtm's protocols carry of a transaction in custom_data: the delay
// of a message, the order of a saga, the name and input of a workflow.
func (t *Transaction) CustomData() (string, error) {
	var custom any
	switch {
	case t.Pattern == PatternWorkflow && t.Name != "":
		custom = customWorkflow{t.Name, t.Input}
	case t.Pattern == PatternMessage && (t.Delay > 0 || t.Concurrent):
		custom = map[string]any{"delay": Seconds(t.Delay), "concurrent": t.Concurrent}
	case t.Pattern == PatternSaga && t.Concurrent:
		orders := make(map[string][]int, len(t.Orders))
		for step, after := range t.Orders {
			orders[strconv.Itoa(step)] = after
		}
		custom = map[string]any{"orders": orders, "concurrent": true}
	default:
		return "", nil
	}
	b, err := json.Marshal(custom)
	return string(b), err
}

type customWorkflow struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// SetCustomData reads what CustomData wrote of a workflow.
func (s *Status) SetCustomData(data string) {
	var w customWorkflow
	if s.Pattern == PatternWorkflow && json.Unmarshal([]byte(data), &w) == nil {
		s.Name, s.Input = w.Name, w.Data
	}
}

// wireStatus and wireStep are dtm's JSON forms of a stored transaction and its branches.
type wireStatus struct {
	GID       string  `json:"gid"`
	TransType Pattern `json:"trans_type"`
	Status    State   `json:"status"`
	Reason    string  `json:"rollback_reason"`
	Result    string  `json:"result"`
	Custom    string  `json:"custom_data"`
}

type wireStep struct {
	ID     string `json:"branch_id"`
	Op     Op     `json:"op"`
	URL    string `json:"url"`
	Status State  `json:"status"`
	Data   []byte `json:"bin_data"`
}

func (w *wireStatus) status(steps []wireStep) *Status {
	s := &Status{GID: w.GID, Pattern: w.TransType, State: w.Status, Reason: w.Reason}
	var err error
	if s.Result, err = base64.StdEncoding.DecodeString(w.Result); err != nil {
		s.Result = []byte(w.Result) // not ours
	}
	s.SetCustomData(w.Custom)
	for _, b := range steps {
		s.Branches = append(s.Branches, BranchStatus{ID: b.ID, Op: b.Op, URL: b.URL, State: b.Status, Data: b.Data})
	}
	return s
}
