package embedded

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

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

// One row that cannot be read, of a newer version or damaged, is not driven. All others
// are.
func TestClaimPassesOverWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	ctx, dir, now := t.Context(), t.TempDir()+"/s", time.Now()
	s := mustOpen(t, dir)
	for _, gid := range []string{"a", "bad", "c"} {
		err := s.Create(ctx, &store.Transaction{GID: gid, Pattern: store.Message, State: store.Submitted, Created: now, Updated: now, Due: now})
		if err != nil {
			t.Fatal(err)
		}
	}
	raw, err := connect(filepath.Join(dir, fileName), writerPragmas, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	if _, err := raw.ExecContext(ctx, "UPDATE troth_transaction SET progress = x'ff' WHERE gid = 'bad'"); err != nil {
		t.Fatal(err)
	}
	claimed, err := s.Claim(ctx, now.Add(time.Second), time.Minute, 10)
	if err != nil || len(claimed) != 2 || claimed[0].GID == "bad" || claimed[1].GID == "bad" {
		t.Fatalf("claimed %v, %v", claimed, err)
	}
	claimed[0].State = store.Succeeded
	if err := s.Save(ctx, claimed[0], 0); err != nil {
		t.Errorf("save what was claimed beside it: %v", err)
	}
	if _, err := s.Get(ctx, "bad"); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("get what cannot be read: %v", err)
	}
}
