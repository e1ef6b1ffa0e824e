// Serverbench measures `troth serve` beside dtm: transactions a second, latency and
// processor time of messages, sagas and TCCs with two branches that do nothing, how
// long both take to recover from an outage of a participant, and what memory and time
// troth takes with many transactions in its store.
//
// It starts everything itself, on ports and in directories of its own, and removes it.
// dtm's program is given by its path; without it troth is measured alone:
//
//	make bench-server DTM=/path/to/dtm
//	go run ./internal/bench/serverbench -dtm /path/to/dtm -store default -clients 64
//
// docs/performance-server.md explains the figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// config is what the flags say.
type config struct {
	troth    string // empty: it is built
	dtm      string
	dtmSQL   string
	stores   []string
	patterns []string
	clients  []int
	rounds   int
	each     time.Duration
	parts    []string
	finished int
	open     int
	openMost int
}

// The parts of a run.
const (
	partRates  = "rates"
	partOutage = "outage"
	partMemory = "memory"
)

func (c config) wants(store string) bool {
	return slices.Contains(c.parts, partRates) && slices.Contains(c.stores, store)
}

func (c config) wantsPattern(name string) bool { return slices.Contains(c.patterns, name) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "serverbench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (c config, err error) {
	f := flag.NewFlagSet("serverbench", flag.ContinueOnError)
	f.StringVar(&c.troth, "troth", "", "troth's program (default: built from this module)")
	f.StringVar(&c.dtm, "dtm", os.Getenv("TROTH_DTM"), "dtm's program (default: $TROTH_DTM; without it troth is measured alone)")
	f.StringVar(&c.dtmSQL, "dtm-sql", "", "directory of dtm's SQL scripts (default: that of dtm v1.18.0 in the module cache)")
	f.IntVar(&c.rounds, "rounds", 5, "rounds; the median counts")
	f.DurationVar(&c.each, "each", time.Second, "how long each server's turn in a round takes")
	f.IntVar(&c.finished, "finished", 1_000_000, "finished transactions in the store, for the measure of memory")
	f.IntVar(&c.open, "open", 10_000, "open ones")
	f.IntVar(&c.openMost, "open-most", 100_000, "open ones, for the time of a start")
	lists := []struct {
		into  *[]string
		name  string
		all   []string
		usage string
	}{
		{&c.stores, "store", stores, "stores to compare on"},
		{&c.patterns, "pattern", []string{"message", "saga", "tcc"}, "patterns to compare"},
		{&c.parts, "part", []string{partRates, partOutage, partMemory}, "parts to run"},
	}
	texts := make([]string, len(lists))
	for i, l := range lists {
		f.StringVar(&texts[i], l.name, strings.Join(l.all, ","), l.usage)
	}
	clients := f.String("clients", "1,8,64", "numbers of clients")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	for i, l := range lists {
		*l.into = strings.Split(texts[i], ",")
		for _, each := range *l.into {
			if !slices.Contains(l.all, each) {
				return c, fmt.Errorf("-%s %q: want some of %s", l.name, each, strings.Join(l.all, ","))
			}
		}
	}
	for each := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(each)
		if err != nil || n < 1 {
			return c, fmt.Errorf("-clients %q: want numbers", each)
		}
		c.clients = append(c.clients, n)
	}
	return c, nil
}

func run(ctx context.Context, out io.Writer, args []string) (err error) {
	c, err := parse(args)
	if err != nil {
		return err
	}
	if c.dtm == "" {
		_, _ = fmt.Fprintln(out, "dtm's program is not given (-dtm, TROTH_DTM): troth is measured alone")
	} else if c.dtm, err = filepath.Abs(c.dtm); err != nil {
		return err
	}
	if c.dtm != "" && c.dtmSQL == "" {
		cache, err := exec.CommandContext(ctx, "go", "env", "GOMODCACHE").Output()
		if err != nil {
			return err
		}
		c.dtmSQL = filepath.Join(strings.TrimSpace(string(cache)), "github.com", "dtm-labs", "dtm@v1.18.0", "sqls")
	}
	w, err := newWorld(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for _, part := range []struct {
		name string
		run  func(context.Context, io.Writer, config) error
	}{{partRates, w.rates}, {partOutage, w.outages}, {partMemory, w.memory}} {
		if !slices.Contains(c.parts, part.name) {
			continue
		}
		if err := part.run(ctx, out, c); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

func (w *world) rates(ctx context.Context, out io.Writer, c config) error {
	_, _ = fmt.Fprintf(out, "Transactions of two branches, from their first request to the answer that they are over. cpu: microseconds of\nthe server's processor time per transaction; driver: of clients and participants. refused: transactions\nthat were answered with an error, which do not count. Median of %d interleaved rounds of %v.\n", c.rounds, c.each)
	for _, store := range c.stores {
		rows, err := w.compare(ctx, c, store)
		if err != nil {
			return err
		}
		if err := printRows(out, store, rows); err != nil {
			return err
		}
	}
	return nil
}
