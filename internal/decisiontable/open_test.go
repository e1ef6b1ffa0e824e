package decisiontable

import (
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/registertest"
)

func TestConformance(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, _ *sql.DB) {
		registertest.Run(t, registertest.Factory{
			New: func(t *testing.T) func(*testing.T) troth.Register {
				db := e.new(t)
				return func(t *testing.T) troth.Register { return newTable(t, e, db, Options{}) }
			},
			SharedByDomains: true,
		})
	})
}

var bank = troth.RegisterConfig{Domain: "bank"}

func TestCreatorsRace(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		for range 5 {
			mustExec(t, db, "DROP TABLE IF EXISTS troth_meta", "DROP TABLE IF EXISTS troth_decision", "DROP TABLE IF EXISTS troth_witness")
			tables := make([]*Table, 8)
			var wg sync.WaitGroup
			for i := range tables {
				tables[i] = newTable(t, e, db, Options{})
				wg.Go(func() {
					if err := tables[i].Open(t.Context(), bank); err != nil {
						t.Errorf("Open: %v", err)
					}
				})
			}
			wg.Wait()
			for _, table := range tables {
				if got, want := table.Identity(), tables[0].Identity(); got != want || !troth.ValidIdentity(got) {
					t.Fatalf("identities %q and %q of one database", got, want)
				}
			}
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  Dialect // 0: all
		spoil []string
		want  string
	}{
		{"newer version", 0, []string{"UPDATE troth_meta SET value = '2' WHERE name = 'version'"}, "upgrade the program"},
		{"no version", 0, []string{"UPDATE troth_meta SET value = 'x' WHERE name = 'version'"}, "not made by troth"},
		{"no identity", 0, []string{"UPDATE troth_meta SET value = 'x' WHERE name = 'identity'"}, "not made by troth"},
		{"unlogged table", Postgres, []string{"ALTER TABLE troth_decision SET UNLOGGED"}, "SET LOGGED"},
		{"engine without transactions", MySQL, []string{"ALTER TABLE troth_decision ENGINE=MyISAM"}, "ENGINE=InnoDB"},
		{"collation that ignores case", MySQL, []string{"ALTER TABLE troth_decision CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"}, "COLLATE ascii_bin"},
		{"other columns", 0, []string{"DROP TABLE troth_decision", "CREATE TABLE troth_decision (gid varchar(64) PRIMARY KEY)"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			forEach(t, func(t *testing.T, e engine, db *sql.DB) {
				if c.kind != 0 && c.kind != e.kind {
					t.SkipNow()
				}
				openTable(t, e, db, Options{})
				mustExec(t, db, c.spoil...)
				table := newTable(t, e, db, Options{})
				if err := table.Open(t.Context(), bank); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("Open = %v, want an error with %q", err, c.want)
				}
				if _, err := table.Lookup(t.Context(), newGID()); err == nil {
					t.Error("a table that did not open answers")
				}
			})
		})
	}
}

// A user without rights is told what to run; that runs, and is enough.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	for _, floor := range []bool{false, true} {
		t.Run(fmt.Sprintf("floor=%v/postgres", floor), func(t *testing.T) {
			t.Parallel()
			p := dbtest.SharedPostgres(t, 0)
			dsn := p.NewDatabase(t)
			owner := open(t, "pgx", dsn)
			user := fmt.Sprintf("U %v", floor) // needs quotes
			mustExec(t, owner, "REVOKE CREATE ON SCHEMA public FROM PUBLIC", `CREATE ROLE "`+user+`" LOGIN`)
			t.Cleanup(func() {
				_, _ = owner.Exec(`DROP OWNED BY "` + user + `"`)
				_, _ = owner.Exec(`DROP ROLE "` + user + `"`)
			})
			dsn = strings.Replace(dsn, "postgres@", strings.ReplaceAll(user, " ", "%20")+"@", 1)
			testMissingRights(t, engine{kind: Postgres}, owner, open(t, "pgx", dsn), floor, `FROM "`+user+`"`)
		})
		t.Run(fmt.Sprintf("floor=%v/mariadb", floor), func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.SharedMariaDB(t, 0).NewDatabase(t)
			owner := open(t, "mysql", dsn)
			user := fmt.Sprintf("u_%v", floor)
			mustExec(t, owner, "CREATE USER '"+user+"'@'%'", "CREATE TABLE other (i int)", "GRANT SELECT ON other TO '"+user+"'@'%'")
			t.Cleanup(func() { _, _ = owner.Exec("DROP USER '" + user + "'@'%'") })
			dsn = strings.Replace(dsn, "root@", user+"@", 1)
			testMissingRights(t, engine{kind: MySQL}, owner, open(t, "mysql", dsn), floor, "FROM '"+user+"'@'%'")
		})
	}
}

func testMissingRights(t *testing.T, e engine, owner, db *sql.DB, floor bool, from string) {
	table := newTable(t, e, db, Options{Floor: floor})
	err := table.Open(t.Context(), bank)
	if err == nil {
		t.Fatal("Open works without the right to create")
	}
	runHint(t, owner, err, "CREATE TABLE", "GRANT")
	if err := table.Open(t.Context(), bank); err != nil {
		t.Fatalf("Open after what the error said was run: %v", err)
	}
	gid := newGID()
	mustDecide(t, table, commit(gid), troth.Committed)
	if err := table.Forget(t.Context(), []troth.GID{gid}); err != nil {
		t.Error(err)
	}
	if _, err := table.Expire(t.Context(), time.Hour); err != nil {
		t.Error(err)
	}
	for _, right := range []string{"SELECT", "INSERT", "DELETE"} {
		mustExec(t, owner, "REVOKE "+right+" ON troth_decision "+from)
		table := newTable(t, e, db, Options{Floor: floor})
		err := table.Open(t.Context(), bank)
		if err == nil {
			t.Fatalf("Open works without %s", right)
		}
		runHint(t, owner, err, "GRANT SELECT, INSERT, DELETE ON")
		if err := table.Open(t.Context(), bank); err != nil {
			t.Fatalf("Open after what the error said was run: %v", err)
		}
	}
}

// runHint runs the statements in an error as the owner.
func runHint(t *testing.T, owner *sql.DB, err error, want ...string) {
	t.Helper()
	text := err.Error()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Fatalf("the error does not say %q: %s", w, text)
		}
	}
	_, text, _ = strings.Cut(text, ":\n")
	text = text[:strings.LastIndex(text, ";\n")]
	for statement := range strings.SplitSeq(text, ";\n") {
		mustExec(t, owner, statement)
	}
}

// Sessions whose defaults would give wrong answers.
func TestStrangeSessionDefaults(t *testing.T) {
	for _, c := range []struct {
		name, driver string
		kind         Dialect
		params       string
	}{
		{"pgx serializable", "pgx", Postgres, "default_transaction_isolation=serializable"},
		{"pq repeatable read", "postgres", Postgres, "default_transaction_isolation=repeatable%20read"},
		{"pgx strings with backslashes", "pgx", Postgres, "standard_conforming_strings=off"},
		{"mariadb read uncommitted", "mysql", MySQL, "tx_isolation='READ-UNCOMMITTED'"},
		{"mariadb serializable", "mysql", MySQL, "tx_isolation='SERIALIZABLE'"},
		{"mariadb no autocommit", "mysql", MySQL, "autocommit=0"},
		{"mariadb found rows", "mysql", MySQL, "clientFoundRows=true&parseTime=true&loc=Asia%2FTokyo&time_zone='%2B09:00'"},
		{"mariadb ansi", "mysql", MySQL, "sql_mode='ANSI,NO_BACKSLASH_ESCAPES'&interpolateParams=false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := engine{name: c.name, kind: c.kind, new: func(t *testing.T) *sql.DB {
				if c.kind == Postgres {
					return open(t, c.driver, dbtest.SharedPostgres(t, 0).NewDatabase(t)+"&"+c.params)
				}
				return open(t, c.driver, dbtest.SharedMariaDB(t, 0).NewDatabase(t)+"?"+c.params)
			}}
			db := e.new(t)
			table, gid := openTable(t, e, db, Options{}), newGID()
			h := newHome(t, e, db)
			mustExec(t, h.conn, table.InsertSQL(commit(gid)))
			mustLookup(t, table, gid, troth.Undecided)
			answers := decideMany(t.Context(), table, abort(gid), 2)
			awaitWaiter(t, e, db, 2)
			mustExec(t, h.conn, "COMMIT")
			for range 2 {
				if a := <-answers; a.err != nil || a.outcome != troth.Committed {
					t.Errorf("recoverer heard %v, %v, want committed", a.outcome, a.err)
				}
			}
			mustLookup(t, openTable(t, e, db, Options{}), gid, troth.Committed)
			contend(t, openTable(t, e, db, Options{Floor: true}), table, 10)
		})
	}
}

// A program may go elsewhere in its branch.
func TestNamesAreQualified(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		if e.kind == SQLite {
			t.Skip("there is no current schema to change")
		}
		table, gid := openTable(t, e, db, Options{}), newGID()
		h := newHome(t, e, db)
		if e.kind == Postgres {
			mustExec(t, h.conn, "CREATE SCHEMA elsewhere", "SET search_path = elsewhere", "CREATE TEMP TABLE troth_decision (gid text, outcome text, branches text)")
		} else {
			mustExec(t, h.conn, "USE information_schema", "SET time_zone = '-10:00'")
		}
		mustExec(t, h.conn, table.InsertSQL(commit(gid)), "COMMIT")
		mustLookup(t, table, gid, troth.Committed)
		list, err := table.Committed(t.Context(), 0, "", 1)
		if err != nil || len(list) != 1 || time.Since(list[0].At).Abs() > time.Minute {
			t.Errorf("Committed = %v, %v, want one of now", list, err)
		}
	})
}

func TestForeignRecordIsAnError(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		table, gid := openTable(t, e, db, Options{}), newGID()
		mustDecide(t, table, commit(gid), troth.Committed)
		if e.kind == Postgres {
			mustExec(t, db, "ALTER TABLE troth_decision DROP CONSTRAINT troth_decision_outcome_check")
		}
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if e.kind == SQLite {
			mustExec(t, conn, "PRAGMA ignore_check_constraints = 1")
		}
		mustExec(t, conn, "UPDATE troth_decision SET outcome = 'maybe'")
		if outcome, err := table.Lookup(t.Context(), gid); err == nil || outcome != troth.Undecided {
			t.Errorf("Lookup = %v, %v, want an error", outcome, err)
		}
		if outcome, err := table.Decide(t.Context(), abort(gid)); err == nil || outcome != troth.Undecided {
			t.Errorf("Decide = %v, %v, want an error", outcome, err)
		}
	})
}

func TestOpenRefusesNoDomain(t *testing.T) {
	t.Parallel()
	table := New(SQLite, nil, Options{})
	if err := table.Open(t.Context(), troth.RegisterConfig{}); err == nil || !strings.Contains(err.Error(), "Domain") {
		t.Errorf("Open = %v, want an error that names Domain", err)
	}
}

func TestQuoteLiteralPanicsOnWhatCouldEndIt(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"'", `\`, "\x00", "\n", "é", "a'b", "\x7f"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("quoteLiteral(%q) does not panic", s)
				}
			}()
			quoteLiteral(s)
		}()
	}
	if got := quoteLiteral("bank.0:~@_-"); got != "'bank.0:~@_-'" {
		t.Errorf("quoteLiteral = %s", got)
	}
}
