package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/troth-tx/troth"
)

const recoverLong = `recover runs one full recovery pass, as every program that uses troth does every
few seconds: branches whose transaction is decided are ended as decided, and those
that nobody decided are rolled back, after their transaction's decision register
holds abort. It never ends a branch against a decision, and never touches branches
of other domains or programs.

A branch that was prepared a moment ago may belong to a program that is about to
decide, so an undecided one is given --grace from its prepare (or, where the
database does not tell that, from when this command saw it) and then looked at
again.

Exit code 3 means that something is left; each comes with the reason. If no domain
is configured, branches of any domain count.`

func newRecoverCommand(a *app) *cobra.Command {
	var grace time.Duration
	cmd := &cobra.Command{
		Use:     "recover",
		Short:   "end what is in doubt and can be ended, now",
		Long:    recoverLong,
		Example: "  troth recover\n  troth recover --grace 0s   # the programs are known to be dead",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace < 0 {
				return usagef("--grace: %v is negative: write 5s, or 0s for none", grace)
			}
			return a.recover(cmd, grace)
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", 5*time.Second, "leave undecided branches alone for this `time`")
	return cmd
}

func (a *app) recover(cmd *cobra.Command, grace time.Duration) error {
	s, err := a.prepare()
	if err != nil {
		return err
	}
	ctx, cancel := limited(cmd.Context(), s.timeout)
	defer cancel()
	configured := grace
	if grace == 0 {
		configured = -1 // to the library, 0 is the default
	}
	w, err := a.openWorld(ctx, s, configured)
	if err != nil {
		return err
	}
	defer w.close()

	done := recoverTwice(ctx, w.mgr, s.domain, grace)
	left := ofDomain(done.left, s.domain)
	others := otherDomains(done.left, s.domain)
	troubles := a.trouble(w)
	failures := a.failures(done.err, troubles)
	if s.output == outputJSON {
		err = a.writeJSON(struct {
			Ended       int          `json:"ended"`
			Left        int          `json:"left"`
			Branches    []branchView `json:"branches"`
			Errors      []string     `json:"errors"`
			Unreachable []trouble    `json:"unreachable"`
			Others      []domainView `json:"other_domains"`
		}{done.ended, len(left), newBranchViews(left), failures, troubles, others})
	} else {
		p := newPage(a.out)
		for _, b := range left {
			p.branch(a, b)
		}
		for _, f := range failures {
			p.line("error", f)
		}
		p.flush()
		p.troubles(troubles)
		p.line(fmt.Sprintf("ended %s, left %d", count(done.ended, "branch", "branches"), len(left)))
		p.domains(s, others)
		err = p.end()
	}
	switch {
	case err != nil:
		return err
	case len(left) > 0 || unasked(s, others):
		return silently(exitAttention)
	case len(troubles) > 0:
		return silently(exitUnreachable)
	case len(failures) > 0:
		return silently(exitFailure)
	}
	return nil
}

type recovery struct {
	ended int
	left  []troth.InDoubt
	err   error // of the last pass
}

// recoverTwice runs a pass, and a second one when the first left something for the
// sake of the grace time alone.
func recoverTwice(ctx context.Context, mgr *troth.Manager, domain string, grace time.Duration) recovery {
	var r recovery
	for pass := 1; ; pass++ {
		n, err := mgr.Recover(ctx)
		r.ended, r.err = r.ended+n, err
		left, listErr := mgr.InDoubt(ctx)
		r.left = left
		if listErr != nil && r.err == nil {
			r.err = listErr
		}
		if pass == 2 || grace == 0 || !anyWaiting(ofDomain(left, domain)) {
			return r
		}
		timer := time.NewTimer(grace)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return r
		}
	}
}

// anyWaiting reports whether a branch has no decision, which is known: nothing but
// time is missing.
func anyWaiting(left []troth.InDoubt) bool {
	for _, b := range left {
		if decisionWord(b.Evidence) == "none" {
			return true
		}
	}
	return false
}

// failures are the errors of a pass that are not said by the troubles already.
func (a *app) failures(err error, troubles []trouble) []string {
	list := []string{}
	for _, e := range flatten(err) {
		var b *troth.BranchError
		silent := len(troubles) > 0 && (!errors.As(e, &b) || b.XID == "")
		if !silent {
			list = append(list, a.text(e))
		}
	}
	return list
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
		return nil
	case !ok:
		return []error{err}
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, flatten(e)...)
	}
	return list
}
