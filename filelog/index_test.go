package filelog

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/troth-tx/troth"
)

// sortedRecords against a plain sorted slice.
func TestSortedRecords(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s sortedRecords
		model := map[int]*record{}
		for step := range 6000 {
			n := rng.IntN(4000)
			if seed%2 == 0 && step < 3000 {
				n = step // in order, as most GIDs come
			}
			switch r := model[n]; {
			case r == nil:
				model[n] = &record{gid: gidNo(n), at: int64(rng.IntN(1000))}
				s.insert(model[n])
			case step >= 3000 || seed%2 == 1:
				delete(model, n)
				s.remove(r)
			}
			if step%200 != 0 {
				continue
			}
			after, until, limit := rng.IntN(4000), int64(rng.IntN(1000)), rng.IntN(700)
			var want []troth.GID
			for _, n := range sortedKeys(model) {
				if n > after && model[n].at <= until && len(want) < limit {
					want = append(want, gidNo(n))
				}
			}
			var got []troth.GID
			for _, r := range s.scan(gidNo(after), until, limit) {
				got = append(got, r.gid)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d, step %d: scan(%d, %d, %d) has %d records; want %d", seed, step, after, until, limit, len(got), len(want))
			}
		}
		for _, c := range s.chunks {
			if len(c.records) == 0 || len(c.records) > chunkSizeMax {
				t.Fatalf("a chunk has %d records", len(c.records))
			}
		}
	}
}

func sortedKeys(m map[int]*record) (out []int) {
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
