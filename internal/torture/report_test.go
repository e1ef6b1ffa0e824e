package torture

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// TestTooLittle: a run in which nothing was found counts only if it did enough.
func TestTooLittle(t *testing.T) {
	t.Parallel()
	o := Options{MinLoad: 200, LoadUnder: 0.3, MinCycles: 5, MinServerKills: 2}
	enough := epochSample{begun: 290, kills: 350, servers: 10, before: 210, under: 70, faulted: 55 * time.Second}
	for name, c := range map[string]struct {
		change func(*epochSample)
		epochs int
		want   string // in the error; empty: none
	}{
		"enough":                   {func(*epochSample) {}, 4, ""},
		"idle before the faults":   {func(s *epochSample) { s.before = 190 }, 4, "before the faults"},
		"idle under faults":        {func(s *epochSample) { s.under = 60 }, 4, "before the faults"},
		"few kills":                {func(s *epochSample) { s.begun = 289 }, 4, "cycles a second"},
		"killed while idle":        {func(s *epochSample) { s.kills, s.begun = 1000, 0 }, 4, "cycles a second"},
		"few kills of databases":   {func(s *epochSample) { s.begun, s.servers = 1000, 1 }, 4, "kills of databases"},
		"no kills of databases":    {func(s *epochSample) { s.begun, s.servers = 1000, 0 }, 4, "kills of databases"},
		"none, which may be drawn": {func(s *epochSample) { s.begun, s.servers = 1000, 0 }, 3, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sample := enough
			c.change(&sample)
			r := newReport(io.Discard)
			for range c.epochs {
				r.samples = append(r.samples, sample)
			}
			err := r.enough(o, time.Duration(c.epochs)*time.Minute)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, ErrTooLittle) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrTooLittle about %q", err, c.want)
			}
		})
	}
}
