package troth

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// The alphabets that DESIGN.md promises: nothing in them ends an SQL literal.
const (
	gidAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789._-"
	xidAlphabet = gidAlphabet + "~@:"
)

func outside(s, alphabet string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(alphabet, r) })
}

// checkXID fails unless an XID that was taken for ours keeps every promise.
func checkXID(t *testing.T, x XID) {
	t.Helper()
	name := x.String()
	if len(x.GTRID()) > gtridSizeMax || len(x.BQUAL()) > bqualSizeMax || len(name) > 118 {
		t.Errorf("%q is too long: %d, %d, %d bytes", name, len(x.GTRID()), len(x.BQUAL()), len(name))
	}
	if outside(x.GTRID(), gidAlphabet) || outside(name, xidAlphabet) {
		t.Errorf("%q holds what may end a literal", name)
	}
	if back, err := ParseXA(FormatID, x.GTRID(), x.BQUAL()); err != nil || back != x {
		t.Errorf("XA form of %q: %+v, %v", name, back, err)
	}
	if back, err := ParseXID(name); err != nil || back != x {
		t.Errorf("%q is read as %+v, %v", name, back, err)
	}
	if !ValidName(x.GID.Domain()) || x.GID.Time().IsZero() || x.Branch < 1 || x.Branch > branchNoMax {
		t.Errorf("%q has a bad domain, time or branch number", name)
	}
	if p := x.Place; !ValidIdentity(p.Identity) || p.Resource != "" && !ValidName(p.Resource) {
		t.Errorf("%q has the bad place %+v", name, p)
	}
}

// FuzzXID: what a name says is exactly what it was made from, and nothing that is
// not ours is taken for ours.
func FuzzXID(f *testing.F) {
	x := XID{GID: NewGID("bank", testTime), Place: Place{Resource: "athos", Identity: "0123abcd"}, Branch: 2}
	f.Add(x.String())
	x.Place.Resource, x.Session = "", "17-3k"
	f.Add(x.String())
	f.Add("troth:bank.:@.1")
	f.Add("troth:bank.01J9'; drop table account; --:athos~0123abcd.1")
	f.Fuzz(func(t *testing.T, s string) {
		x, err := ParseXID(s)
		if err != nil {
			return
		}
		if x.String() != s {
			t.Errorf("%q was read as %q", s, x.String())
		}
		checkXID(t, x)
	})
}

// FuzzXA: the three parts of another program's identifier are refused, whatever
// they are, unless they are what we write; and no other format id is ours.
func FuzzXA(f *testing.F) {
	gid := string(NewGID("bank", testTime))
	f.Add(FormatID, gid, "athos~0123abcd.1")
	f.Add(FormatID, gid, "@0123abcd.999.1p-t3b0x2")
	f.Add(FormatID+1, gid, "athos~0123abcd.1")
	f.Add(FormatID, gid, "athos~0123abcd.1."+strings.Repeat("7", sessionSizeMax+1))
	f.Fuzz(func(t *testing.T, format uint32, gtrid, bqual string) {
		x, err := ParseXA(format, gtrid, bqual)
		if err != nil {
			return
		}
		if format != FormatID || x.GTRID() != gtrid || x.BQUAL() != bqual {
			t.Errorf("%d, %q, %q was read as %+v", format, gtrid, bqual, x)
		}
		checkXID(t, x)
	})
}

// FuzzXIDParts: an XID is read back from its name if its parts are valid, and
// refused if one is not: no two XIDs have one name.
func FuzzXIDParts(f *testing.F) {
	id := newID(testTime, [idRandomSize]byte{})
	f.Add("bank", id, "athos", "0123abcd", 1, "")
	f.Add("bank", id, "", "0123abcd", branchNoMax, "1p-t3b0x2")
	f.Add("bank", id, "athos~0123abcd.1", "0123abcd", 1, "")
	f.Add("bank.x", id, "athos", "0123abcd", 0, "A")
	f.Fuzz(func(t *testing.T, domain, id, resource, identity string, branch int, session string) {
		valid := ValidName(domain) && validID(id) && (resource == "" || ValidName(resource)) &&
			ValidIdentity(identity) && branch >= 1 && branch <= branchNoMax && validSession(session)
		x := XID{GID: GID(domain + "." + id), Place: Place{Resource: resource, Identity: identity}, Branch: branch, Session: session}
		back, err := ParseXID(x.String())
		switch {
		case valid && (err != nil || back != x):
			t.Errorf("%+v came back as %+v, %v", x, back, err)
		case !valid && err == nil && back == x:
			t.Errorf("%+v is not valid and came back", x)
		case valid:
			checkXID(t, x)
		}
	})
}

// FuzzGID: an id tells its time, sorts by it, and keeps its random bits.
func FuzzGID(f *testing.F) {
	f.Add("bank", int64(0), []byte("0123456789"), int64(1))
	f.Add("0", int64(1)<<48-1, []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255}, int64(0))
	f.Fuzz(func(t *testing.T, domain string, ms int64, random []byte, other int64) {
		if !ValidName(domain) || len(random) < idRandomSize || min(ms, other) < 0 || max(ms, other) >= 1<<48 {
			return
		}
		g := newGID(domain, time.UnixMilli(ms), [idRandomSize]byte(random))
		if back, err := ParseGID(string(g)); err != nil || back != g {
			t.Fatalf("%q is read as %q, %v", g, back, err)
		}
		if g.Domain() != domain || g.Time().UnixMilli() != ms {
			t.Errorf("%q: domain %q, time %d; want %q, %d", g, g.Domain(), g.Time().UnixMilli(), domain, ms)
		}
		if h := newGID(domain, time.UnixMilli(other), [idRandomSize]byte(random)); (g < h) != (ms < other) {
			t.Errorf("%q of %d and %q of %d do not sort by time", g, ms, h, other)
		}
		random[idRandomSize-1] ^= 1
		if h := newGID(domain, time.UnixMilli(ms), [idRandomSize]byte(random)); h == g {
			t.Errorf("%q does not keep its last random bit", g)
		}
	})
}

// FuzzBranches: what ParseBranches accepts is written again as a text that says
// the same, and holds nothing that could end a literal.
func FuzzBranches(f *testing.F) {
	f.Add("athos.1=731 porthos.2=")
	f.Add("athos.1")
	f.Add("athos.007=x athos.+7=")
	f.Fuzz(func(t *testing.T, s string) {
		branches, err := ParseBranches(s)
		if err != nil {
			return
		}
		text := EncodeBranches(branches)
		if back, err := ParseBranches(text); err != nil || !reflect.DeepEqual(back, branches) {
			t.Errorf("%q was read as %+v, and that, as %q, as %+v, %v", s, branches, text, back, err)
		}
		if len(text) > len(s) || outside(strings.ToLower(text), gidAlphabet+"= ") {
			t.Errorf("%q was written as %q", s, text)
		}
	})
}

// FuzzBranchRecords: a record's branches are read back as they were, or refused:
// no resource and no evidence passes for something else.
func FuzzBranchRecords(f *testing.F) {
	f.Add("athos", 1, "731-4f", "porthos", 2, "")
	f.Add("athos", 1, "7 porthos.3=", "porthos", -2, "é")
	f.Fuzz(func(t *testing.T, r1 string, n1 int, e1, r2 string, n2 int, e2 string) {
		want := []BranchRecord{{r1, n1, e1}, {r2, n2, e2}}
		valid := true
		for _, b := range want {
			valid = valid && ValidName(b.Resource) && b.Branch >= 1 && b.Branch <= branchNoMax && validEvidence(b.Evidence)
		}
		got, err := ParseBranches(EncodeBranches(want))
		if same := err == nil && reflect.DeepEqual(got, want); same != valid {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
	})
}
