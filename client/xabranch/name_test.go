package xabranch

import (
	"strings"
	"testing"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/client"
)

func TestNames(t *testing.T) {
	t.Parallel()
	gid := client.NewGID()
	seen := make(map[troth.XID]string)
	for _, gid := range []string{gid, "order-1", "order-10", "", "'; DROP TABLE x; --", strings.Repeat("x", 128), "ÄÖÜ\x00"} {
		for _, branch := range []string{"01", "0101", "1", "01z", "123456789", "", "'"} {
			x := nameOf("xa", gid, branch)
			if before, ok := seen[x]; ok {
				t.Errorf("%q %q has the name of %q", gid, branch, before)
			}
			seen[x] = gid + " " + branch
			if back, err := troth.ParseXID(x.String()); err != nil || back != x {
				t.Errorf("%q %q becomes %s, which is no name: %v", gid, branch, x, err)
			}
		}
	}
	if got, want := nameOf("xa", gid, "01").String(), "troth:xa."+gid+":@01zzzzzz.1"; got != want {
		t.Errorf("name is %s, want %s", got, want)
	}
}
