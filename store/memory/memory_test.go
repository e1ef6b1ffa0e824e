package memory_test

import (
	"testing"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
	"github.com/troth-tx/troth/store/storetest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(testing.TB) store.Store { return memory.New() })
}

func BenchmarkSaga(b *testing.B) {
	storetest.Bench(b, func(testing.TB) store.Store { return memory.New() }, "")
}
