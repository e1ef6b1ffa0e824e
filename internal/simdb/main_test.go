package simdb

import (
	"flag"
	"os"
	"testing"

	"github.com/troth-tx/troth/internal/dbtest"
)

// The differential tests draw their steps at random. In CI they draw the same ones
// each time, so that what turns red is a change: real servers answer them, on busy
// machines, and the runs so far do not rule out a difference in one of fifty.
// -rapid.seed and -rapid.checks, or a run without CI set, look further.
func TestMain(m *testing.M) {
	if os.Getenv("CI") != "" {
		if err := flag.Set("rapid.seed", "1"); err != nil {
			panic(err)
		}
	}
	dbtest.Main(m)
}
