package torture

import (
	"testing"
	"time"
)

// TestWhoMayRecover: with a register of each manager, a branch counts as in doubt while
// its own manager is up; one that a database decides, while any is.
func TestWhoMayRecover(t *testing.T) {
	t.Parallel()
	const age = time.Hour
	for name, c := range map[string]struct {
		shared  bool
		managed []bool // cluster 0 is the branch's
		want    bool
	}{
		"its manager is up":         {false, []bool{true, false}, true},
		"another is up":             {false, []bool{false, true}, false},
		"none is up":                {false, []bool{false, false}, false},
		"shared, its manager is up": {true, []bool{true, false}, true},
		"shared, another is up":     {true, []bool{false, true}, true},
		"shared, none is up":        {true, []bool{false, false}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &database{name: "pg1"}
			var found int
			h := newHealth(&world{databases: []*database{d}},
				func(string) (int, bool) { return 0, true },
				func(string, ...any) { found++ })
			h.note(c.managed)
			later := time.Now().Add(age)
			h.judgeAge(d, preparedBranch{native: "b", gid: "g", shared: c.shared}, age, later)
			if (found == 1) != c.want {
				t.Errorf("found %d branches in doubt for too long, want one: %v", found, c.want)
			}
		})
	}
}
