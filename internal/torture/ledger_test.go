package torture

import (
	"path/filepath"
	"testing"

	"github.com/troth-tx/troth/internal/history"
)

// TestMidway: a process that was told that nobody knows, and died afterwards, had
// nothing under way; its transaction is to be asked for all the same.
func TestMidway(t *testing.T) {
	t.Parallel()
	const idle, unsure, busy, fresh = 1, 2, 3, 4 // processes
	l, err := newLedger(&fleet{}, filepath.Join(t.TempDir(), "polls.jsonl"), t.Errorf)
	if err != nil {
		t.Fatal(err)
	}
	for number, end := range map[int]history.Phase{idle: history.OK, unsure: history.Unknown, busy: ""} {
		e := history.Event{Process: processNumber(number, 0), Op: 1, GID: string(rune('a' + number)), Kind: history.Transfer, Phase: history.Invoke}
		l.note(e)
		if e.Phase = end; end != "" {
			l.note(e)
		}
	}
	if begun, underway := l.midway([]int{idle, unsure, busy, fresh}); begun != 3 || underway != 1 {
		t.Errorf("of the dead, %d had begun a transaction and %d had one under way, want 3 and 1", begun, underway)
	}
	if n := len(l.unanswered()); n != 2 {
		t.Errorf("%d transactions are to be asked for, want 2", n)
	}
}
