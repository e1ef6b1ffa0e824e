package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/troth-tx/troth"
)

// What the commands show of a transaction, in JSON and for people. The field
// names are a contract, see doc.go. Verdicts are the library's, word for word.

type placeView struct {
	Resource *string `json:"resource"` // null: the register
	Identity string  `json:"identity"`
}

func newPlaceView(p troth.Place) *placeView {
	if p == (troth.Place{}) {
		return nil
	}
	return &placeView{optional(p.Resource), p.Identity}
}

type blockedView struct {
	Session string   `json:"session"`
	Query   string   `json:"query"`
	Waiting *float64 `json:"waiting_seconds"`
}

type branchView struct {
	Resource    string        `json:"resource"`
	Ours        bool          `json:"ours"`
	Transaction *string       `json:"transaction"`
	Branch      *int          `json:"branch"`
	Domain      *string       `json:"domain"`
	Name        string        `json:"name"`
	Begun       *string       `json:"begun"`
	Age         *float64      `json:"age_seconds"`
	Owner       *string       `json:"owner"`
	Database    *string       `json:"database"`
	Place       *placeView    `json:"place"`
	Decision    string        `json:"decision"`
	Verdict     string        `json:"verdict"`
	Blocked     []blockedView `json:"blocked"`
}

func newBranchView(b troth.InDoubt) branchView {
	v := branchView{
		Resource: b.Resource, Ours: b.Ours, Name: b.Native, Age: seconds(b.Age), Owner: optional(b.Owner),
		Database: optional(b.Database), Decision: decisionWord(b.Evidence), Verdict: b.Verdict, Blocked: []blockedView{},
	}
	if b.Ours {
		v.Transaction, v.Branch = optional(string(b.XID.GID)), &b.XID.Branch
		v.Domain, v.Begun, v.Place = optional(b.XID.GID.Domain()), instant(b.XID.GID.Time()), newPlaceView(b.XID.Place)
	}
	for _, w := range b.Blocked {
		v.Blocked = append(v.Blocked, blockedView{w.Session, w.Query, seconds(w.Waiting)})
	}
	return v
}

func newBranchViews(list []troth.InDoubt) []branchView {
	views := []branchView{}
	for _, b := range list {
		views = append(views, newBranchView(b))
	}
	return views
}

func decisionWord(e troth.Evidence) string {
	if !e.Ours || e.PlaceUnknown || e.PlaceErr != nil {
		return "unknown"
	}
	switch e.Decision {
	case troth.Committed:
		return "commit"
	case troth.Aborted:
		return "abort"
	case troth.Undecided:
	}
	return "none"
}

// branch writes one prepared branch as a block.
func (p *page) branch(a *app, b troth.InDoubt) {
	if b.Ours {
		p.line("transaction", string(b.XID.GID))
		p.line("branch", fmt.Sprintf("%d on %s", b.XID.Branch, b.Resource))
	} else {
		p.line("foreign", b.Native)
		p.line("branch", "on "+b.Resource)
	}
	p.line("prepared", preparedSince(b))
	p.line("verdict", a.secrets.hide(b.Verdict))
	p.blocked(b)
	p.gap()
}

func preparedSince(b troth.InDoubt) string {
	text := "the database does not say when"
	switch {
	case b.Age > 0:
		text = ago(b.Age) + " ago"
	case b.Ours:
		text += fmt.Sprintf("; the transaction began %s ago", ago(time.Since(b.XID.GID.Time())))
	}
	if b.Owner != "" {
		text += " by " + b.Owner
	}
	return text
}

func (p *page) blocked(b troth.InDoubt) {
	for _, w := range b.Blocked {
		text := "session " + w.Session
		if w.Waiting > 0 {
			text += " for " + ago(w.Waiting)
		}
		if w.Query != "" {
			text += ": " + w.Query
		}
		p.line("blocks", text)
	}
}

// troubles writes who could not be asked.
func (p *page) troubles(list []trouble) {
	for _, t := range list {
		text := t.Error
		if t.Resource != "" {
			text = t.Resource + ": " + text
		}
		p.line("not asked", text)
	}
	if len(list) > 0 {
		p.gap()
	}
}

// A domainView counts the branches that other domains have in these databases.
type domainView struct {
	Domain   string `json:"domain"`
	Branches int    `json:"branches"`
}

// otherDomains are the domains besides the one that is looked after, sorted.
func otherDomains(list []troth.InDoubt, domain string) []domainView {
	number := make(map[string]int)
	for _, b := range list {
		if b.Ours && b.XID.GID.Domain() != domain {
			number[b.XID.GID.Domain()]++
		}
	}
	views := []domainView{}
	for _, d := range slices.Sorted(maps.Keys(number)) {
		views = append(views, domainView{d, number[d]})
	}
	return views
}

// domains tells whose the branches are that were not looked at. If nobody named a
// domain, they may well be what the person looks for.
func (p *page) domains(s settings, others []domainView) {
	for _, d := range others {
		text := fmt.Sprintf("%s of the domain %s", count(d.Branches, "branch", "branches"), d.Domain)
		if s.named == "" {
			text += ": run again with --domain " + d.Domain
		}
		p.title(text)
	}
}

// unasked reports whether there is something in doubt that nobody asked for,
// because no domain is configured.
func unasked(s settings, others []domainView) bool { return s.named == "" && len(others) > 0 }

// ofDomain returns the branches that are the domain's own: others are shown, and
// are others' business (R7).
func ofDomain(list []troth.InDoubt, domain string) []troth.InDoubt {
	var ours []troth.InDoubt
	for _, b := range list {
		if b.Ours && b.XID.GID.Domain() == domain {
			ours = append(ours, b)
		}
	}
	return ours
}
