package torture

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// TestSkipped: a fault that finds no manager to strike did not happen, and is counted.
func TestSkipped(t *testing.T) {
	t.Parallel()
	s := &slot{}
	s.hit.Lock() // another fault lasts
	var counted tally
	in := &injector{fleet: &fleet{plan: &epochPlan{Managers: 1}, slots: []*slot{s}}, tally: &counted}
	for n, kind := range []faultKind{faultKill, faultMine, faultFreeze} {
		in.carryOut(t.Context(), fault{Kind: kind})
		if got := counted.skipped.Load(); got != int64(n+1) {
			t.Errorf("%s: %d faults are counted as skipped, want %d", kind, got, n+1)
		}
	}
}

// TestDiedAtItsMine: only the death of a mined process that nobody killed is its mine's.
func TestDiedAtItsMine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		program string
		mine    string
		strike  bool
		want    int
	}{
		"at its mine":          {"kill -9 $$", "p:1:kill", false, 1},
		"before it came there": {"read x", "p:1:kill", true, 0},
		"without a mine":       {"kill -9 $$", "", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, err := os.Create(filepath.Join(t.TempDir(), "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = log.Close() }()
			f := &fleet{
				world: &world{}, plan: &epochPlan{Register: "home"}, started: new(atomic.Int64),
				command: []string{"sh", "-c", "read config; " + c.program},
			}
			s := &slot{log: log, mine: c.mine}
			p, err := f.startIn(s)
			if err != nil {
				t.Fatal(err)
			}
			if c.strike {
				s.kill("")
			}
			<-p.ended
			if _, _, err := s.noteEnd(p); err != nil {
				t.Fatal(err)
			}
			if s.fired != c.want || len(s.killed) != 1 {
				t.Errorf("%d of %d deaths are said to be a mine's, want %d of 1", s.fired, len(s.killed), c.want)
			}
		})
	}
}
