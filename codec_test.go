package troth

import (
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"
)

// An id is a UUID version 7 (RFC 9562), bit by bit.
func TestIDIsAUUID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		now    time.Time
		random string // 10 bytes
		uuid   string
	}{
		{time.UnixMilli(0), "00000000000000000000", "00000000000070008000000000000000"},
		{time.UnixMilli(1<<48 - 1), "ffffffffffffffffffff", "ffffffffffff7fffbfffffffffffffff"},
		{testTime, "0123456789abcdef0123", "019c21acec657123856789abcdef0123"},
	} {
		b, err := hex.DecodeString(c.random)
		if err != nil {
			t.Fatal(err)
		}
		id := newID(c.now, [idRandomSize]byte(b))
		n := new(big.Int) // the id as a number, in Crockford's base32
		for i := range len(id) {
			n.Lsh(n, 5).Add(n, big.NewInt(int64(strings.IndexByte("0123456789abcdefghjkmnpqrstvwxyz", id[i]))))
		}
		if got := hex.EncodeToString(n.FillBytes(make([]byte, 17))); got != "00"+c.uuid {
			t.Errorf("%v: %s is %s, want %s", c.now, id, got[2:], c.uuid)
		}
	}
}

func TestIdentitiesAreValidAndDiffer(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	var letters strings.Builder
	for range 1000 {
		id := NewIdentity()
		if !ValidIdentity(id) || seen[id] {
			t.Fatalf("identity %q, seen before: %v", id, seen[id])
		}
		seen[id] = true
		letters.WriteString(id)
	}
	for _, c := range crockford {
		if !strings.ContainsRune(letters.String(), c) {
			t.Errorf("%c never occurs", c)
		}
	}
	for _, bad := range []string{"", "0123abc", "0123abcde", "0123abcu", "0123ABCD"} {
		if ValidIdentity(bad) {
			t.Errorf("%q is an identity", bad)
		}
	}
}

// The edges of every alphabet, and what stands beside them in ASCII.
func TestAlphabets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what   string
		valid  func(string) bool
		within string
		beside string
	}{
		{"name", func(s string) bool { return ValidName("x" + s) }, "az09_-", "`{/:^.,A@"},
		{"first of a name", ValidName, "az09", "`{/:_-A"},
		{"session", validSession, "az09-", "`{/:_.,A"},
		{"evidence", validEvidence, "azAZ09_-", "`{@[/:^.,= "},
	} {
		for _, b := range []byte(c.within) {
			if !c.valid(string(b)) {
				t.Errorf("%s: %q is refused", c.what, b)
			}
		}
		for _, b := range []byte(c.beside + "\x00\x7f\x80") {
			if c.valid(string([]byte{b})) {
				t.Errorf("%s: %q is accepted", c.what, b)
			}
		}
	}
}

func TestBranchRecordLimits(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 40)
	for text, ok := range map[string]bool{
		"":                  true,
		"a.1=":              true,
		"a.999=" + long:     true,
		"a.0=":              false,
		"a.-1=":             false,
		"a.1000=":           false,
		"a.1=" + long + "x": false,
		"a.1":               false,
		"a1=":               false,
		"A.1=":              false,
		"a.1=;":             false,
		"a.1= ":             false,
		" a.1=":             false,
		"a.1=  b.2=":        false,
		strings.Repeat("a.1= ", branchesSizeMax/5) + "a.1":                                               false, // no more than text
		strings.Repeat("a.1= ", branchesSizeMax/5-1) + "a.1=" + strings.Repeat("x", branchesSizeMax%5+1): true,
		strings.Repeat("a.1= ", branchesSizeMax/5-1) + "a.1=" + strings.Repeat("x", branchesSizeMax%5+2): false,
	} {
		got, err := ParseBranches(text)
		if (err == nil) != ok {
			t.Errorf("%d bytes, %s: %v", len(text), clip(text), err)
		}
		if err == nil && EncodeBranches(got) != text {
			t.Errorf("%q came back as %q", text, EncodeBranches(got))
		}
	}
	if got, err := ParseBranches(""); got != nil || err != nil || EncodeBranches(nil) != "" {
		t.Errorf("no branches: %v, %v, %q", got, err, EncodeBranches(nil))
	}
}

// What came from outside goes into an error, but not all of it.
func TestErrorsClip(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{80: strings.Repeat("A", 80), 81: strings.Repeat("A", 77) + "..."} {
		_, err := ParseGID(strings.Repeat("A", n))
		if err == nil || !strings.Contains(err.Error(), `"`+want+`"`) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestOutcomesInWords(t *testing.T) {
	t.Parallel()
	for o, want := range map[Outcome][3]string{
		Undecided: {"undecided", "none", "end"},
		Committed: {"committed", "commit", "commit"},
		Aborted:   {"aborted", "abort", "rollback"},
		7:         {"outcome(7)", "none", "end"},
	} {
		if got := [3]string{o.String(), o.word(), o.verb()}; got != want {
			t.Errorf("%d: %q, want %q", o, got, want)
		}
	}
	if got := txState(99).String(); got != "state(99)" {
		t.Errorf("an unknown state is %q", got)
	}
}
