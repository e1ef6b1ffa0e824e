package crash

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/troth-tx/troth/internal/faultpoint"
)

const tellAll = "*:1:print"

// A scenario makes something happen that leads to points, in a world of its own,
// and returns the programs that ran with TROTH_FAULT=*:1:print.
type scenario struct {
	a, b, register string
	run            func(t *testing.T, w *world) []*process
}

// plain runs the program once.
func plain(args ...string) func(*testing.T, *world) []*process {
	return func(t *testing.T, w *world) []*process {
		t.Helper()
		p := w.start(t, tellAll, args...)
		p.wait(t)
		return []*process{p}
	}
}

// then runs the program twice.
func then(first, second func(*testing.T, *world) []*process) func(*testing.T, *world) []*process {
	return func(t *testing.T, w *world) []*process {
		t.Helper()
		return append(first(t, w), second(t, w)...)
	}
}

// killedAt kills the program at a point.
func killedAt(point string) func(*testing.T, *world) []*process {
	return func(t *testing.T, w *world) []*process {
		t.Helper()
		if !w.child(t, point+":1:kill") {
			t.Fatalf("the program does not come to %s", point)
		}
		return nil
	}
}

// frozenAt freezes the program at a point, does something, and lets it go on.
func frozenAt(point string, meanwhile func(*testing.T, *world) []*process, args ...string) func(*testing.T, *world) []*process {
	return func(t *testing.T, w *world) []*process {
		t.Helper()
		p := w.start(t, tellAll+","+point+":1:freeze", args...)
		if !p.frozen(t) {
			t.Fatalf("the program does not come to %s", point)
		}
		others := meanwhile(t, w)
		p.thaw(t)
		p.wait(t)
		return append(others, p)
	}
}

// restarted kills the server of the paying (0) or the receiving (1) database, and
// starts it again.
func restarted(which int) func(*testing.T, *world) []*process {
	return func(t *testing.T, w *world) []*process {
		t.Helper()
		victim := []database{w.a, w.b}[which].server
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := victim.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		return nil
	}
}

// aged sets the records and witnesses of both databases back by a day.
func aged(t *testing.T, w *world) []*process {
	t.Helper()
	for _, d := range []database{w.a, w.b} {
		for _, table := range []string{"troth_decision", "troth_witness"} {
			// A database that lacks the table has nothing to age.
			_, _ = d.db.ExecContext(t.Context(), "UPDATE "+table+" SET created_at = created_at - INTERVAL '1' DAY")
		}
	}
	return nil
}

var settle = plain("-settle", settleWithin.String())

// scenarios reach every point, by what its entry in the list says.
var scenarios = map[faultpoint.Reach]scenario{
	faultpoint.Commit:      {"postgres", "postgres", "home", plain()},
	faultpoint.Abort:       {"postgres", "mysql", "home", plain()}, // of the last one
	faultpoint.Deadline:    {"postgres", "postgres", "home", plain("-n", "1", "-work", "slow", "-timeout", "100ms")},
	faultpoint.OnePhase:    {"postgres", "mysql", "home", plain("-n", "2", "-work", "one")},
	faultpoint.ReadOnly:    {"postgres", "mysql", "home", plain("-n", "2", "-work", "read")},
	faultpoint.NoVote:      {"postgres", "mysql", "home", frozenAt("prepare.before", restarted(1))},
	faultpoint.LostVote:    {"postgres", "postgres", "home", frozenAt("prepare.before", restarted(1))},
	faultpoint.LostAnswer:  {"postgres", "mysql", "home", frozenAt("decide.before", restarted(0))},
	faultpoint.LostCommit:  {"postgres", "postgres", "home", frozenAt("commit.before", restarted(1))},
	faultpoint.LastAgent:   {"sqlite", "postgres", "home", plain()},
	faultpoint.Register:    {"postgres", "mysql", "sql", plain()},
	faultpoint.Recovery:    {"postgres", "mysql", "home", then(killedAt("decide.before"), settle)},
	faultpoint.Raced:       {"postgres", "postgres", "sql", frozenAt("decide.before", settle)},
	faultpoint.Ended:       {"postgres", "postgres", "home", then(killedAt("commit.answered"), then(aged, settle))},
	faultpoint.OldRecord:   {"postgres", "postgres", "home", then(killedAt("commit.answered"), then(aged, settle))},
	faultpoint.OldWitness:  {"postgres", "mysql", "home", then(killedAt("commit.answered"), then(aged, settle))},
	faultpoint.Held:        {"postgres", "mysql", "home", frozenAt("decide.before", settle)},
	faultpoint.HeldCommit:  {"postgres", "mysql", "home", frozenAt("commit.before", settle)},
	faultpoint.Upkeep:      {"postgres", "mysql", "home", settle},
	faultpoint.Forgetting:  {"postgres", "postgres", "home", plain("-keep", "-1s")},
	faultpoint.FileLog:     {"postgres", "mysql", "file", plain()},
	faultpoint.FileLogOpen: {"postgres", "postgres", "file", then(plain(), settle)},
	faultpoint.FileLogRoll: {"postgres", "postgres", "file", plain("-n", "500", "-segment", "65536", "-keep", "-1s")},
}

// TestEveryPointIsReached runs what each point's entry says must happen, and
// demands that the programs then come to that point: a point that nothing reaches
// tests nothing.
func TestEveryPointIsReached(t *testing.T) {
	wanted := make(map[faultpoint.Reach][]string)
	for _, p := range faultpoint.Points() {
		wanted[p.Reach] = append(wanted[p.Reach], p.Name)
	}
	for reach, points := range wanted {
		s, ok := scenarios[reach]
		if !ok {
			t.Errorf("no scenario makes %q happen, which leads to %v", reach, points)
			continue
		}
		t.Run(string(reach), func(t *testing.T) {
			w := newWorld(t, s.a, s.b, s.register)
			seen := make(map[string]bool)
			for _, p := range s.run(t, w) {
				for line := range strings.Lines(p.stderr.String()) {
					if name, ok := strings.CutPrefix(strings.TrimSpace(line), "faultpoint "); ok {
						seen[name] = true
					}
				}
			}
			for _, name := range points {
				if !seen[name] {
					t.Errorf("%s was not reached; reached: %v", name, slices.Sorted(maps.Keys(seen)))
				}
			}
		})
	}
}
