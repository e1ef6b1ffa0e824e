package main

import (
	"slices"
	"strings"
)

// A place is a part of the program that detectors look at.
type place []string // names of detectors, the cheapest first

// The places.
var (
	core    = place{"sim", "scene", "deep", "storm"} // protocol, driver, recovery, upkeep
	manager = place{"scene", "deep", "storm"}        // resource managers, decision table
	log     = place{"log"}
	server  = place{"services"} // the engine of the server
)

// plan says where each mistake is, and which scene of test/crash is about its
// rule, if one is.
var plan = map[string]struct {
	place place
	scene string
}{
	"unanswered-vote-is-yes":       {core, ""},
	"last-vote-unread":             {core, ""},
	"last-resource-first":          {core, ""},
	"commit-before-record":         {core, ""},
	"lost-decision-is-abort":       {core, ""},
	"lost-decision-is-commit":      {core, ""},
	"register-error-is-abort":      {core, ""},
	"failed-commit-rolls-back":     {core, ""},
	"context-cancels-decision":     {core, "caller who gives up"},
	"readers-told-early":           {core, ""},
	"forget-unacknowledged":        {core, ""},
	"returning-sole-does-not-vote": {core, ""},

	"no-tombstone":             {core, ""},
	"abort-error-is-abort":     {core, "home at its commit for a while"},
	"failed-lookup-is-abort":   {core, ""},
	"domain-prefix":            {core, "branches of others"},
	"foreign-identity":         {core, "branches of others"},
	"one-pass":                 {core, ""},
	"returned-home-left":       {core, ""},
	"forget-by-age":            {core, ""},
	"unreachable-is-gone":      {core, "old record, and a server is down"},
	"abort-record-short-lived": {core, ""},
	"forgotten-is-aborted":     {core, "asked after it was forgotten"},

	"no-answer-is-failure":    {server, ""},
	"call-before-save":        {server, ""},
	"calls-not-recorded":      {server, ""},
	"compensations-at-once":   {server, ""},
	"unanswered-is-undone":    {server, ""},
	"silence-is-rollback":     {server, ""},
	"stuck-is-given-up":       {server, ""},
	"submit-twice-is-success": {server, ""},
	"abort-after-submit":      {server, ""},
	"not-over-is-success":     {server, ""},
	"conflict-is-saved":       {server, ""},
	"lost-save-is-saved":      {server, ""},

	"statement-error-ignored": {manager, "failed statement ignored, MariaDB"},
	"savepoint-forgets-all":   {manager, "failed statement before a savepoint"},

	"prepare-tag-ignored":      {manager, "failed statement ignored, PostgreSQL"},
	"hidden-writer-is-reader":  {manager, "hidden writer on PostgreSQL"},
	"lost-commit-is-committed": {manager, "sole commit that never arrives"},
	"lost-commit-is-aborted":   {manager, "sole commit without an answer"},
	"in-progress-is-aborted":   {manager, "sole commit that takes long"},
	"heuristic-swallowed":      {manager, "ended by hand"},

	"unknown-xid-is-done":  {manager, "held by a session that nobody has"},
	"held-session-left":    {manager, "held by a frozen program"},
	"no-witness":           {manager, "restarted before the commit"},
	"lock-is-no-work":      {manager, "hidden writer on MariaDB"},
	"record-error-ignored": {manager, "zombie and a home on MariaDB"},

	"second-writer-wins":             {manager, "zombie and a shared register"},
	"home-over-abort":                {manager, "zombie and a home"},
	"last-resource-leaves-no-record": {manager, "killed when the last resource is in"},

	"log-answers-before-write": {log, ""},
	"log-not-synced":           {log, ""},
	"log-directory-not-synced": {log, ""},
	"log-sync-error-ignored":   {log, ""},
	"log-damage-is-torn":       {log, ""},
	"log-drops-live-segment":   {log, ""},
}

// lookers are the detectors that look for a mistake, in order.
func lookers(mistaken string) []detector {
	p := plan[mistaken]
	var all []detector
	for _, name := range p.place {
		d := detectors[slices.IndexFunc(detectors, func(d detector) bool { return d.name == name })]
		if name == "scene" {
			if p.scene == "" {
				continue
			}
			d.args = slices.Clone(d.args)
			d.args[0] = "-test.run=^TestScenes$/^" + strings.ReplaceAll(p.scene, " ", "_") + "$"
		}
		all = append(all, d)
	}
	return all
}
