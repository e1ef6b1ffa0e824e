package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/troth-tx/troth"
)

const doctorLong = `doctor examines each database: settings that would lose decisions, missing
privileges, poolers in front, free slots, branches left behind. It changes nothing,
creates nothing, and works before troth was ever used there.

Every finding says what was found, why it matters and the exact statement that
mends it. The severities:

  fatal    transactions would not be safe, or cannot work: programs refuse to start
  warning  will hurt some day
  note     worth knowing
  ok       checked and well; shown with -v

Exit code 3: there is a warning or worse; 4: a database did not answer or refused
the login, and the others are well.`

func newDoctorCommand(a *app) *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "check the databases; every finding comes with its fix",
		Long:    doctorLong,
		Example: "  troth doctor\n  troth doctor -v --resource athos=postgres://app@db1:5432/bank\n  troth doctor -o json | jq .summary",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd, verbose) },
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "also show what is well")
	return cmd
}

// The states of an examination, a contract in JSON.
const (
	examChecked     = "checked"
	examFailed      = "failed"      // it answers, and the check could not be done
	examUnreachable = "unreachable" // no connection
	examRefused     = "refused"     // it answers, and does not let us in
)

// An exam is what doctor found in one database.
type exam struct {
	target
	status   string
	err      error
	findings []troth.Finding
	facts    facts
}

// ofSessions are the subjects of findings about pools and sessions. Those that
// doctor opens are its own, and tell nothing about the programs'.
var ofSessions = map[engine][]string{
	enginePostgres: nil,
	engineMySQL:    {"multiStatements", "max_connections"},
	engineSQLite:   {"synchronous", "fullfsync", "busy_timeout", "foreign_keys"},
}

// A checkup is all that doctor found.
type checkup struct {
	exams    []exam
	register *exam // nil: decisions are in the databases themselves
	across   []troth.Finding
}

func (a *app) doctor(cmd *cobra.Command, verbose bool) error {
	s, err := a.prepare()
	if err != nil {
		return err
	}
	ctx, cancel := limited(cmd.Context(), s.timeout)
	defer cancel()
	exams := make([]exam, len(s.targets))
	var wg sync.WaitGroup
	for i, t := range s.targets {
		wg.Go(func() { exams[i] = examine(ctx, t) })
	}
	var c checkup
	wg.Go(func() { c.register = examineRegister(ctx, s.register) })
	wg.Wait()
	c.exams, c.across = exams, compare(exams)
	if !s.register.none() {
		c.exams = withoutDecisions(exams)
	}

	sum := c.summary()
	if s.output == outputJSON {
		err = a.writeJSON(newDoctorView(a, c))
	} else {
		err = a.writeDoctor(c, verbose)
	}
	if err != nil {
		return err
	}
	return silently(sum.code())
}

// examine checks one database on a pool of its own.
func examine(ctx context.Context, t target) exam {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("no answer within %v", openTimeout))
	defer cancel()
	x := exam{target: t, status: examUnreachable}
	db, err := t.open()
	if err != nil {
		x.err = err
		return x
	}
	defer func() { _ = db.Close() }() // nothing is under way in it
	if x.err = explained(ctx, db.PingContext(ctx)); x.err != nil {
		if loginRefused(x.err) {
			x.status = examRefused
		}
		return x
	}
	r := newResource(t, db)
	checker, ok := r.(troth.Checker)
	if !ok {
		x.status, x.err = examFailed, errors.New("this kind of database has no check")
		return x
	}
	x.findings, x.err = checker.Check(ctx)
	x.findings = slices.DeleteFunc(x.findings, func(f troth.Finding) bool { return slices.Contains(ofSessions[t.engine], f.Subject) })
	_ = r.Close(context.WithoutCancel(ctx)) // the session that Check may have kept
	if x.err == nil {
		x.facts, x.err = readFacts(ctx, t, db)
	}
	switch {
	case x.err == nil:
		x.status = examChecked
	case ctx.Err() == nil:
		x.status = examFailed
	}
	return x
}

// A summary counts; its fields are a contract, see doc.go.
type summary struct {
	Resources   int `json:"resources"`
	Unreachable int `json:"unreachable"`
	Failed      int `json:"failed"`
	Fatal       int `json:"fatal"`
	Warnings    int `json:"warnings"`
	Notes       int `json:"notes"`
}

func (c checkup) summary() summary {
	s := summary{Resources: len(c.exams)}
	s.add(c.across)
	for _, x := range c.exams {
		s.addExam(x)
	}
	if c.register != nil {
		s.addExam(*c.register)
	}
	return s
}

func (s *summary) addExam(x exam) {
	s.add(x.findings)
	switch x.status {
	case examUnreachable, examRefused:
		s.Unreachable++
	case examFailed:
		s.Failed++
	}
}

func (s *summary) add(findings []troth.Finding) {
	for _, f := range findings {
		switch f.Severity {
		case troth.FindingFatal:
			s.Fatal++
		case troth.FindingWarning:
			s.Warnings++
		case troth.FindingNote:
			s.Notes++
		case troth.FindingOK:
		}
	}
}

func (s summary) code() int {
	switch {
	case s.Fatal+s.Warnings+s.Failed > 0:
		return exitAttention
	case s.Unreachable > 0:
		return exitUnreachable
	}
	return exitOK
}

func (s summary) String() string {
	text := count(s.Resources, "database", "databases")
	if s.Unreachable > 0 {
		text += fmt.Sprintf(", %d unreachable", s.Unreachable)
	}
	if s.Failed > 0 {
		text += fmt.Sprintf(", %d could not be checked", s.Failed)
	}
	text += fmt.Sprintf(": %d fatal, %s, %s", s.Fatal, count(s.Warnings, "warning", "warnings"), count(s.Notes, "note", "notes"))
	return text
}

func (a *app) writeDoctor(c checkup, verbose bool) error {
	p := newPage(a.out)
	for _, x := range c.exams {
		p.exam(a, x.name, x, verbose)
	}
	if c.register != nil {
		p.exam(a, "the register", *c.register, verbose)
	}
	if len(c.across) > 0 {
		p.line("together")
		p.findings(c.across, verbose)
		p.gap()
	}
	p.line(c.summary().String())
	return p.end()
}

func (p *page) exam(a *app, name string, x exam, verbose bool) {
	p.title(name, x.shown)
	switch x.status {
	case examUnreachable:
		p.title("  unreachable:", a.text(x.err))
	case examRefused:
		p.title("  login refused:", a.text(x.err))
	case examFailed:
		p.title("  could not be checked:", a.text(x.err))
	}
	p.findings(x.findings, verbose)
	p.gap()
}

// findings writes those that want attention, the worst first, and with verbose the
// others after them.
func (p *page) findings(list []troth.Finding, verbose bool) {
	shown := 0
	for _, severity := range []troth.Severity{troth.FindingFatal, troth.FindingWarning, troth.FindingNote, troth.FindingOK} {
		for _, f := range list {
			if f.Severity != severity || severity == troth.FindingOK && !verbose {
				continue
			}
			shown++
			p.line("  "+f.Severity.String(), f.Subject+": "+f.Found)
			if f.Why != "" {
				p.line("", "why: "+f.Why)
			}
			if f.Fix != "" {
				p.line("", "fix: "+f.Fix)
			}
		}
	}
	if shown == 0 && len(list) > 0 {
		p.line("  well")
	}
}

type findingView struct {
	Severity string  `json:"severity"`
	Subject  string  `json:"subject"`
	Found    string  `json:"found"`
	Why      *string `json:"why"`
	Fix      *string `json:"fix"`
}

func newFindingViews(list []troth.Finding) []findingView {
	views := []findingView{}
	for _, f := range list {
		views = append(views, findingView{f.Severity.String(), f.Subject, f.Found, optional(f.Why), optional(f.Fix)})
	}
	return views
}

type examView struct {
	Resource string        `json:"resource"`
	Address  string        `json:"address"`
	Status   string        `json:"status"`
	Error    *string       `json:"error"`
	Findings []findingView `json:"findings"`
}

type doctorView struct {
	Resources []examView    `json:"resources"`
	Register  *examView     `json:"register"`
	Across    []findingView `json:"across"`
	Summary   summary       `json:"summary"`
}

func newDoctorView(a *app, c checkup) doctorView {
	v := doctorView{Resources: []examView{}, Across: newFindingViews(c.across), Summary: c.summary()}
	for _, x := range c.exams {
		v.Resources = append(v.Resources, a.newExamView(x))
	}
	if c.register != nil {
		r := a.newExamView(*c.register)
		v.Register = &r
	}
	return v
}

func (a *app) newExamView(x exam) examView {
	v := examView{Resource: x.name, Address: x.shown, Status: x.status, Findings: newFindingViews(x.findings)}
	if x.err != nil {
		v.Error = optional(a.text(x.err))
	}
	return v
}

// names joins names for a sentence.
func names(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}
