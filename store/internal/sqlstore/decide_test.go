package sqlstore

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/troth-tx/troth/store"
)

// Of what comes in one batch the first counts, and each transaction is written once, as
// the last one wants it and with the parts of all.
func TestDecide(t *testing.T) {
	t.Parallel()
	create := func(gid string) *op {
		return &op{columns: columns{gid: gid, definition: []byte("new " + gid)}, create: true}
	}
	save := func(gid string, version int64, reason, more string) *op {
		return &op{columns: columns{gid: gid, reason: reason, more: []byte(more)}, version: version}
	}
	ops := []*op{
		create("new"),
		create("new"),
		create("old"),
		save("old", 5, "first", "a"),
		save("old", 5, "second", "b"),
		save("old", 6, "third", "c"),
		save("gone", 1, "", ""),
		save("new", 1, "after", "d"),
		save("other", 1, "", ""),
	}
	seq := int64(100)
	b := decide(ops, map[string]place{"old": {seq: 7, version: 5}, "other": {seq: 8, version: 1}}, func() int64 { seq++; return seq - 1 })
	want := []error{nil, store.ErrExists, store.ErrExists, nil, store.ErrConflict, nil, store.ErrNotFound, nil, nil}
	for i, err := range b.errs {
		if !errors.Is(err, want[i]) {
			t.Errorf("op %d = %v, want %v", i, err, want[i])
		}
	}
	if want := []int64{1, 0, 0, 6, 0, 7, 0, 2, 2}; !slices.Equal(b.after, want) {
		t.Errorf("the versions are %d, want %d", b.after, want)
	}
	if seq != 101 || len(b.rows) != 3 {
		t.Fatalf("%d places and %d rows for one new and two old transactions", seq-100, len(b.rows))
	}
	fresh, old, other := b.rows[0], b.rows[1], b.rows[2]
	if !fresh.insert || fresh.seq != 100 || fresh.version != 2 || fresh.reason != "after" || string(fresh.definition) != "new new" {
		t.Errorf("the new one is %+v", fresh)
	}
	if old.insert || old.seq != 7 || old.version != 7 || old.reason != "third" {
		t.Errorf("the old one is %+v", old)
	}
	if other.insert || other.seq != 8 || other.version != 2 || len(other.parts) != 0 {
		t.Errorf("the other is %+v", other)
	}
	var parts strings.Builder
	for i, p := range old.parts {
		parts.Write(p.content)
		if i > 0 && p.number <= old.parts[i-1].number || p.seq != 7 {
			t.Errorf("part %d is %d of %d", i, p.number, p.seq)
		}
	}
	if parts.String() != "ac" {
		t.Errorf("the parts of the old one are %q, want those of who was first", parts.String())
	}
}

func TestPiecesAndChunks(t *testing.T) {
	t.Parallel()
	sizes := make([]int, 150)
	for i := range sizes {
		sizes[i] = 1000
	}
	sizes[100], sizes[149] = 2*statementMax, statementMax
	var lengths []int
	at := 0
	err := chunks(len(sizes), 64, func(i int) int { return sizes[i] }, func(from, to int) error {
		if from != at {
			t.Errorf("a piece begins at %d after %d", from, at)
		}
		at = to
		lengths = append(lengths, to-from)
		return nil
	})
	if want := []int{64, 32, 4, 1, 48, 1}; err != nil || at != len(sizes) || !slices.Equal(lengths, want) {
		t.Errorf("chunks = %d, %v, want %d", lengths, err, want)
	}
	failure := errors.New("no")
	if err := chunks(10, 4, func(int) int { return 1 }, func(int, int) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("chunks = %v, want the error of a piece", err)
	}
}

func TestForPeople(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                "",
		"short":           "short",
		"123456789":       "12345678",
		"1234567ü":        "1234567",
		"12345678ü":       "12345678",
		"a\x00b":          "a�b",
		"\xff":            "�",
		"12345\U0001F986": "12345",
	} {
		if got := forPeople(text, 8); got != want || !utf8.ValidString(got) {
			t.Errorf("forPeople(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestKnownForgetsTheOldest(t *testing.T) {
	t.Parallel()
	k := newKnown()
	name := func(i int) string { return string(rune('a'+i%26)) + strings.Repeat("x", i/26%100) + string(rune(i)) }
	for i := range 3 * knownMax {
		k.put(name(i), place{seq: int64(i), version: 1})
		if n := len(k.young) + len(k.old); n > 2*knownMax {
			t.Fatalf("it remembers %d", n)
		}
	}
	if at, ok := k.get(name(3*knownMax - 1)); !ok || at.seq != 3*knownMax-1 {
		t.Errorf("the youngest is %v, %v", at, ok)
	}
	if _, ok := k.get(name(0)); ok {
		t.Error("the oldest is still there")
	}
	k.remove(name(3*knownMax - 1))
	if _, ok := k.get(name(3*knownMax - 1)); ok {
		t.Error("what was removed is still there")
	}
	var none *known
	none.put("a", place{})
	none.remove("a")
	none.clear()
	if _, ok := none.get("a"); ok {
		t.Error("nobody remembers something")
	}
}
