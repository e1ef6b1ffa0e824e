package main

import (
	"testing"
	"time"

	"github.com/troth-tx/troth/internal/mistake"
)

// Every mistake is planned, and nothing else.
func TestPlanIsComplete(t *testing.T) {
	t.Parallel()
	all := mistake.All()
	if len(all) < 25 {
		t.Errorf("only %d mistakes are seeded", len(all))
	}
	for _, m := range all {
		if len(lookers(m.Name)) == 0 {
			t.Errorf("nothing looks for the mistake %s", m.Name)
		}
	}
	if len(plan) != len(all) {
		t.Errorf("%d mistakes are planned, and there are %d", len(plan), len(all))
	}
}

// A detector that fails for a reason of its own has found nothing.
func TestFindings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"    sim_test.go:51: seed 912: R2: x is rolled back (replay: make sim SEED=912)": "R2: x is rolled back (replay: make sim SEED=912)",
		"    sim_test.go:56: seed 3500: two runs differ: 46 and 33 steps":                "",
		"panic: test timed out": "",
	} {
		w := &watch{finding: simFinding, ctx: t.Context(), matched: func() {}}
		if _, err := w.Write([]byte(text + "\n")); err != nil {
			t.Fatal(err)
		}
		if w.words != want {
			t.Errorf("%q: found %q, want %q", text, w.words, want)
		}
	}
}

// TestFiveMistakes is the self-test in small: `make selftest` makes them all.
func TestFiveMistakes(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the detectors")
	}
	b, err := newBench(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	for _, c := range []struct{ mistake, by string }{
		{"lost-decision-is-abort", "sim"},
		{"no-tombstone", "sim"},
		{"forget-unacknowledged", "sim"},
		{"log-drops-live-segment", "log"},
		{"home-over-abort", "scene"},
	} {
		t.Run(c.mistake, func(t *testing.T) {
			for _, d := range lookers(c.mistake) {
				if d.name != c.by {
					continue
				}
				f, err := b.run(t.Context(), d, c.mistake)
				if err != nil {
					t.Fatal(err)
				}
				if f.by == "" {
					t.Errorf("%s did not find it within %v", d.name, f.took)
				}
				t.Logf("found by %s %s in %v: %s", d.name, f.after, f.took.Round(time.Millisecond), f.words)
			}
		})
	}
}
