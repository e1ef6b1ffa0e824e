package client

import (
	"strings"
	"testing"
)

func TestNewGIDs(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	last := ""
	for range 1000 {
		g := NewGID()
		if len(g) != 26 || strings.Trim(g, "0123456789abcdefghjkmnpqrstvwxyz") != "" || seen[g] {
			t.Fatalf("NewGID() = %q after %d others", g, len(seen))
		}
		if seen[g] = true; last != "" && g[:10] < last[:10] {
			t.Fatalf("%s comes after %s", g, last)
		}
		last = g
	}
}

func TestBranchIDs(t *testing.T) {
	t.Parallel()
	ids := branchIDs{parent: "01"}
	for i := range branchesMax {
		id, err := ids.next()
		if want := "01" + string([]byte{byte('0' + (i+1)/10), byte('0' + (i+1)%10)}); err != nil || id != want {
			t.Fatalf("branch %d is %q, %v", i+1, id, err)
		}
	}
	if id, err := ids.next(); err == nil {
		t.Fatalf("branch 100 is %q", id)
	}
	deep := branchIDs{parent: strings.Repeat("01", 10)}
	if id, err := deep.next(); err == nil {
		t.Fatalf("a branch of level 11 is %q", id)
	}
}
