package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

const inDoubtLong = `indoubt lists every prepared branch in the databases: those in doubt of how their
transaction ended, and those of other programs. It ends none of them.

Each comes with who prepared it and when, a verdict (what will happen, and
whether anybody has to do anything), and the sessions that wait for its locks.

Exit code 3 means that a branch of the domain is in doubt. Branches of other
domains and other programs are shown, and do not count; but if no domain is
configured, branches of any domain do.`

const inDoubtExample = `  troth indoubt
  troth indoubt -o json | jq -r '.branches[] | [.resource, .transaction, .verdict] | @tsv'`

func newInDoubtCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "indoubt",
		Short:   "what is in doubt, why, and who waits for it",
		Long:    inDoubtLong,
		Example: inDoubtExample,
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.look(cmd, a.inDoubt) },
	}
}

func (a *app) inDoubt(ctx context.Context, s settings, w *world) error {
	list, listErr := w.mgr.InDoubt(ctx)
	troubles := a.trouble(w)
	ours := len(ofDomain(list, s.domain))
	others := otherDomains(list, s.domain)

	var err error
	if s.output == outputJSON {
		err = a.writeJSON(struct {
			Branches    []branchView `json:"branches"`
			Unreachable []trouble    `json:"unreachable"`
			Others      []domainView `json:"other_domains"`
		}{newBranchViews(list), troubles, others})
	} else {
		p := newPage(a.out)
		for _, b := range list {
			p.branch(a, b)
		}
		p.troubles(troubles)
		p.line(inDoubtSummary(s.domain, ours, len(list)-ours, len(troubles)))
		p.domains(s, others)
		err = p.end()
	}
	switch {
	case err != nil:
		return err
	case ours > 0 || unasked(s, others):
		return silently(exitAttention)
	case listErr != nil || len(troubles) > 0:
		return silently(exitUnreachable)
	}
	return nil
}

func inDoubtSummary(domain string, ours, others, silent int) string {
	text := "nothing of the domain " + domain + " is in doubt"
	if ours > 0 {
		text = fmt.Sprintf("%s of the domain %s in doubt", count(ours, "branch", "branches"), domain)
	}
	if others > 0 {
		text += fmt.Sprintf("; %s of others", count(others, "branch", "branches"))
	}
	if silent > 0 {
		text += fmt.Sprintf("; %d not asked, which may hold more", silent)
	}
	return text
}
