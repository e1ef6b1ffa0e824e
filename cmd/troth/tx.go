package main

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/troth-tx/troth"
)

const txLong = `tx looks at one transaction. It changes nothing.

The id is what the program got from tx.ID(), what its errors name in parentheses,
and what "troth indoubt" shows: bank.06bw5a6n2hs6ccr8p5d4vyz0kt. The name of a
branch works as well.`

func newTxCommand(a *app) *cobra.Command {
	tx := &cobra.Command{
		Use: "tx", Short: "look at one transaction: show, why, wait",
		Long: txLong, Args: noSuchCommand, SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	tx.AddCommand(
		&cobra.Command{
			Use: "show ID", Short: "its outcome, its record and its branches", Args: arguments("one transaction id"),
			Long: "show tells all that can be found out about a transaction: its outcome, where that is\n" +
				"recorded and which branches it binds, and the branches that are still prepared.\n\n" +
				"Exit code 0: it is finished; 3: a branch is in doubt; 5: there is no record of it.",
			Example: "  troth tx show bank.06bw5a6n2hs6ccr8p5d4vyz0kt\n  troth tx show ID -o json | jq -r .outcome",
			RunE:    func(cmd *cobra.Command, args []string) error { return a.txShow(cmd, args[0], (*page).transaction) },
		},
		&cobra.Command{
			Use: "why ID", Short: "why it stands as it does, in a sentence", Args: arguments("one transaction id"),
			Long: "why says how a transaction stands, what will happen next and whether anybody has to do\n" +
				"anything, and which sessions wait for its locks. Exit codes and JSON are those of show.",
			Example: "  troth tx why bank.06bw5a6n2hs6ccr8p5d4vyz0kt",
			RunE:    func(cmd *cobra.Command, args []string) error { return a.txShow(cmd, args[0], (*page).why) },
		},
		&cobra.Command{
			Use: "wait ID", Short: "wait until it is decided", Args: arguments("one transaction id"),
			Long: "wait asks until the transaction is decided, for as long as --timeout says. It prints\n" +
				"committed or aborted.\n\n" +
				"Exit code 0: it is decided; 3: not decided in time; 4: a database that may know the answer\n" +
				"could not be asked; 5: there is no record of it, and it is too old to get one.",
			Example: "  troth tx wait bank.06bw5a6n2hs6ccr8p5d4vyz0kt --timeout 2m",
			RunE:    func(cmd *cobra.Command, args []string) error { return a.txWait(cmd, args[0]) },
		},
	)
	return tx
}

// idWithin finds a transaction id in the name of a branch, whichever database
// wrote it.
var idWithin = regexp.MustCompile(`[a-z0-9][a-z0-9_-]{0,23}\.[0-9a-z]{26}`)

// parseID reads a transaction id, or the name of a branch.
func parseID(text string) (troth.GID, error) {
	if id, err := troth.ParseGID(text); err == nil {
		return id, nil
	}
	if id, err := troth.ParseGID(idWithin.FindString(text)); err == nil {
		return id, nil
	}
	return "", usagef("not a transaction id: it looks like bank.06bw5a6n2hs6ccr8p5d4vyz0kt, see \"troth indoubt\"")
}

// A story is all that is known about a transaction.
type story struct {
	troth.Report
	record   *troth.Decision // nil: no commit record was read
	err      error           // somebody could not be asked
	troubles []trouble
}

// tell finds out about a transaction.
func (a *app) tell(ctx context.Context, w *world, id troth.GID) story {
	var st story
	st.Report, st.err = w.mgr.Why(ctx, id)
	if st.Outcome == troth.Committed {
		st.record = w.record(ctx, st.Place, id)
	}
	st.troubles = a.trouble(w)
	if st.err != nil && len(st.troubles) == 0 { // a decision that could not be read, in a database that is open
		st.troubles = append(st.troubles, trouble{"", a.text(st.err)})
	}
	return st
}

// record reads a commit record: nil if it cannot be read, or is gone by now.
func (w *world) record(ctx context.Context, p troth.Place, id troth.GID) *troth.Decision {
	var reg troth.Register
	if p.Resource == "" && w.register != nil {
		reg = w.register
	}
	for _, r := range w.watched {
		if r.Name() == p.Resource {
			reg = r.Decisions()
		}
	}
	if reg == nil {
		return nil
	}
	// The list begins behind a GID: all but the last character of ours stands before
	// at most 32 of them, ours among these.
	list, err := reg.Committed(ctx, 0, id[:len(id)-1], 32)
	if err != nil {
		return nil // the outcome is known all the same
	}
	for _, d := range list {
		if d.GID == id {
			return &d
		}
	}
	return nil
}

func (st story) outcome() string {
	if st.Outcome == troth.Undecided && st.err != nil {
		return "unknown"
	}
	return st.Outcome.String()
}

// code is the exit code for how the transaction stands.
func (st story) code() int {
	switch {
	case len(st.Branches) > 0 || st.Heur != nil:
		return exitAttention
	case st.Outcome == troth.Undecided && st.err != nil:
		return exitUnreachable
	case st.NoRecord:
		return exitNotFound
	}
	return exitOK
}

func (a *app) txShow(cmd *cobra.Command, arg string, write func(*page, *app, story)) error {
	id, err := parseID(arg)
	if err != nil {
		return err
	}
	return a.lookAt(cmd, id, func(ctx context.Context, s settings, w *world) error {
		st := a.tell(ctx, w, id)
		var err error
		if s.output == outputJSON {
			err = a.writeJSON(newStoryView(a, st))
		} else {
			p := newPage(a.out)
			write(p, a, st)
			p.troubles(st.troubles)
			err = p.end()
		}
		if err != nil {
			return err
		}
		return silently(st.code())
	})
}

// transaction writes all that is known.
func (p *page) transaction(a *app, st story) {
	p.line("transaction", string(st.GID))
	p.line("begun", st.GID.Time().UTC().Format(time.RFC3339)+", "+ago(time.Since(st.GID.Time()))+" ago")
	p.line("outcome", st.outcome())
	if st.Place != (troth.Place{}) {
		p.line("recorded at", st.Place.String())
	}
	if st.record != nil {
		p.line("recorded", st.record.At.UTC().Format(time.RFC3339))
		bound := make([]string, len(st.record.Branches))
		for i, b := range st.record.Branches {
			bound[i] = b.Resource
		}
		p.line("binds", strings.Join(bound, ", "))
	}
	if len(st.Branches) == 0 {
		p.line("verdict", a.secrets.hide(st.Verdict))
	}
	p.gap()
	for _, b := range st.Branches {
		p.branch(a, b)
	}
}

// why writes the library's sentences and who waits, no more.
func (p *page) why(a *app, st story) {
	for sentence := range strings.Lines(st.Verdict) {
		p.line(a.secrets.hide(strings.TrimSuffix(sentence, "\n")))
	}
	p.flush()
	for _, b := range st.Branches {
		p.blocked(b)
	}
	p.flush()
}

type boundView struct {
	Resource string `json:"resource"`
	Branch   int    `json:"branch"`
}

type recordView struct {
	At       *string     `json:"at"`
	Branches []boundView `json:"branches"`
}

type heuristicView struct {
	Resource string `json:"resource"`
	Name     string `json:"name"`
	Ended    string `json:"ended"`
	Evidence string `json:"evidence"`
}

type storyView struct {
	Transaction string          `json:"transaction"`
	Domain      string          `json:"domain"`
	Begun       *string         `json:"begun"`
	Outcome     string          `json:"outcome"`
	Place       *placeView      `json:"place"`
	Record      *recordView     `json:"record"`
	Branches    []branchView    `json:"branches"`
	Heuristic   []heuristicView `json:"heuristic"`
	Verdict     string          `json:"verdict"`
	Unreachable []trouble       `json:"unreachable"`
}

func newStoryView(a *app, st story) storyView {
	v := storyView{
		Transaction: string(st.GID), Domain: st.GID.Domain(), Begun: instant(st.GID.Time()), Outcome: st.outcome(),
		Place: newPlaceView(st.Place), Branches: newBranchViews(st.Branches), Heuristic: []heuristicView{},
		Verdict: a.secrets.hide(st.Verdict), Unreachable: st.troubles,
	}
	if st.record != nil {
		v.Record = &recordView{At: instant(st.record.At), Branches: []boundView{}}
		for _, b := range st.record.Branches {
			v.Record.Branches = append(v.Record.Branches, boundView{b.Resource, b.Branch})
		}
	}
	if st.Heur != nil {
		for _, b := range st.Heur.Branches {
			v.Heuristic = append(v.Heuristic, heuristicView{b.Resource, b.XID, b.Ended.String(), b.Evidence})
		}
	}
	return v
}

func (a *app) txWait(cmd *cobra.Command, arg string) error {
	id, err := parseID(arg)
	if err != nil {
		return err
	}
	return a.lookAt(cmd, id, func(ctx context.Context, s settings, w *world) error {
		start := time.Now()
		outcome, err := w.mgr.Wait(ctx, id)
		if err != nil {
			return &exitError{Code: waitCode(err, len(a.trouble(w)) > 0), Err: err}
		}
		if s.output == outputJSON {
			return a.writeJSON(struct {
				Transaction string  `json:"transaction"`
				Outcome     string  `json:"outcome"`
				Waited      float64 `json:"waited_seconds"`
			}{string(id), outcome.String(), time.Since(start).Round(time.Millisecond).Seconds()})
		}
		p := newPage(a.out)
		p.line(outcome.String())
		return p.end()
	})
}

// waitCode grades why a wait gave no outcome. Wait joins the end of the time with
// the last answer: no record yet is "not decided", for the transaction may still be
// running.
func waitCode(err error, silent bool) int {
	late := errors.Is(err, errLate)
	switch {
	case silent:
		return exitUnreachable
	case errors.Is(err, troth.ErrNoRecord) && !late:
		return exitNotFound
	case late:
		return exitAttention
	}
	return exitUnreachable
}
