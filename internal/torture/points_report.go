package torture

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
)

// A pointCell is what came of one action at one point.
type pointCell struct{ hits, failed int }

func (r *pointsRun) cell(point string, a pointAction) *pointCell {
	key := point + " " + string(a)
	if r.cells[key] == nil {
		r.cells[key] = &pointCell{}
	}
	return r.cells[key]
}

// finish notes what came of a cycle.
func (r *pointsRun) finish(c *cycle, err error) {
	r.mu.Lock()
	r.done++
	if r.done%500 == 0 {
		_, _ = fmt.Fprintf(r.opts.Out, "%d cycles in %v, %d failed\n", r.done, time.Since(r.cyclesBegun).Round(time.Second), r.failed)
	}
	r.lost += c.lost
	if err == nil {
		r.cell(c.point.Name, c.action).hits++
	}
	r.mu.Unlock()
	if err != nil {
		r.fail(c, err)
	}
}

func (r *pointsRun) fail(c *cycle, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
	r.cell(c.point.Name, c.action).failed++
	_, _ = fmt.Fprintf(r.opts.Out, "VIOLATION %s: %s\n  again: %s\n", c, strings.ReplaceAll(err.Error(), "\n", "\n  "), r.replay(c))
}

func (r *pointsRun) failures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// replay is the command that runs a cycle again.
func (r *pointsRun) replay(c *cycle) string {
	return fmt.Sprintf("go run -tags faultpoint ./cmd/torture points -only %s -actions %s -seed %d -first %d",
		c.point.Name, c.action, r.opts.Seed, c.round)
}

// table prints what came of every action at every point.
func (r *pointsRun) table() {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := tabwriter.NewWriter(r.opts.Out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprint(w, "point\treached by")
	for _, a := range pointActions {
		_, _ = fmt.Fprintf(w, "\t%s", a)
	}
	_, _ = fmt.Fprintln(w)
	for _, p := range faultpoint.Points() {
		line, any := p.Name+"\t"+string(p.Reach), false
		for _, a := range pointActions {
			cell := r.cell(p.Name, a)
			any = any || *cell != pointCell{}
			line += "\t" + cell.String()
		}
		if any {
			_, _ = fmt.Fprintln(w, line)
		}
	}
	_ = w.Flush()
	took := time.Since(r.cyclesBegun)
	_, _ = fmt.Fprintf(r.opts.Out, "%d cycles in %.1f s, %.1f a second; %d statements were carried out and their answers lost; %d failed\n",
		r.done, took.Seconds(), float64(r.done)/took.Seconds(), r.lost, r.failed)
}

func (c *pointCell) String() string {
	switch {
	case c.failed > 0:
		return fmt.Sprintf("%d FAILED", c.failed)
	case c.hits > 0:
		return fmt.Sprintf("%d ok", c.hits)
	}
	return "-"
}

func (r *pointsRun) verdict() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed > 0 {
		return fmt.Errorf("%w: %d of %d cycles failed", ErrViolation, r.failed, r.done)
	}
	return nil
}
