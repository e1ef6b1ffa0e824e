package torture

import (
	"testing"
	"time"
)

// TestDatabasesAreKilled: four epochs have twice the kills of databases that they need
// to count by default, half a kill a minute: some find their database down already.
func TestDatabasesAreKilled(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		kills := 0
		for epoch := range epochsMin {
			e := &epochPlan{Run: seed, Epoch: epoch, Register: "home", Databases: allDatabases, Managers: managers, Spared: 1, Length: time.Minute}
			e.drawFaults(true)
			for _, f := range e.Faults {
				if f.Kind == faultServer {
					kills++
				}
			}
		}
		if kills < epochsMin {
			t.Errorf("seed %d: %d kills of databases in %d epochs", seed, kills, epochsMin)
		}
	}
}
