package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/store"
)

func (h *Handler) list(r *http.Request, _ io.Reader) (any, error) {
	now := h.cfg.Now()
	f, err := filterOf(r.URL.Query(), now)
	if err != nil {
		return nil, err
	}
	if owner := auth.From(r.Context()).Owner(); owner != "" {
		if f.Owner != "" && f.Owner != owner {
			return Page{Transactions: []Summary{}}, nil // as if there were nobody else
		}
		f.Owner = owner
	}
	select {
	case h.lists <- struct{}{}:
		defer func() { <-h.lists }()
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
	page := Page{Transactions: []Summary{}}
	for limit := f.Limit; limit > 0; limit = f.Limit - len(page.Transactions) {
		part := f
		part.Limit = min(limit, listStep)
		found, next, err := h.cfg.Store.List(r.Context(), part)
		if err != nil {
			return nil, err
		}
		for _, t := range found {
			page.Transactions = append(page.Transactions, summaryOf(t, now))
		}
		page.Next, f.Cursor = next, next
		if next == "" {
			break
		}
	}
	return page, nil
}

// What the store lists has its payloads, of up to 16 MiB each: few at a time are in
// memory, for few who ask.
const (
	listStep = 20 // transactions
	listsMax = 4  // requests
)

// The lengths of what a filter may have, in bytes.
const (
	prefixMax = 128
	cursorMax = 1024
)

func filterOf(q url.Values, now time.Time) (f store.Filter, err error) {
	for _, name := range q["state"] {
		i := slices.Index(states, name)
		if i < 0 {
			return f, invalid("state: want one of %s", strings.Join(states, ", "))
		}
		f.States = append(f.States, store.Prepared+store.State(i))
	}
	if name := q.Get("pattern"); name != "" {
		i := slices.Index(patterns, name)
		if i < 0 {
			return f, invalid("pattern: want one of %s", strings.Join(patterns, ", "))
		}
		f.Pattern = store.Message + store.Pattern(i)
	}
	switch q.Get("stuck") {
	case "", "false":
	case "true":
		f.Stuck = true
	default:
		return f, invalid("stuck: want true or false")
	}
	f.GIDPrefix, f.Owner, f.Cursor = q.Get("prefix"), q.Get("owner"), q.Get("cursor")
	if len(f.GIDPrefix) > prefixMax || len(f.Owner) > prefixMax || len(f.Cursor) > cursorMax ||
		!utf8.ValidString(f.GIDPrefix+f.Owner+f.Cursor) || strings.ContainsRune(f.GIDPrefix+f.Owner+f.Cursor, 0) {
		return f, invalid("prefix, owner and cursor: want text of at most %d, %d and %d bytes", prefixMax, prefixMax, cursorMax)
	}
	if err := agesOf(&f, q, now); err != nil {
		return f, err
	}
	f.Limit, err = limitOf(q)
	return f, err
}

func agesOf(f *store.Filter, q url.Values, now time.Time) (err error) {
	for name, field := range map[string]*time.Time{"created_from": &f.CreatedFrom, "created_until": &f.CreatedUntil} {
		if text := q.Get(name); text != "" {
			if *field, err = time.Parse(time.RFC3339, text); err != nil {
				return invalid("%s: want a time such as 2026-01-31T10:00:00Z", name)
			}
		}
	}
	text := q.Get("older_than")
	if text == "" {
		return nil
	}
	age, err := time.ParseDuration(text)
	if err != nil || age < 0 {
		return invalid("older_than: want a duration such as 90s or 2h")
	}
	if until := now.Add(-age); f.CreatedUntil.IsZero() || until.Before(f.CreatedUntil) {
		f.CreatedUntil = until
	}
	return nil
}

func limitOf(q url.Values) (int, error) {
	text := q.Get("limit")
	if text == "" {
		return store.ListLimitDefault, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > store.ListLimitMax {
		return 0, invalid("limit: want a number from 1 to %d", store.ListLimitMax)
	}
	return n, nil
}

// get returns a transaction that the caller may see. One of somebody else's is as
// absent as one that is not there (S4).
func (h *Handler) get(r *http.Request) (*store.Transaction, error) {
	t, err := h.cfg.Engine.Get(r.Context(), r.PathValue("gid"))
	if err != nil {
		return nil, err
	}
	if owner := auth.From(r.Context()).Owner(); owner != "" && t.Owner != owner {
		return nil, engine.ErrNotFound
	}
	return t, nil
}

func (h *Handler) show(r *http.Request, _ io.Reader) (any, error) {
	t, err := h.get(r)
	if err != nil {
		return nil, err
	}
	return transactionOf(t, h.cfg.Now()), nil
}

func (h *Handler) retry(r *http.Request, body io.Reader) (any, error) {
	return h.act(r, body, "retry-now", func(ctx context.Context, gid, _ string) error { return h.cfg.Engine.RetryNow(ctx, gid) })
}

func (h *Handler) stop(r *http.Request, body io.Reader) (any, error) {
	return h.act(r, body, "force-stop", h.cfg.Engine.Stop)
}

// act does what an operator asks of a transaction, once that is in the audit: an
// action that left no trace must not happen, a trace of one that failed may.
func (h *Handler) act(r *http.Request, body io.Reader, action string, do func(ctx context.Context, gid, reason string) error) (any, error) {
	why, err := read[Reason](body)
	if err != nil {
		return nil, err
	}
	if err := checkReason(why.Reason); err != nil {
		return nil, err
	}
	t, err := h.get(r)
	if err != nil {
		return nil, err
	}
	if t.State.Over() {
		return nil, &engine.StateError{GID: t.GID, Pattern: t.Pattern, State: t.State, Request: action}
	}
	if err := h.record(r, action, t.GID, why.Reason); err != nil {
		return nil, err
	}
	if err := do(r.Context(), t.GID, why.Reason); err != nil {
		return nil, err
	}
	return Done{true}, nil
}

// The lengths of a reason, in bytes.
const (
	reasonMin = 3
	reasonMax = 1000
)

func checkReason(reason string) error {
	if n := len(strings.TrimSpace(reason)); n < reasonMin || len(reason) > reasonMax || !utf8.ValidString(reason) || strings.ContainsRune(reason, 0) {
		return invalid("reason: say why, in %d to %d bytes", reasonMin, reasonMax)
	}
	return nil
}
