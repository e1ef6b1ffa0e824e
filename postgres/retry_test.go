package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/postgres"
)

// A program returns the driver's error as it is. The transaction's error must still
// say whether a retry helps, and which database it was.
func TestReturnedErrorIsSafeToRetry(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			db, err := sql.Open(driver, dbtest.SharedPostgres(t, 0).NewDatabase(t))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			for _, s := range []string{"CREATE TABLE account (id int PRIMARY KEY, balance int)", "INSERT INTO account VALUES (1, 0)"} {
				if _, err := db.ExecContext(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			athos := postgres.New("athos", db)
			mgr, err := troth.Open(t.Context(), troth.Config{Resources: []troth.Resource{athos}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = mgr.Close(context.Background()) }()
			holder, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = holder.Rollback() }()
			if _, err := holder.ExecContext(t.Context(), "UPDATE account SET balance = 1"); err != nil {
				t.Fatal(err)
			}
			run := func(query string) error {
				return mgr.Run(t.Context(), func(ctx context.Context, tx *troth.Tx) error {
					a, err := athos.DB(ctx, tx)
					if err != nil {
						return err
					}
					if _, err := a.ExecContext(ctx, "SET LOCAL lock_timeout = 20"); err != nil {
						return err
					}
					_, err = a.ExecContext(ctx, query)
					return err
				})
			}
			for query, retry := range map[string]bool{"UPDATE account SET balance = 2": true, "UPDATE nosuch SET balance = 2": false} {
				err := run(query)
				var b *troth.BranchError
				if !errors.Is(err, troth.ErrRolledBack) || !errors.As(err, &b) || b.Resource != "athos" {
					t.Errorf("%s: error %v does not name the database", query, err)
				}
				if troth.SafeToRetry(err) != retry {
					t.Errorf("%s: safe to retry is %v: %v", query, !retry, err)
				}
			}
		})
	}
}
