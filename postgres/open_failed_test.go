package postgres

import (
	"database/sql"
	"testing"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
)

// An Open that fails leaves no session behind, and the pool its own limit.
func TestFailedOpenGivesItsSessionBack(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 0)
	dsn := server.NewDatabase(t)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(3)
	if _, err := db.Exec("CREATE UNLOGGED TABLE troth_decision (gid int)"); err != nil {
		t.Fatal(err)
	}
	_, err = troth.Open(t.Context(), troth.Config{Resources: []troth.Resource{New("athos", db)}})
	if err == nil {
		t.Fatal("opened over a table that a crash empties")
	}
	if s := db.Stats(); s.InUse != 0 || s.MaxOpenConnections != 3 {
		t.Errorf("after Open failed: %d sessions in use, limit %d instead of 3", s.InUse, s.MaxOpenConnections)
	}
}
