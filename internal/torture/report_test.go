package torture

import (
	"errors"
	"io"
	"testing"
	"time"
)

// TestTooLittle: a run in which nothing was found counts only if it did enough.
func TestTooLittle(t *testing.T) {
	t.Parallel()
	o := Options{MinLoad: 200, LoadUnder: 0.3, MinCycles: 5}
	enough := epochSample{begun: 290, kills: 350, servers: 10, before: 210, under: 70}
	for name, c := range map[string]struct {
		change func(*epochSample)
		want   error
	}{
		"enough":                 {func(*epochSample) {}, nil},
		"idle before the faults": {func(s *epochSample) { s.before = 190 }, ErrTooLittle},
		"idle under faults":      {func(s *epochSample) { s.under = 60 }, ErrTooLittle},
		"few kills":              {func(s *epochSample) { s.begun = 289 }, ErrTooLittle},
		"killed while idle":      {func(s *epochSample) { s.kills, s.begun = 1000, 0 }, ErrTooLittle},
		"no kills of databases":  {func(s *epochSample) { s.servers = 0 }, ErrTooLittle},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sample := enough
			c.change(&sample)
			r := newReport(io.Discard)
			r.samples = []epochSample{sample}
			if err := r.enough(o, time.Minute); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
