package sqlite_test

import (
	"database/sql"
	"testing"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/sqlite"
)

// An Open that fails leaves no session behind, and the pool its own limit; and it
// can be tried again.
func TestFailedOpenGivesItsSessionBack(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", "file:"+t.TempDir()+"/lite.db?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(3)
	if _, err := db.Exec("CREATE TABLE troth_decision (something INTEGER)"); err != nil {
		t.Fatal(err)
	}
	cfg := troth.Config{Resources: []troth.Resource{sqlite.New("lite", db)}}
	if _, err := troth.Open(t.Context(), cfg); err == nil {
		t.Fatal("opened over a table of another form")
	}
	if s := db.Stats(); s.InUse != 0 || s.MaxOpenConnections != 3 {
		t.Errorf("after Open failed: %d sessions in use, limit %d instead of 3", s.InUse, s.MaxOpenConnections)
	}
	if _, err := db.Exec("DROP TABLE troth_decision"); err != nil {
		t.Fatal(err)
	}
	m, err := troth.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
