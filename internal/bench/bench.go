package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// Config says what to measure. Zero values are the defaults.
type Config struct {
	Profiles []Profile     // both
	Pairs    []string      // "PG+PG", "PG+MariaDB", "MariaDB+MariaDB"
	Workers  []int         // 1, 8, 32
	Ways     []string      // names of ways; empty: all. The two rivals always run.
	Rounds   int           // 5; the median counts
	Each     time.Duration // 1 second: one way's turn in a round
	JSON     bool
}

func (c Config) withDefaults() Config {
	if len(c.Profiles) == 0 {
		c.Profiles = []Profile{Loopback, Delayed}
	}
	if len(c.Pairs) == 0 {
		c.Pairs = []string{"PG+PG", "PG+MariaDB", "MariaDB+MariaDB"}
	}
	if len(c.Workers) == 0 {
		c.Workers = []int{1, 8, 32}
	}
	c.Rounds = cmp.Or(c.Rounds, 5)
	c.Each = cmp.Or(c.Each, time.Second)
	return c
}

var pairs = map[string][2]engine{
	"PG+PG":           {postgresEngine, postgresEngine},
	"PG+MariaDB":      {postgresEngine, mariadbEngine},
	"MariaDB+MariaDB": {mariadbEngine, mariadbEngine},
}

// Cell is one measured number.
type Cell struct {
	Profile    string  `json:"profile"`
	Pair       string  `json:"pair"`
	Way        string  `json:"way"`
	Workers    int     `json:"workers"`
	PerSecond  float64 `json:"per_second"`
	VsDual     float64 `json:"vs_dual_unsafe"`
	VsSeq      float64 `json:"vs_sequential_2pc"`
	RoundTrips float64 `json:"round_trips,omitempty"`   // per transaction, at one worker
	Syncs      float64 `json:"forced_writes,omitempty"` // per transaction, at one worker
}

// Run measures and prints. Rounds of all ways are interleaved, so that what else
// the machine does hits them alike.
func Run(ctx context.Context, out io.Writer, cfg Config) (cells []Cell, err error) {
	cfg = cfg.withDefaults()
	for _, p := range cfg.Profiles {
		more, err := runProfile(ctx, out, cfg, p)
		cells = append(cells, more...)
		if err != nil {
			return cells, err
		}
	}
	if cfg.JSON {
		return cells, json.NewEncoder(out).Encode(cells)
	}
	return cells, nil
}

func runProfile(ctx context.Context, out io.Writer, cfg Config, p Profile) (cells []Cell, err error) {
	w, err := newWorld(ctx, p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for _, name := range cfg.Pairs {
		pair, ok := pairs[name]
		if !ok {
			return cells, fmt.Errorf("no pair is called %q", name)
		}
		more, err := w.runPair(ctx, cfg, name, pair)
		cells = append(cells, more...)
		if err != nil {
			return cells, fmt.Errorf("%s, %s: %w", p.Name, name, err)
		}
		if !cfg.JSON {
			if err := printTable(out, p, name, cfg.Workers, more); err != nil {
				return cells, err
			}
		}
	}
	return cells, nil
}

func (w *world) runPair(ctx context.Context, cfg Config, name string, pair [2]engine) (cells []Cell, err error) {
	ways, err := w.ways(ctx, pair)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, y := range ways {
			err = errors.Join(err, y.close())
		}
	}()
	chosen := ways[:0:0]
	for _, y := range ways {
		if len(cfg.Ways) == 0 || y.name == "dual-unsafe" || y.name == "sequential-2pc" || slices.Contains(cfg.Ways, y.name) {
			chosen = append(chosen, y)
		}
	}
	counts := make([]Cell, len(chosen))
	for i, y := range chosen {
		if _, err := run(ctx, y, 8, cfg.Each/4); err != nil { // warm: connections, plans
			return nil, fmt.Errorf("%s: %w", y.name, err)
		}
		if counts[i], err = w.count(ctx, y); err != nil {
			return nil, fmt.Errorf("%s: %w", y.name, err)
		}
	}
	for _, workers := range cfg.Workers {
		rates := make([][]float64, len(chosen))
		for range cfg.Rounds {
			for i, y := range chosen {
				rate, err := run(ctx, y, workers, cfg.Each)
				if err != nil {
					return cells, fmt.Errorf("%s, %d workers: %w", y.name, workers, err)
				}
				rates[i] = append(rates[i], rate)
			}
		}
		for i, y := range chosen {
			c := counts[i]
			c.Profile, c.Pair, c.Way, c.Workers, c.PerSecond = w.profile.Name, name, y.name, workers, median(rates[i])
			c.VsDual = c.PerSecond / median(rates[0])
			c.VsSeq = c.PerSecond / median(rates[1])
			if y.name == "troth/plain" || y.name == "sequential-2pc/plain" {
				c.VsSeq = c.PerSecond / median(rates[2]) // the same driver
			}
			cells = append(cells, c)
		}
	}
	return cells, nil
}

// count counts, with nothing else going on, what a transaction costs.
func (w *world) count(ctx context.Context, y way) (Cell, error) {
	const n = 200
	time.Sleep(400 * time.Millisecond) // records of the warm-up are forgotten meanwhile
	trips, syncs := w.wire.trips.Load(), w.shim.syncs()
	for i := range n {
		if err := y.transfer(ctx, i, i+n, next.Add(1)); err != nil {
			return Cell{}, err
		}
	}
	return Cell{
		RoundTrips: float64(w.wire.trips.Load()-trips) / n,
		Syncs:      float64(w.shim.syncs()-syncs) / n,
	}, nil
}

var next atomic.Int64

// run lets workers transfer for a while and returns transactions a second.
func run(ctx context.Context, y way, workers int, d time.Duration) (float64, error) {
	var (
		done atomic.Int64
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	begun := time.Now()
	for range workers {
		wg.Go(func() {
			for time.Since(begun) < d && ctx.Err() == nil {
				if err := y.transfer(ctx, rand.IntN(accounts), rand.IntN(accounts), next.Add(1)); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		errs = append(errs, ctx.Err())
	}
	return float64(done.Load()) / time.Since(begun).Seconds(), errors.Join(errs...)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func printTable(out io.Writer, p Profile, pair string, workers []int, cells []Cell) error {
	_, _ = fmt.Fprintf(out, "\n%s, %s: transactions a second (x two plain commits, x sequential 2PC)\n", p.Name, pair)
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprint(t, "way")
	for _, n := range workers {
		_, _ = fmt.Fprintf(t, "\t%d worker(s)", n)
	}
	_, _ = fmt.Fprint(t, "\tround trips\tforced writes\n")
	per := len(cells) / len(workers)
	for i := range per {
		_, _ = fmt.Fprint(t, cells[i].Way)
		for k := range workers {
			c := cells[k*per+i]
			_, _ = fmt.Fprintf(t, "\t%5.0f (%.2f, %.2f)", c.PerSecond, c.VsDual, c.VsSeq)
		}
		_, _ = fmt.Fprintf(t, "\t%.1f\t%.2f\n", cells[i].RoundTrips, cells[i].Syncs)
	}
	return t.Flush()
}
