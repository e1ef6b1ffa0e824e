package barrier_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/troth-tx/troth/barrier"
)

// A service that takes 30 from an account, and gives them back. The server calls it as
// often as it needs to be answered.
func Example() {
	dir, err := os.MkdirTemp("", "barrier")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "bank")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = db.Close() }()
	steps, err := barrier.NewTable(barrier.SQLite, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = db.Exec("CREATE TABLE account (balance int); INSERT INTO account VALUES (100)")
	if err := errors.Join(err, steps.Create(context.Background(), db)); err != nil {
		fmt.Println(err)
		return
	}
	pay := func(w http.ResponseWriter, r *http.Request) {
		step, err := barrier.FromRequest(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		amount := -30
		if step.Op == barrier.Compensate {
			amount = 30
		}
		err = steps.Run(r.Context(), db, step, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + ?", amount)
			return err
		})
		if err != nil { // the server asks again
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
	call := func(gid, op string) {
		w := httptest.NewRecorder()
		pay(w, httptest.NewRequest("POST", "/pay?trans_type=saga&branch_id=01&gid="+gid+"&op="+op, nil))
		var balance int
		if err := db.QueryRow("SELECT balance FROM account").Scan(&balance); err != nil {
			fmt.Println(err)
		}
		fmt.Println(gid, op, w.Code, "balance", balance)
	}
	call("trip-1", "action")
	call("trip-1", "action") // its answer was lost
	call("trip-1", "compensate")
	call("trip-2", "compensate") // its action is late
	call("trip-2", "action")
	// Output:
	// trip-1 action 200 balance 70
	// trip-1 action 200 balance 70
	// trip-1 compensate 200 balance 100
	// trip-2 compensate 200 balance 100
	// trip-2 action 200 balance 100
}

// The transaction may be the caller's own: Enter does not end it.
func ExampleTable_Enter() {
	enter := func(ctx context.Context, steps *barrier.Table, tx *sql.Tx, step barrier.Step) error {
		defer func() { _ = tx.Rollback() }() // does nothing after Commit
		verdict, err := steps.Enter(ctx, tx, step)
		if err != nil {
			return err
		}
		if verdict == barrier.Proceed {
			if _, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance - 30"); err != nil {
				return err
			}
		}
		return tx.Commit() // the row of an empty compensation must stay, too
	}
	_ = enter
}
