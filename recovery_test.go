package troth

import (
	"errors"
	"fmt"
	"testing"
)

// An outage is complained of once, which takes a text that does not depend on which
// database was the first to fail.
func TestErrorsOfAPassReadTheSameInAnyOrder(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, errsMax, 3 * errsMax} {
		var forth, back pass
		for i := range n {
			forth.fail(fmt.Errorf("database %d is silent", i))
			back.fail(fmt.Errorf("database %d is silent", n-1-i))
		}
		forth.fail(errors.New("database 0 is silent")) // twice is once
		if got, want := back.err().Error(), forth.err().Error(); got != want {
			t.Errorf("%d errors read\n%s\nin one order, and in the other\n%s", n, got, want)
		}
	}
}
