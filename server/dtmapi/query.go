package dtmapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

func (h *handler) version(*http.Request) (any, error) {
	return map[string]string{"version": h.Version}, nil
}

// newGID answers with strings only: dtm's Go client panics at anything else.
func (h *handler) newGID(*http.Request) (any, error) {
	return map[string]string{"dtm_result": "SUCCESS", "gid": newGID()}, nil
}

type queryAnswer struct {
	Transaction *transactionView `json:"transaction"` // null if there is none
	Branches    []branchView     `json:"branches"`
}

func (h *handler) query(r *http.Request) (any, error) {
	gid := r.URL.Query().Get("gid")
	if gid == "" {
		return nil, errors.New("no gid specified")
	}
	t, err := h.Engine.Get(r.Context(), gid)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return queryAnswer{Branches: []branchView{}}, nil
	case err != nil:
		return nil, err
	}
	return queryAnswer{Transaction: viewOf(t), Branches: branchesOf(t)}, nil
}

type allAnswer struct {
	Transactions []*transactionView `json:"transactions"`
	NextPosition string             `json:"next_position"` // empty at the end
}

// all lists transactions, the newest first.
func (h *handler) all(r *http.Request) (any, error) {
	q := r.URL.Query()
	a := allAnswer{Transactions: []*transactionView{}}
	if gid := q.Get("gid"); gid != "" {
		t, err := h.Engine.Get(r.Context(), gid)
		switch {
		case err == nil:
			a.Transactions = append(a.Transactions, viewOf(t))
		case !errors.Is(err, engine.ErrNotFound):
			return nil, err
		}
		return a, nil
	}
	f, err := filterOf(q)
	if err != nil {
		return nil, err
	}
	f.Owner = engine.OwnerOf(r.Context())
	a.NextPosition, err = h.list(r.Context(), f, func(t *store.Transaction) { a.Transactions = append(a.Transactions, viewOf(t)) })
	return a, err
}

// What the store lists has its payloads, of many megabytes each: few at a time are in
// memory, for few who ask.
const (
	listStep = 10 // transactions
	listsMax = 4  // requests
)

// list shows a page of transactions, one after the other, and returns the cursor of the
// next. What it shows is not kept.
func (h *handler) list(ctx context.Context, f store.Filter, show func(*store.Transaction)) (next string, err error) {
	select {
	case h.lists <- struct{}{}:
		defer func() { <-h.lists }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	for left := f.Limit; left > 0; {
		f.Limit = min(left, listStep)
		page, next, err := h.Store.List(ctx, f)
		if err != nil {
			return "", err
		}
		for _, t := range page {
			show(t)
		}
		if left -= len(page); next == "" || left <= 0 {
			return next, nil
		}
		f.Cursor = next
	}
	return "", nil
}

var states = map[string]store.State{
	"prepared": store.Prepared, "submitted": store.Submitted, "aborting": store.Aborting,
	"succeed": store.Succeeded, "failed": store.Failed,
}

func filterOf(q url.Values) (f store.Filter, err error) {
	if name := q.Get("status"); name != "" {
		s, ok := states[name]
		if !ok {
			return f, fmt.Errorf("status %q: want prepared, submitted, aborting, succeed or failed", name)
		}
		f.States = []store.State{s}
	}
	if name := q.Get("transType"); name != "" {
		p, ok := patterns[name]
		if !ok {
			return f, fmt.Errorf("transType %q: want msg, saga, tcc, xa or workflow", name)
		}
		f.Pattern = p
	}
	if f.CreatedFrom, err = milliseconds(q, "createTimeStart"); err != nil {
		return f, err
	}
	if f.CreatedUntil, err = milliseconds(q, "createTimeEnd"); err != nil {
		return f, err
	}
	if !f.CreatedUntil.IsZero() {
		f.CreatedUntil = f.CreatedUntil.Add(time.Millisecond) // the last one is included
	}
	f.Cursor = q.Get("position")
	f.Limit, err = limitOf(q)
	return f, err
}

// milliseconds reads a time; zero if none is given.
func milliseconds(q url.Values, name string) (time.Time, error) {
	n, err := number(q, name, 0)
	if err != nil || n == 0 {
		return time.Time{}, err
	}
	return time.UnixMilli(n), nil
}

// limitOf is how many are wanted at a time.
func limitOf(q url.Values) (int, error) {
	n, err := number(q, "limit", store.ListLimitDefault)
	return int(min(max(n, 1), store.ListLimitMax)), err
}

func number(q url.Values, name string, absent int64) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s %q: want a whole number that is not negative", name, text)
	}
	return n, nil
}
