package gosql2pc_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/troth-tx/troth/twophase"
	"github.com/troth-tx/troth/twophase/gosql2pc"
)

// A program that used gosql2pc under its own name.
func TestProgramWrittenForGosql2pc(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "a.db")+"?_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(twophase.Shutdown(context.Background(), db), db.Close()); err != nil {
			t.Error(err)
		}
	})
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE users (name TEXT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	add := gosql2pc.NewParticipant(db, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO users VALUES ('Constance')")
		return err
	})
	params := gosql2pc.Params{
		LogFn:        func(format string, args ...any) { t.Logf(format, args...) },
		Participants: []gosql2pc.Participant{add},
	}
	if err := gosql2pc.Do(t.Context(), params); err != nil {
		t.Fatal(err)
	}
	if err := gosql2pc.Do(t.Context(), params); err == nil || errors.Is(err, gosql2pc.ErrCommitFailed) {
		t.Errorf("the second time: %v", err)
	}
	if !errors.Is(gosql2pc.ErrCommitFailed, twophase.ErrCommitFailed) {
		t.Error("two different ErrCommitFailed")
	}
}
