package embedded

import (
	"context"
	"testing"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/storetest"
)

func mustOpen(tb testing.TB, dir string) *Store {
	tb.Helper()
	s, err := Open(context.Background(), dir, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func BenchmarkSaga(b *testing.B) {
	storetest.Bench(b, func(tb testing.TB) store.Store { return mustOpen(tb, tb.TempDir()+"/s") }, "")
}

func BenchmarkGet(b *testing.B) {
	storetest.BenchGet(b, func(tb testing.TB) store.Store { return mustOpen(tb, tb.TempDir()+"/s") })
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(tb testing.TB) store.Store { return mustOpen(tb, tb.TempDir()+"/s") })
}
