package torture

import "testing"

// TestEveryProcessDrawsAnew: an epoch has several hundred processes, and none repeats
// what another drew.
func TestEveryProcessDrawsAnew(t *testing.T) {
	t.Parallel()
	f := &fleet{world: &world{}, plan: &epochPlan{Run: 1, Epoch: 1, Register: "home"}}
	first := make(map[uint64]int)
	for number := 1; number < 5000; number++ {
		seed := f.childConfig(&slot{}, number).Seed
		if other, ok := first[seed]; ok {
			t.Fatalf("processes %d and %d have the same seed", other, number)
		}
		first[seed] = number
	}
}
