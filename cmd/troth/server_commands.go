package main

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/troth-tx/troth/server/api"
)

func newServerList(a *app, f *serverFlags) *cobra.Command {
	var filter struct {
		states               []string
		pattern, prefix, old string
		stuck                bool
		limit                int
	}
	cmd := &cobra.Command{
		Use: "list", Short: "transactions, the newest first", Args: noArguments,
		Example: "  troth server list --stuck\n  troth server list --state prepared --older-than 1h\n  troth server list -o json | jq -r '.transactions[] | [.gid, .verdict] | @tsv'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{"state": filter.states, "limit": {strconv.Itoa(min(filter.limit, 1000))}}
			set := func(name, value string) {
				if value != "" {
					q.Set(name, value)
				}
			}
			set("pattern", filter.pattern)
			set("prefix", filter.prefix)
			set("older_than", filter.old)
			if filter.stuck {
				q.Set("stuck", "true")
			}
			return a.ask(cmd, f, func(ctx context.Context, r *remote) error { return r.list(ctx, q, filter.limit) })
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&filter.states, "state", nil, "only in this `state`: prepared, submitted, aborting, succeed, failed; repeat for more")
	flags.StringVar(&filter.pattern, "pattern", "", "only of this `pattern`: msg, saga, tcc, xa, workflow")
	flags.StringVar(&filter.prefix, "prefix", "", "only those whose GID begins with this `text`")
	flags.StringVar(&filter.old, "older-than", "", "only those created longer ago than this `time`, such as 90s")
	flags.BoolVar(&filter.stuck, "stuck", false, "only those that are not over and whose last pass failed")
	flags.IntVar(&filter.limit, "limit", 100, "how `many` at most")
	return cmd
}

func (r *remote) list(ctx context.Context, q url.Values, limit int) error {
	all := api.Page{Transactions: []api.Summary{}}
	for {
		var page api.Page
		if err := r.call(ctx, http.MethodGet, "/transactions?"+q.Encode(), nil, &page); err != nil {
			return err
		}
		all.Transactions = append(all.Transactions, page.Transactions...)
		all.Next = page.Next
		if page.Next == "" || len(all.Transactions) >= limit {
			break
		}
		q.Set("cursor", page.Next)
		q.Set("limit", strconv.Itoa(min(limit-len(all.Transactions), 1000)))
	}
	code := exitOK
	for _, t := range all.Transactions {
		if t.Stuck {
			code = exitAttention
		}
	}
	if r.app.output == outputJSON {
		if err := r.app.writeJSON(all); err != nil {
			return err
		}
		return silently(code)
	}
	p := newPage(r.app.out)
	p.line("GID", "PATTERN", "STATE", "AGE", "DONE", "VERDICT")
	for _, t := range all.Transactions {
		p.line(t.GID, t.Pattern, t.State, ago(time.Since(t.Created)), strconv.Itoa(t.Done)+"/"+strconv.Itoa(t.Branches), t.Verdict)
	}
	if all.Next != "" {
		p.title("there are more: --limit shows more of them")
	}
	if err := p.end(); err != nil {
		return err
	}
	return silently(code)
}

func newServerShow(a *app, f *serverFlags) *cobra.Command {
	return &cobra.Command{
		Use: "show GID", Short: "one transaction: its branches, and what happened", Args: arguments("GID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, f, func(ctx context.Context, r *remote) error { return r.show(ctx, args[0]) })
		},
	}
}

func (r *remote) show(ctx context.Context, gid string) error {
	var t api.Transaction
	if err := r.call(ctx, http.MethodGet, "/transactions/"+url.PathEscape(gid), nil, &t); err != nil {
		return err
	}
	code := exitOK
	if t.Stuck {
		code = exitAttention
	}
	if r.app.output == outputJSON {
		if err := r.app.writeJSON(t); err != nil {
			return err
		}
		return silently(code)
	}
	p := newPage(r.app.out)
	p.line("transaction", t.GID)
	p.line("pattern", t.Pattern)
	p.line("state", t.State)
	if t.Owner != "" {
		p.line("owner", t.Owner)
	}
	p.line("verdict", t.Verdict)
	p.gap()
	p.line("BRANCH", "OPERATION", "STATE", "ADDRESS", "LAST ERROR")
	for _, b := range t.List {
		p.line(b.ID, b.Op, b.State, b.URL, b.Error)
	}
	p.gap()
	for _, e := range t.Timeline {
		p.line(e.At.Format(time.RFC3339Nano), strings.TrimSpace(e.Event+" "+e.Branch+" "+e.Op), e.Text)
	}
	if err := p.end(); err != nil {
		return err
	}
	return silently(code)
}

func newServerRetry(a *app, f *serverFlags) *cobra.Command {
	return newServerAct(a, f, "retry GID", "try again now what is due later", "/retry", "it is tried again now")
}

func newServerStop(a *app, f *serverFlags) *cobra.Command {
	cmd := newServerAct(a, f, "stop GID", "stop it by force: it counts as failed", "/stop", "it is stopped, and counts as failed")
	cmd.Long = `stop ends a transaction by force. It counts as failed, nobody is called, and what its
branches have done stays done: a person must look at each of them. It is for a
participant that will never come back. Everything else ends by itself.`
	return cmd
}

func newServerAct(a *app, f *serverFlags, use, short, path, said string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: arguments("GID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usagef("--reason: say why; it goes to the server's audit")
			}
			return a.ask(cmd, f, func(ctx context.Context, r *remote) error {
				var done api.Done
				if err := r.call(ctx, http.MethodPost, "/transactions/"+url.PathEscape(args[0])+path, api.Reason{Reason: reason}, &done); err != nil {
					return err
				}
				return r.said(done, args[0]+": "+said)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`why`, for the audit")
	return cmd
}

// said writes what was done.
func (r *remote) said(v any, text string) error {
	if r.app.output == outputJSON {
		return r.app.writeJSON(v)
	}
	p := newPage(r.app.out)
	p.line(text)
	return p.end()
}

func newServerTopics(a *app, f *serverFlags) *cobra.Command {
	return &cobra.Command{
		Use: "topics", Short: "topics and who is subscribed", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, f, func(ctx context.Context, r *remote) error { return r.topics(ctx) })
		},
	}
}

func (r *remote) topics(ctx context.Context) error {
	list := struct {
		Topics []api.Topic `json:"topics"`
	}{[]api.Topic{}}
	for cursor := ""; ; {
		var page api.Topics
		if err := r.call(ctx, http.MethodGet, "/topics?cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			return err
		}
		for _, name := range page.Topics {
			var t api.Topic
			if err := r.call(ctx, http.MethodGet, "/topics/"+url.PathEscape(name), nil, &t); err != nil {
				return err
			}
			list.Topics = append(list.Topics, t)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if r.app.output == outputJSON {
		return r.app.writeJSON(list)
	}
	p := newPage(r.app.out)
	p.line("TOPIC", "SUBSCRIBER", "REMARK")
	for _, t := range list.Topics {
		for _, s := range t.Subscribers {
			p.line(t.Topic, s.URL, s.Remark)
		}
	}
	return p.end()
}

func newServerAudit(a *app, f *serverFlags) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "audit", Short: "what operators did, the newest first", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, f, func(ctx context.Context, r *remote) error { return r.audit(ctx, limit) })
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "how `many` at most, up to 1000")
	return cmd
}

func (r *remote) audit(ctx context.Context, limit int) error {
	var list api.Audit
	if err := r.call(ctx, http.MethodGet, "/audit?limit="+strconv.Itoa(limit), nil, &list); err != nil {
		return err
	}
	if r.app.output == outputJSON {
		return r.app.writeJSON(list)
	}
	p := newPage(r.app.out)
	p.line("WHEN", "WHO", "WHAT", "GID", "WHY")
	for _, e := range list.Entries {
		p.line(e.At.Format(time.RFC3339), e.Who, e.Action, e.GID, e.Reason)
	}
	return p.end()
}
