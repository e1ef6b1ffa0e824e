package troth

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// Every screen prints these sentences, so they are part of the interface.
func TestVerdict(t *testing.T) {
	t.Parallel()
	home := Place{Resource: "athos", Identity: "0123abcd"}
	ours := Evidence{Resource: "porthos", Ours: true, Place: home, Age: 90 * time.Second, Grace: 5 * time.Second}
	with := func(change func(*Evidence)) Evidence {
		e := ours
		change(&e)
		return e
	}
	for _, c := range []struct {
		name string
		e    Evidence
		want string
	}{
		{
			"committed", with(func(e *Evidence) { e.Decision = Committed }),
			"decision: commit, stored at athos; porthos voted yes and has waited for 1m30s; it will commit by itself; nothing to decide",
		},
		{
			"committed, age unknown", with(func(e *Evidence) { e.Decision, e.Age = Committed, 0 }),
			"decision: commit, stored at athos; porthos voted yes; it will commit by itself; nothing to decide",
		},
		{
			"aborted", with(func(e *Evidence) { e.Decision = Aborted }),
			"decision: abort, stored at athos; porthos voted yes and has waited for 1m30s; it will roll back by itself; nothing to decide",
		},
		{
			"abandoned", ours,
			"decision: none, and the program that ran it seems gone; porthos voted yes and has waited for 1m30s; recovery rolls it back by itself; nothing to decide",
		},
		{
			"within grace", with(func(e *Evidence) { e.Age = 2 * time.Second }),
			"decision: not made yet; porthos voted yes and has waited for 2s; if the program that runs it does not decide it within 3s, recovery rolls it back; nothing to do",
		},
		{
			"driven here", with(func(e *Evidence) { e.Driven = true }),
			"decision: not made yet; porthos voted yes and has waited for 1m30s; this process is deciding it now; nothing to do",
		},
		{
			"home down", with(func(e *Evidence) { e.PlaceErr = errors.New("refused") }),
			"decision: not known, because athos does not answer; porthos voted yes and has waited for 1m30s; it will end by itself when athos is back; decide nothing by hand",
		},
		{
			"home unknown", with(func(e *Evidence) { e.PlaceUnknown = true }),
			"decision: recorded at athos~0123abcd, which is not configured here; porthos voted yes and has waited for 1m30s; run recovery where that database is configured; decide nothing by hand",
		},
		{
			"register", with(func(e *Evidence) { e.Place, e.Decision = Place{Identity: "0123abcd"}, Committed }),
			"decision: commit, stored at the register 0123abcd; porthos voted yes and has waited for 1m30s; it will commit by itself; nothing to decide",
		},
		{
			"other domain", with(func(e *Evidence) { e.OtherDomain = "shop" }),
			`belongs to the domain "shop"; this process looks after another domain and leaves it alone`,
		},
		{
			"foreign",
			Evidence{Resource: "porthos", Age: 26 * time.Hour, Owner: "root"},
			"not troth's: prepared by another program as root for 26 hours; troth never touches it; ask its owner",
		},
	} {
		if got := c.e.Verdict(); got != c.want {
			t.Errorf("%s\n  got  %s\n  want %s", c.name, got, c.want)
		}
	}
	h := &HeuristicError{GID: "g", Decision: Committed, Branches: []HeuristicBranch{{Resource: "porthos", Ended: Aborted, Evidence: "pg_xact_status says aborted"}}}
	got := with(func(e *Evidence) { e.Heuristic, e.Decision = h, Committed }).Verdict()
	if !strings.Contains(got, "a person must repair the data") || !strings.Contains(got, "pg_xact_status says aborted") {
		t.Errorf("heuristic: %s", got)
	}
}
