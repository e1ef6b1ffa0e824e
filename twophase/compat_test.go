package twophase_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/troth-tx/troth/internal/dbtest"
	twophase "github.com/troth-tx/troth/twophase"
)

// The whole interface of gosql2pc v1, used in every way that its types allow. The
// lines below compile against the original too; only the import path is ours.
var (
	_ func(*sql.DB, func(context.Context, *sql.Tx) error) twophase.Participant = twophase.NewParticipant
	_ func(context.Context, twophase.Params) error                             = twophase.Do
	_ error                                                                    = twophase.ErrCommitFailed
	_                                                                          = twophase.Params{
		LogFn:        func(_ string, _ ...any) {},
		Participants: []twophase.Participant{{}},
	}
	_ = twophase.Params{func(string, ...any) {}, []twophase.Participant{}} // unkeyed: the order of the fields counts
)

// A program as its users wrote it for gosql2pc: two databases, a user and an order.
func TestProgramWrittenForGosql2pc(t *testing.T) {
	t.Parallel()
	open := func() *sql.DB {
		db, err := sql.Open("pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	users, orders := open(), open()
	t.Cleanup(func() { _ = twophase.Shutdown(context.Background(), users, orders) })
	if _, err := users.Exec("CREATE TABLE users (id uuid PRIMARY KEY, name text)"); err != nil {
		t.Fatal(err)
	}
	if _, err := orders.Exec("CREATE TABLE orders (id uuid PRIMARY KEY, user_id uuid NOT NULL, amount int NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	buy := func(user, order string) error {
		addUser := twophase.NewParticipant(users, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO users VALUES ($1, $2)", user, "Constance")
			return err
		})
		addOrder := twophase.NewParticipant(orders, func(ctx context.Context, tx *sql.Tx) error {
			stmt, err := tx.PrepareContext(ctx, "INSERT INTO orders VALUES ($1, $2, $3)")
			if err != nil {
				return err
			}
			defer func() { _ = stmt.Close() }()
			_, err = stmt.ExecContext(ctx, order, user, 10)
			return err
		})
		params := twophase.Params{
			LogFn: func(format string, args ...any) {
				fmt.Printf(format+"\n", args...)
			},
		}
		params.Participants = append(params.Participants, addUser, addOrder)
		return twophase.Do(context.Background(), params)
	}
	const userA, userB = "5a2e3e0c-0000-4000-8000-000000000001", "5a2e3e0c-0000-4000-8000-000000000002"
	const order = "5a2e3e0c-0000-4000-8000-000000000003"
	if err := buy(userA, order); err != nil {
		t.Fatal(err)
	}
	switch err := buy(userB, order); {
	case err == nil:
		t.Error("the order was accepted twice")
	case errors.Is(err, twophase.ErrCommitFailed):
		t.Errorf("nothing was committed, and the error says so not: %v", err)
	}
	var n, m int
	if err := users.QueryRow("SELECT count(*) FROM users").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if err := orders.QueryRow("SELECT count(*) FROM orders").Scan(&m); err != nil {
		t.Fatal(err)
	}
	if n != 1 || m != 1 {
		t.Errorf("%d users and %d orders, want one each", n, m)
	}
}
