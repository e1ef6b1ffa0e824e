package troth

import (
	"sort"
	"strings"
	"testing"
	"time"
)

var testTime = time.Date(2026, 2, 3, 4, 5, 6, 789_000_000, time.UTC)

func TestGID(t *testing.T) {
	t.Parallel()
	g := NewGID("bank", testTime)
	if got := g.Time(); !got.Equal(testTime) {
		t.Errorf("time %v, want %v", got, testTime)
	}
	if g.Domain() != "bank" {
		t.Errorf("domain %q", g.Domain())
	}
	if back, err := ParseGID(string(g)); err != nil || back != g {
		t.Errorf("parse: %v, %v", back, err)
	}
}

// What is no id has no time; it must not be mistaken for an old one, nor panic.
func TestTimeOfNoID(t *testing.T) {
	t.Parallel()
	good := string(NewGID("bank", testTime))
	for _, g := range []GID{"", "bank", "bank.", "bank.0", GID(good + "0"), GID(strings.ToUpper(good))} {
		if got := g.Time(); !got.IsZero() {
			t.Errorf("%q began at %v", g, got)
		}
	}
}

// Ids sort by time, so that a register can page and expire by them.
func TestGIDsSortByTime(t *testing.T) {
	t.Parallel()
	var gids []string
	for i := range 2000 {
		gids = append(gids, string(NewGID("d", testTime.Add(time.Duration(i)*time.Millisecond))))
	}
	if !sort.StringsAreSorted(gids) {
		t.Error("later ids do not sort after earlier ones")
	}
}

func TestGIDsDiffer(t *testing.T) {
	t.Parallel()
	seen := make(map[GID]bool)
	for range 100_000 {
		g := NewGID("d", testTime)
		if seen[g] {
			t.Fatalf("%s was made twice", g)
		}
		seen[g] = true
	}
}

func TestParseGIDRefuses(t *testing.T) {
	t.Parallel()
	good := string(NewGID("bank", testTime))
	for _, s := range []string{
		"", ".", "bank", "bank.", "." + good, good + "0", good[:len(good)-1],
		strings.ToUpper(good), "Bank" + good[4:], "bänk" + good[4:], "bank'" + good[4:],
		"bank.8" + good[6:], // more than 128 bits
		"bank." + strings.Repeat("u", idSize),
		strings.Repeat("a", nameSizeMax+1) + good[4:],
	} {
		if _, err := ParseGID(s); err == nil {
			t.Errorf("ParseGID(%q) took it", s)
		}
	}
}

func TestXIDLimits(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("z", nameSizeMax)
	x := XID{GID: NewGID(longest, testTime), Place: Place{Resource: longest, Identity: NewIdentity()}, Branch: branchNoMax, Session: strings.Repeat("9", sessionSizeMax)}
	if n := len(x.GTRID()); n > gtridSizeMax {
		t.Errorf("gtrid has %d bytes", n)
	}
	if n := len(x.BQUAL()); n > bqualSizeMax {
		t.Errorf("bqual has %d bytes", n)
	}
	if n := len(x.String()); n > 118 {
		t.Errorf("the name has %d bytes, more than documented", n)
	}
	if back, err := ParseXID(x.String()); err != nil || back != x {
		t.Errorf("parse: %+v, %v", back, err)
	}
}

// R7: names that merely look like ours are not ours.
func TestParseXIDRefuses(t *testing.T) {
	t.Parallel()
	x := XID{GID: NewGID("bank", testTime), Place: Place{Resource: "athos", Identity: "0123abcd"}, Branch: 1}
	good := x.String()
	for _, s := range []string{
		"", "troth:", good + " ", " " + good, good + ":1", strings.Replace(good, "troth:", "Troth:", 1),
		x.GTRID(), // no prefix
		"troth:" + x.GTRID() + ":athos~0123abcd.01", // not as we write it
		"troth:" + x.GTRID() + ":athos~0123abcd.0",
		"troth:" + x.GTRID() + ":athos~0123abcd.+1",
		"troth:" + x.GTRID() + ":athos~0123abcd.1000",
		"troth:" + x.GTRID() + ":athos~0123abcd.1.",
		"troth:" + x.GTRID() + ":athos~0123abcd.1.A",
		"troth:" + x.GTRID() + ":athos~0123abcd.1.7.7",
		"troth:" + x.GTRID() + ":athos~0123abcd.1." + strings.Repeat("7", sessionSizeMax+1),
		"troth:" + x.GTRID() + ":athos.1",
		"troth:" + x.GTRID() + ":@.1",
		"troth:" + x.GTRID() + ":athos~0123abc.1",
		"troth:" + x.GTRID() + ":Athos~0123abcd.1", // no resource can be called that
		"troth:" + x.GTRID() + ":~0123abcd.1",
	} {
		if got, err := ParseXID(s); err == nil {
			t.Errorf("ParseXID(%q) took it for %v", s, got)
		}
	}
	if _, err := ParseXA(FormatID+1, x.GTRID(), x.BQUAL()); err == nil {
		t.Error("another format id was taken for ours")
	}
}

func TestValidName(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"a": true, "0": true, "athos": true, "a-b_c9": true, strings.Repeat("x", 24): true,
		"": false, "_a": false, "-a": false, "A": false, "a.b": false, "a b": false, "ä": false, "a'": false,
		strings.Repeat("x", 25): false, "a\x00": false,
	} {
		if ValidName(s) != want {
			t.Errorf("ValidName(%q) = %v", s, !want)
		}
	}
}
