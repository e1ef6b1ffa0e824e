package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/sqlite"
)

// A SQLite database takes part by itself here; beside it, any number of
// PostgreSQL, MySQL and MariaDB databases can.
func Example() {
	dir, err := os.MkdirTemp("", "troth-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is a temporary directory
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "orders.db")+"?_pragma=journal_mode(wal)&_pragma=busy_timeout(5000)")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // the process ends
	ctx := context.Background()
	if _, err := db.ExecContext(ctx, "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)"); err != nil {
		log.Fatal(err)
	}

	aramis := sqlite.New("aramis", db)
	mgr, err := troth.Open(ctx, troth.Config{Domain: "shop", Resources: []troth.Resource{aramis}})
	if err != nil {
		log.Fatal(err)
	}
	defer mgr.Close(ctx) //nolint:errcheck // the process ends

	err = mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		orders, err := aramis.DB(ctx, tx)
		if err != nil {
			return err
		}
		_, err = orders.ExecContext(ctx, "INSERT INTO orders (item) VALUES (?)", "a feathered hat")
		return err
	})
	fmt.Println("error:", err)

	var item string
	err = db.QueryRowContext(ctx, "SELECT item FROM orders").Scan(&item)
	fmt.Println(item, err)
	// Output:
	// error: <nil>
	// a feathered hat <nil>
}
