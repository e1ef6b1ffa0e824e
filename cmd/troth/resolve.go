package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/troth-tx/troth"
)

const resolveLong = `resolve ends the prepared branches of one transaction by hand. It is hardly ever
needed: recovery ends every branch whose decision can be read. Look at
"troth tx why ID" first; if it says that there is nothing to decide, wait.

  abort   asks the transaction's decision register for abort, and rolls back
  commit  works only where the register holds commit already

Both are refused if the register holds the opposite.

--force is for one case: the place of the decision is lost for good (its database
was destroyed), and locks must go. It ends the branches although nobody knows what
was decided: a heuristic decision. If another branch went the other way, the
databases disagree from then on, and a person must repair the data. Where the
decision can be read, --force changes nothing.

Exit code 4: the branches shown are ended, and a database that was not asked may
hold more.`

func newResolveCommand(a *app) *cobra.Command {
	var force, yes bool
	cmd := &cobra.Command{
		Use:   "resolve ID commit|abort",
		Short: "end one transaction's branches by hand; rarely needed",
		Long:  resolveLong,
		Example: "  troth resolve bank.06bw5a6n2hs6ccr8p5d4vyz0kt abort\n" +
			"  troth resolve bank.06bw5a6n2hs6ccr8p5d4vyz0kt commit --force --yes",
		Args: arguments("a transaction id", "commit or abort"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"commit", "abort"}, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.resolve(cmd, args[0], args[1], force, yes)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "end the branches although the decision cannot be read: the databases may disagree afterwards")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) resolve(cmd *cobra.Command, arg, word string, force, yes bool) error {
	id, err := parseID(arg)
	if err != nil {
		return err
	}
	var want troth.Outcome
	switch word {
	case "commit":
		want = troth.Committed
	case "abort":
		want = troth.Aborted
	default:
		return usagef("resolve wants commit or abort after the transaction id")
	}
	s, err := a.prepareFor(id)
	if err != nil {
		return err
	}
	if s.output == outputJSON && !yes {
		return usagef("resolve -o json does not ask: add --yes")
	}
	ctx, cancel := limited(cmd.Context(), s.timeout)
	defer cancel()
	w, err := a.openWorld(ctx, s, 0)
	if err != nil {
		return err
	}
	defer w.close()

	st := a.tell(ctx, w, id)
	if len(st.Branches) == 0 {
		if st.err != nil {
			return &exitError{Code: exitUnreachable, Err: fmt.Errorf("no branch of %s is in doubt in the databases that answer: %w", id, st.err)}
		}
		return &exitError{Code: exitNotFound, Err: fmt.Errorf("no branch of %s is in doubt in these databases: there is nothing to resolve", id)}
	}
	if st.Outcome != troth.Undecided && st.Outcome != want {
		return fmt.Errorf("%s is decided: %s, recorded at %s; it cannot be %s: nothing was changed", id, st.Outcome, st.Place, want)
	}
	if s.output == outputTable {
		if err := a.showPlan(st, word, force); err != nil {
			return err
		}
	}
	if !yes {
		if err := a.confirm(cmd.Context()); err != nil {
			return err
		}
	}
	ctx, cancel = limited(cmd.Context(), s.timeout) // the person's time does not count
	defer cancel()
	ended, err := w.mgr.Resolve(ctx, id, want, force)
	return a.resolved(s, st, word, force, ended, err)
}

func (a *app) resolved(s settings, st story, word string, force bool, ended int, err error) error {
	var outErr error
	if s.output == outputJSON {
		outErr = a.writeJSON(struct {
			Transaction string       `json:"transaction"`
			Want        string       `json:"want"`
			Force       bool         `json:"force"`
			Ended       int          `json:"ended"`
			Branches    []branchView `json:"branches"`
		}{string(st.GID), word, force, ended, newBranchViews(st.Branches)})
	} else {
		p := newPage(a.out)
		p.line(fmt.Sprintf("ended %s", count(ended, "branch", "branches")))
		outErr = p.end()
	}
	if outErr == nil && ended == len(st.Branches) && st.err != nil {
		return silently(exitUnreachable) // all that is known of is ended; who was not asked is said
	}
	return errors.Join(err, outErr)
}

// showPlan says what resolve is about to do.
func (a *app) showPlan(st story, word string, force bool) error {
	p := newPage(a.out)
	for _, b := range st.Branches {
		p.branch(a, b)
	}
	p.troubles(st.troubles)
	n := count(len(st.Branches), "branch", "branches")
	if word == "commit" {
		p.line("about to commit " + n + " of " + string(st.GID) + ", if its decision is commit")
	} else {
		p.line("about to decide abort, unless commit is decided, and roll back " + n + " of " + string(st.GID))
	}
	if force {
		p.line("with --force also where the decision cannot be read: a heuristic decision, after which the databases may disagree")
	}
	return p.end()
}

// confirm asks the person. Only the whole word counts. The question does not end
// with ctx while it waits for an answer, but a signal ends the program.
func (a *app) confirm(ctx context.Context) error {
	if _, err := fmt.Fprint(a.out, "type yes to go on: "); err != nil {
		return err
	}
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.in).ReadString('\n') // no answer is no
		answer <- strings.TrimSpace(line)
	}()
	select {
	case text := <-answer:
		switch text {
		case "yes":
			return nil
		case "":
			return usagef("nothing was changed: nobody answered; add --yes where nobody can")
		}
		return errors.New("nothing was changed: the answer was not yes")
	case <-ctx.Done():
		return errors.New("nothing was changed: interrupted")
	}
}
