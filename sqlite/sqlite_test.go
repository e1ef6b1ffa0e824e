package sqlite_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/resourcetest"
	"github.com/troth-tx/troth/sqlite"
)

// branchDB is what a branch of this package has.
type branchDB interface{ DB() *sql.DB }

func TestConformance(t *testing.T) {
	for _, journal := range []string{"wal", "delete"} {
		t.Run(journal, func(t *testing.T) {
			resourcetest.Run(t, resourcetest.Factory{
				Can:       troth.CanDecide,
				OneWriter: true,
				Open:      func(t *testing.T) *resourcetest.Database { return newDatabase(t, journal) },
				Statements: func(_ *testing.T, b troth.Branch) resourcetest.Session {
					return resourcetest.OnDB(b.(branchDB).DB())
				},
				SQL: resourcetest.SQL{
					Slow:      "with recursive n(i) as (select 1 union all select i+1 from n where i < 1000000000) select count(*) from n",
					Returning: true,
				},
			})
		})
	}
}

func newDatabase(t *testing.T, journal string) *resourcetest.Database {
	path := filepath.Join(t.TempDir(), "bank.db")
	outside := openDB(t, path, "_pragma=busy_timeout(10000)&_pragma=journal_mode("+journal+")")
	return &resourcetest.Database{
		Outside: outside,
		Resource: func(t *testing.T, name string, poolMax int) (troth.Resource, resourcetest.Session) {
			db := openDB(t, path, "_pragma=busy_timeout(10000)")
			db.SetMaxOpenConns(poolMax)
			return sqlite.New(name, db), resourcetest.OnDB(db)
		},
	}
}

func openDB(t *testing.T, path, params string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", fmt.Sprintf("file:%s?%s", path, params))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
