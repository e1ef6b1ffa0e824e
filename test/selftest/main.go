// Command selftest tests the tests: it makes the mistakes of internal/mistake in
// the program, one after the other, and demands that what is to guard the rules
// finds each within its budget.
//
//	selftest [-only name,name] [-by name,name] [-all] [-control=false]
//
// First the detectors run without a mistake, and must find nothing. Then for each
// mistake the detectors that look at its part of the program run in the order of
// their cost, until one has found it; with -all, all of them:
//
//	sim    the simulation of schedules, with resource managers of its own
//	log    power cuts, failing writes and damage of the file log, exhaustively
//	scene  one schedule on real servers, chosen for the rule (test/crash)
//	deep   the simulation with the real resource managers, over simulated SQL servers
//	storm  random faults on real servers (cmd/torture)
//
// Tests of single functions are none of the detectors.
//
// Exit status: 0 each was found; 1 one was not, or a detector found something in
// the right program; 2 usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/troth-tx/troth/internal/mistake"
)

func main() {
	only := flag.String("only", "", "make these mistakes alone, separated by commas")
	by := flag.String("by", "", "use these detectors alone, separated by commas")
	all := flag.Bool("all", false, "do not stop at the first detector that finds a mistake")
	control := flag.Bool("control", true, "run the detectors without a mistake first")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := options{names: chosen(*only), all: *all, control: *control}
	if *by != "" {
		o.by = strings.Split(*by, ",")
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "selftest:", err)
		os.Exit(1)
	}
}

func chosen(only string) []string {
	if only != "" {
		return strings.Split(only, ",")
	}
	var all []string
	for _, m := range mistake.All() {
		all = append(all, m.Name)
	}
	return all
}

type options struct {
	names        []string
	by           []string // empty: all
	all, control bool
}

func run(ctx context.Context, o options) error {
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	b.by = o.by
	if o.control {
		if err := b.control(ctx, o.names); err != nil {
			return err
		}
	}
	fmt.Printf("\n%-32s %-10s %-6s %-12s %8s %8s  %s\n", "mistake", "rule", "by", "after", "took", "budget", "found")
	var missed []string
	stormy := false
	for _, name := range o.names {
		m, err := byName(name)
		if err != nil {
			return err
		}
		results, err := b.search(ctx, m.Name, o.all)
		if err != nil {
			return err
		}
		known := false
		stormy = stormy || slices.ContainsFunc(results, func(f found) bool { return f.by == storm })
		for _, f := range results {
			known = known || f.by != ""
			if o.all || f.by != "" {
				fmt.Println(row(m, f))
			}
		}
		if !known {
			fmt.Println(row(m, found{}))
			missed = append(missed, m.Name)
		}
	}
	if stormy && o.control {
		if err := b.requireSilence(ctx, detectors[len(detectors)-1]); err != nil {
			return err
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("%d of %d mistakes were not found: %s", len(missed), len(o.names), strings.Join(missed, ", "))
	}
	fmt.Printf("\nall %d mistakes were found\n", len(o.names))
	return nil
}

func byName(name string) (mistake.Mistake, error) {
	all := mistake.All()
	i := slices.IndexFunc(all, func(m mistake.Mistake) bool { return m.Name == name })
	if i < 0 {
		return mistake.Mistake{}, errors.New("no mistake is called " + name)
	}
	return all[i], nil
}

func row(m mistake.Mistake, f found) string {
	words := f.words
	switch {
	case f.detector == "":
		words = "NOT FOUND BY ANY"
	case f.by == "":
		words = "not found"
	}
	return fmt.Sprintf("%-32s %-10s %-6s %-12s %8s %8s  %.100s", m.Name, m.Rule, f.detector, f.after,
		f.took.Round(100*time.Millisecond), f.budget, words)
}
