package api

import (
	"net/http"

	"github.com/troth-tx/troth/server/auth"
)

// table are all routes. The OpenAPI document is made of it.
func (h *Handler) table() []route {
	gid := param{name: "gid", in: "path", text: "the transaction's id"}
	topic := param{name: "topic", in: "path", text: "the topic's name"}
	limit := param{name: "limit", in: "query", text: "how many at most: 1 to 1000; 100 unless it is said", format: "integer"}
	return []route{
		{
			method: http.MethodGet, path: "/transactions", role: auth.Client, summary: "List transactions, the newest first",
			params: []param{
				{name: "state", in: "query", text: "only those in one of these states", enum: states, repeated: true},
				{name: "pattern", in: "query", text: "only those of this pattern", enum: patterns},
				{name: "stuck", in: "query", text: "true: only those that are not over and whose last pass failed", format: "boolean"},
				{name: "prefix", in: "query", text: "only those whose gid begins so"},
				{name: "owner", in: "query", text: "only those of this principal; clients see only their own anyway"},
				{name: "older_than", in: "query", text: "only those that were created longer ago than this duration, such as 90s or 2h"},
				{name: "created_from", in: "query", text: "only those that were created then or later", format: "date-time"},
				{name: "created_until", in: "query", text: "only those that were created before", format: "date-time"},
				{name: "cursor", in: "query", text: "next_cursor of the page before, with the same filter"},
				limit,
			},
			reply: Page{}, serve: h.list,
		},
		{
			method: http.MethodGet, path: "/transactions/{gid}", role: auth.Client, summary: "Show one transaction with its branches and what happened",
			params: []param{gid}, reply: Transaction{}, errors: []int{http.StatusNotFound}, serve: h.show,
		},
		{
			method: http.MethodPost, path: "/transactions/{gid}/retry", role: auth.Operator, summary: "Try again now what is due later",
			params: []param{gid}, body: Reason{}, reply: Done{}, errors: []int{http.StatusNotFound, http.StatusConflict}, serve: h.retry,
		},
		{
			method: http.MethodPost, path: "/transactions/{gid}/stop", role: auth.Admin,
			summary: "Stop it by force: it counts as failed, nobody is called, and what its branches have done stays done",
			params:  []param{gid}, body: Reason{}, reply: Done{}, errors: []int{http.StatusNotFound, http.StatusConflict}, serve: h.stop,
		},
		{
			method: http.MethodGet, path: "/topics", role: auth.Operator, summary: "List topics by name",
			params: []param{{name: "cursor", in: "query", text: "next_cursor of the page before"}, limit}, reply: Topics{}, serve: h.topics,
		},
		{
			method: http.MethodGet, path: "/topics/{topic}", role: auth.Operator, summary: "Show the subscribers of a topic",
			params: []param{topic}, reply: Topic{}, errors: []int{http.StatusNotFound}, serve: h.topic,
		},
		{
			method: http.MethodPost, path: "/topics/{topic}/subscribers", role: auth.Admin, summary: "Add a subscriber: messages that are submitted from now on go to it too",
			params: []param{topic}, body: Subscriber{}, reply: Done{}, errors: []int{http.StatusConflict}, serve: h.subscribe,
		},
		{
			method: http.MethodDelete, path: "/topics/{topic}/subscribers", role: auth.Admin, summary: "Remove a subscriber; the topic stays",
			params: []param{topic, {name: "url", in: "query", text: "the subscriber's address"}}, reply: Done{}, errors: []int{http.StatusNotFound}, serve: h.unsubscribe,
		},
		{
			method: http.MethodDelete, path: "/topics/{topic}", role: auth.Admin, summary: "Remove a topic with its subscribers",
			params: []param{topic}, reply: Done{}, errors: []int{http.StatusNotFound}, serve: h.deleteTopic,
		},
		{
			method: http.MethodGet, path: "/audit", role: auth.Operator, summary: "What operators did, the newest first",
			params: []param{{name: "before", in: "query", text: "next_before of the page before", format: "integer"}, limit}, reply: Audit{}, serve: h.audit,
		},
		{
			method: http.MethodGet, path: "/indoubt", role: auth.Operator, summary: "Branches of two-phase commit that are prepared in the library's databases",
			reply: InDoubt{}, serve: h.inDoubt,
		},
		{
			method: http.MethodGet, path: "/me", role: auth.Client, summary: "Who the caller is taken for",
			reply: Me{}, serve: h.me,
		},
		{
			method: http.MethodGet, path: "/openapi.json", role: auth.Client, summary: "This document",
			reply: map[string]any{}, serve: h.openapi,
		},
	}
}

var (
	states   = []string{"prepared", "submitted", "aborting", "succeed", "failed"}
	patterns = []string{"msg", "saga", "tcc", "xa", "workflow"}
)
