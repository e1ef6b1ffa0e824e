package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/store"
)

// record writes an operator's action into the audit, before it is done.
func (h *Handler) record(r *http.Request, action, subject, reason string) error {
	return Record(r.Context(), h.cfg.Store, h.cfg.Now(), action, subject, reason)
}

// Record writes what a caller is about to do into the audit: who, by which address,
// what, on which transaction, and why.
func Record(ctx context.Context, s store.Audit, now time.Time, action, gid, reason string) error {
	c := auth.From(ctx)
	who := c.String()
	if c.Name != "" && c.From != "" {
		who += " from " + c.From
	}
	return s.Record(ctx, store.AuditEntry{At: now, Who: who, Action: action, GID: gid, Reason: reason})
}

func (h *Handler) topics(r *http.Request, _ io.Reader) (any, error) {
	q := r.URL.Query()
	limit, err := limitOf(q)
	if err != nil {
		return nil, err
	}
	after := q.Get("cursor")
	if err := checkTopic(after); after != "" && err != nil {
		return nil, err
	}
	names, err := h.cfg.Store.AllTopics(r.Context(), after, limit)
	if err != nil {
		return nil, err
	}
	page := Topics{Topics: append([]string{}, names...)}
	if len(names) == limit {
		page.Next = names[limit-1]
	}
	return page, nil
}

func (h *Handler) topic(r *http.Request, _ io.Reader) (any, error) {
	name := r.PathValue("topic")
	if err := checkTopic(name); err != nil {
		return nil, err
	}
	version, err := h.cfg.Store.TopicVersion(r.Context(), name)
	if err != nil {
		return nil, err
	}
	list, err := h.cfg.Store.Topic(r.Context(), name)
	if err != nil {
		return nil, err
	}
	t := Topic{Topic: name, Version: version, Subscribers: make([]Subscriber, 0, len(list))}
	for _, s := range list {
		t.Subscribers = append(t.Subscribers, Subscriber{withoutPassword(s.URL), s.Remark})
	}
	return t, nil
}

// The lengths of what a topic has, in bytes.
const (
	topicMax  = 128
	urlMax    = 1024
	remarkMax = 256
)

func checkTopic(name string) error {
	if name == "" || len(name) > topicMax || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return invalid("topic: want a name of 1 to %d bytes without control characters", topicMax)
	}
	return nil
}

func (h *Handler) subscribe(r *http.Request, body io.Reader) (any, error) {
	s, err := read[Subscriber](body)
	if err != nil {
		return nil, err
	}
	name := r.PathValue("topic")
	if err := checkTopic(name); err != nil {
		return nil, err
	}
	if s.URL == "" || len(s.URL) > urlMax || len(s.Remark) > remarkMax || strings.ContainsRune(s.URL+s.Remark, 0) || !utf8.ValidString(s.URL+s.Remark) {
		return nil, invalid("url: want an address of 1 to %d bytes; remark: at most %d bytes", urlMax, remarkMax)
	}
	if h.cfg.Check != nil {
		if err := h.cfg.Check(s.URL); err != nil {
			return nil, invalid("url: %v", err)
		}
	}
	return h.changeTopic(r, "subscribe", name, s.URL, func(ctx context.Context) error {
		return h.cfg.Store.Subscribe(ctx, name, store.Subscriber{URL: s.URL, Remark: s.Remark})
	})
}

func (h *Handler) unsubscribe(r *http.Request, _ io.Reader) (any, error) {
	name, address := r.PathValue("topic"), r.URL.Query().Get("url")
	if err := checkTopic(name); err != nil {
		return nil, err
	}
	if address == "" || len(address) > urlMax {
		return nil, invalid("url: say which subscriber")
	}
	return h.changeTopic(r, "unsubscribe", name, address, func(ctx context.Context) error {
		return h.cfg.Store.Unsubscribe(ctx, name, address)
	})
}

func (h *Handler) deleteTopic(r *http.Request, _ io.Reader) (any, error) {
	name := r.PathValue("topic")
	if err := checkTopic(name); err != nil {
		return nil, err
	}
	return h.changeTopic(r, "delete-topic", name, "", func(ctx context.Context) error {
		return h.cfg.Store.DeleteTopic(ctx, name)
	})
}

func (h *Handler) changeTopic(r *http.Request, action, name, address string, do func(context.Context) error) (any, error) {
	what := "topic " + name
	if address != "" {
		what += ": " + withoutQuery(address)
	}
	if err := h.record(r, action, "", what); err != nil {
		return nil, err
	}
	if err := do(r.Context()); err != nil {
		return nil, err
	}
	return Done{true}, nil
}

// withoutQuery is an address without what may be a secret.
func withoutQuery(address string) string {
	if u, err := url.Parse(address); err == nil {
		u.RawQuery, u.User = "", nil
		return u.String()
	}
	return place(address)
}

func (h *Handler) audit(r *http.Request, _ io.Reader) (any, error) {
	q := r.URL.Query()
	limit, err := limitOf(q)
	if err != nil {
		return nil, err
	}
	var before int64
	if text := q.Get("before"); text != "" {
		if before, err = strconv.ParseInt(text, 10, 64); err != nil || before < 1 {
			return nil, invalid("before: want a number from 1 on")
		}
	}
	found, err := h.cfg.Store.Entries(r.Context(), before, limit)
	if err != nil {
		return nil, err
	}
	page := Audit{Entries: make([]AuditEntry, 0, len(found))}
	for _, e := range found {
		page.Entries = append(page.Entries, AuditEntry{e.ID, e.At.UTC(), e.Who, e.Action, e.GID, e.Reason})
	}
	if len(found) == limit && found[limit-1].ID > 1 {
		page.Next = found[limit-1].ID
	}
	return page, nil
}

func (h *Handler) inDoubt(r *http.Request, _ io.Reader) (any, error) {
	if h.cfg.InDoubt == nil {
		return InDoubt{Branches: []InDoubtBranch{}, Unreachable: []Unreachable{}}, nil
	}
	return h.cfg.InDoubt(r.Context())
}

func (h *Handler) me(r *http.Request, _ io.Reader) (any, error) {
	c := auth.From(r.Context())
	return Me{Principal: c.Name, Role: c.Role.String()}, nil
}

func (h *Handler) openapi(*http.Request, io.Reader) (any, error) {
	return json.RawMessage(h.document), nil
}
