package dtmapi

import (
	"encoding/json"
	"time"

	"github.com/troth-tx/troth/store"
)

// model begins everything that is shown. Nothing here has a number: ID is 0.
type model struct {
	ID         uint64     `json:"id"`
	CreateTime *time.Time `json:"create_time"`
	UpdateTime *time.Time `json:"update_time"`
}

// transactionView is a transaction as dtm shows it.
type transactionView struct {
	model
	GID              string     `json:"gid,omitempty"`
	TransType        string     `json:"trans_type,omitempty"`
	Status           string     `json:"status,omitempty"`
	QueryPrepared    string     `json:"query_prepared,omitempty"`
	Protocol         string     `json:"protocol,omitempty"`
	FinishTime       *time.Time `json:"finish_time,omitempty"`   // if it succeeded
	RollbackTime     *time.Time `json:"rollback_time,omitempty"` // if it failed
	Result           string     `json:"result,omitempty"`
	RollbackReason   string     `json:"rollback_reason,omitempty"`
	Options          string     `json:"options,omitempty"` // the options once more, as text
	CustomData       string     `json:"custom_data,omitempty"`
	NextCronInterval int64      `json:"next_cron_interval,omitempty"` // seconds
	NextCronTime     *time.Time `json:"next_cron_time,omitempty"`
	options
}

func viewOf(t *store.Transaction) *transactionView {
	o := optionsOf(&t.Options)
	text, _ := json.Marshal(o) // strings and numbers
	v := &transactionView{
		model: model{CreateTime: moment(t.Created), UpdateTime: moment(t.Updated)},
		GID:   t.GID, TransType: t.Pattern.String(), Status: t.State.String(),
		QueryPrepared: t.QueryPrepared, Protocol: t.Protocol, Result: t.Result, RollbackReason: t.Reason,
		Options: string(text), CustomData: t.Data, NextCronInterval: int64(t.Interval / time.Second),
		NextCronTime: moment(t.Due), options: o,
	}
	if t.State == store.Failed {
		v.RollbackTime = moment(t.Finished)
	} else {
		v.FinishTime = moment(t.Finished)
	}
	return v
}

func optionsOf(o *store.Options) options {
	return options{
		WaitResult: o.Wait, TimeoutToFail: int64(o.TimeoutToFail / time.Second),
		RequestTimeout: int64(o.RequestTimeout / time.Second), RetryInterval: int64(o.RetryInterval / time.Second),
		BranchHeaders: o.Headers, Concurrent: o.Concurrent, RetryLimit: int64(o.RetryLimit),
	}
}

// branchView is a branch as dtm shows it.
type branchView struct {
	model
	GID        string     `json:"gid,omitempty"`
	URL        string     `json:"url,omitempty"`
	BinData    []byte     `json:"bin_data,omitempty"`
	BranchID   string     `json:"branch_id,omitempty"`
	Op         string     `json:"op,omitempty"`
	Status     string     `json:"status,omitempty"`
	FinishTime *time.Time `json:"finish_time,omitempty"`
}

func branchesOf(t *store.Transaction) []branchView {
	views := make([]branchView, len(t.Branches))
	for i := range t.Branches {
		b := &t.Branches[i]
		updated := b.Finished
		if updated.IsZero() {
			updated = t.Created
		}
		views[i] = branchView{
			model: model{CreateTime: moment(t.Created), UpdateTime: moment(updated)},
			GID:   t.GID, URL: b.URL, BinData: b.Payload, BranchID: b.ID, Op: b.Op.String(),
			Status: b.State.String(), FinishTime: moment(b.Finished),
		}
	}
	return views
}

// moment is null if it is not known.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
