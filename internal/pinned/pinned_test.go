package pinned

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/internal/drivercall"
	"github.com/troth-tx/troth/internal/sqltext"
)

func TestCommitAndRollback(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		if w.s.Started() || w.s.Wrote() != ChangeNo {
			t.Fatal("begun before the first statement")
		}
		w.must(w.db, "INSERT INTO a VALUES (4, 'four')")
		w.must(w.db, "INSERT INTO a VALUES ("+w.arg(1)+", "+w.arg(2)+")", 5, "five")
		if !w.s.Started() || w.s.Wrote() != ChangeYes || w.s.Failed() != nil || w.s.Broken() {
			t.Fatalf("started %v, wrote %v, failed %v", w.s.Started(), w.s.Wrote(), w.s.Failed())
		}
		if w.db != w.s.DB() || w.db.Driver() != w.other.Driver() {
			t.Error("another handle, or another driver")
		}
		if got := w.values(); got != "1 2 3" {
			t.Fatalf("seen from outside: %s", got)
		}
		w.end(true)
		if got := w.values(); got != "1 2 3 4 5" {
			t.Fatalf("after commit: %s", got)
		}
	})
}

func TestOpenRowsAndNestedStatements(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		outer, err := w.db.Query("SELECT id, v FROM a ORDER BY id")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = outer.Close() }()
		types, err := outer.ColumnTypes()
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%v %v", types[0].DatabaseTypeName(), types[1].ScanType())
		seen := ""
		for outer.Next() {
			var id int
			var v []byte
			if err := outer.Scan(&id, &v); err != nil {
				t.Fatal(err)
			}
			seen += fmt.Sprintf("%d%s ", id, v)
			var n int
			if err := w.db.QueryRow("SELECT count(*) FROM a WHERE id <= "+w.arg(1), id).Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n != id {
				t.Errorf("row %d: %d", id, n)
			}
			w.must(w.db, "INSERT INTO a VALUES ("+w.arg(1)+", 'x')", id+10)
			if types, err = outer.ColumnTypes(); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%v %v", types[0].DatabaseTypeName(), types[1].ScanType()); got != want {
				t.Errorf("column types in memory %q, streaming %q", got, want)
			}
		}
		if outer.Err() != nil || seen != "1one 2two 3three " {
			t.Fatalf("%q, %v", seen, outer.Err())
		}
		if n := w.s.buffered.Load(); n != 0 {
			t.Errorf("%d bytes counted after all was read", n)
		}
		w.end(true)
		if got := w.values(); got != "1 2 3 11 12 13" {
			t.Fatal(got)
		}
	})
}

func TestSeveralResultSets(t *testing.T) {
	t.Parallel()
	for _, e := range []engine{engineMySQL, enginePQ} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			if e.driver == "mysql" {
				dsn := e.dsn
				e.dsn = func(t testing.TB) string {
					return dsn(t) + map[bool]string{true: "&", false: "?"}[strings.Contains(dsn(t), "?")] + "multiStatements=true"
				}
			}
			for when := range 3 {
				readSetsDisturbed(t, e, when)
			}
		})
	}
}

// readSetsDisturbed runs a statement while two result sets are read: before the first (0), within it, between them.
func readSetsDisturbed(t *testing.T, e engine, when int) {
	t.Helper()
	w := setup(t, e)
	rows, err := w.db.Query("SELECT 1 UNION ALL SELECT 2; SELECT 'a', 'b'")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	disturb := func(now int) {
		if now == when {
			w.must(w.db, "UPDATE a SET v = 'x'")
		}
	}
	disturb(0)
	got := ""
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		got += fmt.Sprint(n, " ")
		disturb(1)
	}
	disturb(2)
	if !rows.NextResultSet() {
		t.Fatalf("no second set: %v", rows.Err())
	}
	if c, _ := rows.Columns(); len(c) != 2 {
		t.Fatalf("columns %v", c)
	}
	for rows.Next() {
		var a, b string
		if err := rows.Scan(&a, &b); err != nil {
			t.Fatal(err)
		}
		got += a + b
	}
	if rows.NextResultSet() || rows.Err() != nil || got != "1 2 ab" {
		t.Fatalf("%q %v", got, rows.Err())
	}
	w.end(true)
}

func TestNestedTransactions(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		one, err := w.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.must(one, "INSERT INTO a VALUES (4, 'kept')")
		two, err := w.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.must(two, "INSERT INTO a VALUES (5, 'undone')")
		if err := two.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := one.Commit(); err != nil {
			t.Fatal(err)
		}
		w.end(true)
		if got := w.values(); got != "1 2 3 4" {
			t.Fatal(got)
		}
	})
}

func TestNestedOrder(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		one, _ := w.db.BeginTx(t.Context(), nil)
		two, _ := w.db.BeginTx(t.Context(), nil)
		w.must(two, "INSERT INTO a VALUES (4, 'x')")
		if err := one.Commit(); err == nil || !strings.Contains(err.Error(), "reverse order") {
			t.Fatalf("outer commit first: %v", err)
		}
		if w.s.Failed() == nil {
			t.Error("not failed")
		}
		_ = two.Rollback()
		if w.s.Failed() == nil {
			t.Error("the inner rollback undid the outer's mistake")
		}
	})
}

func TestOuterRollbackEndsInner(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		conn, err := w.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		outer, _ := conn.BeginTx(t.Context(), nil)
		inner, _ := conn.BeginTx(t.Context(), nil)
		w.must(inner, "INSERT INTO a VALUES (4, 'x')")
		if err := outer.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := w.s.Failed(); err != nil {
			t.Fatalf("failed: %v", err)
		}
		if err := w.failure(inner, "INSERT INTO a VALUES (5, 'x')"); !strings.Contains(err.Error(), "is over") {
			t.Errorf("%v", err)
		}
		if err := inner.Rollback(); err != nil {
			t.Errorf("inner rollback: %v", err)
		}
		if w.s.Failed() == nil {
			t.Error("a statement in a transaction that is over does not count")
		}
	})
}

func TestNestedOptions(t *testing.T) {
	t.Parallel()
	w := setup(t, engineSQLite)
	for _, o := range []sql.TxOptions{{Isolation: sql.LevelSerializable}, {ReadOnly: true}} {
		if _, err := w.db.BeginTx(t.Context(), &o); err == nil || !strings.Contains(err.Error(), "troth.Isolation") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if w.s.Started() || w.s.Failed() != nil {
		t.Error("something was sent")
	}
}

func TestFailureUndoneBySavepoint(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		w.must(w.db, "INSERT INTO a VALUES (4, 'kept')")
		tx, err := w.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.fails(tx, "INSERT INTO a VALUES (1, 'twice')")
		if w.s.Failed() == nil {
			t.Fatal("not failed")
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := w.s.Failed(); err != nil {
			t.Fatalf("still failed: %v", err)
		}
		// The same with texts, as GORM sends them.
		w.must(w.db, "SAVEPOINT Sp1")
		w.fails(w.db, "INSERT INTO a VALUES (1, 'twice')")
		err = w.failure(w.db, "INSERT INTO a VALUES (5, 'refused')")
		var refused *FailedError
		if errors.As(err, &refused) == (e.dialect == sqltext.Postgres) {
			t.Errorf("statement in a failed branch: %v", err)
		}
		w.must(w.db, "ROLLBACK TO SAVEPOINT sp1")
		if err := w.s.Failed(); err != nil {
			t.Fatalf("still failed: %v", err)
		}
		w.must(w.db, "RELEASE SAVEPOINT sp1")
		w.must(w.db, "INSERT INTO a VALUES (6, 'kept')")
		w.end(true)
		if got := w.values(); got != "1 2 3 4 6" {
			t.Fatal(got)
		}
	})
}

func TestFailureBeforeSavepointStays(t *testing.T) {
	t.Parallel()
	w := setup(t, engineSQLite)
	w.must(w.db, "SAVEPOINT x")
	w.must(w.db, "RELEASE x")
	w.must(w.db, "SAVEPOINT y")
	w.fails(w.db, "INSERT INTO a VALUES (1, 'twice')")
	first := w.s.Failed()
	w.fails(w.db, "ROLLBACK TO x")
	if !errors.Is(w.s.Failed(), first) {
		t.Errorf("failed: %v, want %v", w.s.Failed(), first)
	}
	w.fails(w.db, "COMMIT")
	w.must(w.db, "ROLLBACK TO y")
	if w.s.Failed() != nil {
		t.Errorf("failed: %v", w.s.Failed())
	}
}

// A statement outside of a nested transaction is undone with it, for there is one session only. That must
// not go unnoticed.
func TestForeignStatementUndone(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		tx, _ := w.db.BeginTx(t.Context(), nil)
		var n int
		if err := w.db.QueryRow("SELECT count(*) FROM a").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if err := tx.Rollback(); err != nil || w.s.Failed() != nil {
			t.Fatalf("a mere read outside: %v, %v", err, w.s.Failed())
		}
		tx, _ = w.db.BeginTx(t.Context(), nil)
		w.must(w.db, "INSERT INTO a VALUES (4, 'outside')")
		if err := tx.Commit(); err != nil || w.s.Failed() != nil {
			t.Fatalf("committed, nothing lost: %v, %v", err, w.s.Failed())
		}
		tx, _ = w.db.BeginTx(t.Context(), nil)
		w.must(w.db, "INSERT INTO a VALUES (5, 'outside')")
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if err := w.s.Failed(); err == nil || !strings.Contains(err.Error(), "outside of the nested") {
			t.Fatalf("failed: %v", err)
		}
	})
}

func TestNestedLeftOpen(t *testing.T) {
	t.Parallel()
	w := setup(t, engineSQLite)
	tx, _ := w.db.BeginTx(t.Context(), nil)
	w.must(tx, "INSERT INTO a VALUES (4, 'x')")
	w.s.Seal(nil)
	if err := w.s.Failed(); err == nil || !strings.Contains(err.Error(), "neither committed nor rolled back") {
		t.Fatal(err)
	}
}

func TestRollbackWhilePanicking(t *testing.T) {
	t.Parallel()
	w := setup(t, engineSQLite)
	func() {
		defer func() {
			if p := recover(); p != "mine" {
				t.Errorf("recovered %v", p)
			}
		}()
		tx, _ := w.db.BeginTx(t.Context(), nil)
		defer tx.Rollback() //nolint:errcheck // what programs write
		w.must(tx, "INSERT INTO a VALUES (4, 'x')")
		panic("mine")
	}()
	if w.s.Failed() != nil || w.s.Broken() {
		t.Fatalf("failed %v, broken %v", w.s.Failed(), w.s.Broken())
	}
	w.end(true)
	if got := w.values(); got != "1 2 3" {
		t.Fatal(got)
	}
}

func TestTransactionControlIsRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		texts := []string{
			"COMMIT", "/* x */ commit", "select 1; commit", "COMMIT AND CHAIN", "-- x\nCommit;", ";;commit", "BEGIN", "rollback",
		}
		switch e.dialect {
		case sqltext.Postgres:
			texts = append(texts, "end", "abort", "prepare transaction 'x'", "commit prepared 'x'", "select $$ ' $$; commit; --'")
		case sqltext.MySQL:
			texts = append(texts, "xa end 'x'", "set autocommit=1", "create table b (a int)", "/*!50000 commit */", "lock tables a write")
		case sqltext.SQLite:
			texts = append(texts, "end transaction", "select [x]; end")
		}
		w := setup(t, e)
		for _, text := range texts {
			w.must(w.db, "SAVEPOINT x")
			var refused *RefusedError
			if err := w.failure(w.db, text); !errors.As(err, &refused) || !strings.Contains(strings.ToUpper(text), refused.Word) {
				t.Errorf("%q: %v", text, err)
			}
			if w.s.Failed() == nil {
				t.Errorf("%q: not failed", text)
			}
			w.must(w.db, "ROLLBACK TO SAVEPOINT x")
			if err := drain(w.db, text); !errors.As(err, &refused) {
				t.Errorf("%q as a query: %v", text, err)
			}
			w.must(w.db, "ROLLBACK TO SAVEPOINT x")
			if _, err := w.db.Prepare(text); !errors.As(err, &refused) { //nolint:sqlclosecheck // it fails, and the branch's end closes it
				t.Errorf("%q prepared: %v", text, err)
			}
			w.must(w.db, "ROLLBACK TO SAVEPOINT x")
		}
		w.must(w.db, "INSERT INTO a VALUES (4, ' ; commit; ')")
		if e.dialect == sqltext.Postgres {
			w.must(w.db, `INSERT INTO a VALUES (5, E'\'; commit; ')`)
		}
		if w.s.Failed() != nil {
			t.Fatal(w.s.Failed())
		}
		if got := w.values(); got != "1 2 3" {
			t.Fatalf("something was committed: %s", got)
		}
		w.end(true)
	})
}

func TestOwnSavepointNamesAreRefused(t *testing.T) {
	t.Parallel()
	w := setup(t, engineSQLite)
	tx, _ := w.db.BeginTx(t.Context(), nil)
	w.fails(tx, "RELEASE troth_1")
	w.fails(tx, "SAVEPOINT Troth_9")
	_ = tx.Rollback()
	w.must(w.db, "SAVEPOINT u")
	if _, err := w.db.BeginTx(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := w.failure(w.db, "RELEASE u"); !strings.Contains(err.Error(), "still open") {
		t.Error(err)
	}
}

func TestLostSessionIsNotReplaced(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		var kill, pid string
		switch e.dialect {
		case sqltext.Postgres:
			pid, kill = "SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%d)"
		case sqltext.MySQL:
			pid, kill = "SELECT connection_id()", "KILL %d"
		case sqltext.SQLite:
			t.Skip("has no sessions to lose")
		}
		w := setup(t, e)
		w.must(w.db, "INSERT INTO a VALUES (4, 'x')")
		var id int64
		if err := w.db.QueryRow(pid).Scan(&id); err != nil {
			t.Fatal(err)
		}
		w.outside(fmt.Sprintf(kill, id))
		err := w.failure(w.db, "INSERT INTO a VALUES (5, 'x')")
		if errors.Is(err, driver.ErrBadConn) {
			t.Errorf("database/sql would repeat after %v", err)
		}
		if !w.s.Broken() || w.s.Failed() == nil {
			t.Errorf("broken %v, failed %v, after %v", w.s.Broken(), w.s.Failed(), err)
		}
		var lost *SessionLostError
		if err := w.failure(w.db, "INSERT INTO a VALUES (6, 'x')"); !errors.As(err, &lost) || errors.Is(err, driver.ErrBadConn) {
			t.Errorf("the next: %v", err)
		}
		if err := w.s.Raw(t.Context(), func(driver.Conn) error { return nil }); !errors.As(err, &lost) {
			t.Errorf("raw: %v", err)
		}
		w.end(false)
		if got := w.values(); got != "1 2 3" {
			t.Fatal(got)
		}
	})
}

func TestSeal(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		reason := errors.New("over")
		query := func() *sql.Rows {
			rows, err := w.db.Query("SELECT id FROM a")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = rows.Close() })
			return rows
		}
		buffered, streaming := query(), query() //nolint:rowserrcheck // asked in the loop below
		ps, err := w.db.Prepare("SELECT id FROM a")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ps.Close() }()
		more := query() //nolint:rowserrcheck // as above
		tx, _ := w.db.BeginTx(t.Context(), nil)
		w.s.Seal(reason)
		for name, rows := range map[string]*sql.Rows{"buffered": buffered, "streaming": streaming, "more": more} {
			if rows.Next() || !errors.Is(rows.Err(), reason) {
				t.Errorf("%s rows: %v", name, rows.Err())
			}
		}
		if err := w.failure(w.db, "INSERT INTO a VALUES (4, 'x')"); !errors.Is(err, reason) {
			t.Errorf("exec: %v", err)
		}
		if err := ps.QueryRow().Err(); !errors.Is(err, reason) {
			t.Errorf("prepared: %v", err)
		}
		if err := tx.Commit(); !errors.Is(err, reason) {
			t.Errorf("nested commit: %v", err)
		}
		if _, err := w.db.BeginTx(t.Context(), nil); !errors.Is(err, reason) {
			t.Errorf("begin: %v", err)
		}
		if err := w.db.Ping(); !errors.Is(err, reason) {
			t.Errorf("ping: %v", err)
		}
		w.end(false)
		if err := w.failure(w.s.DB(), "SELECT 1"); !strings.Contains(err.Error(), "closed") {
			t.Errorf("after release: %v", err)
		}
		if err := w.s.Raw(t.Context(), func(driver.Conn) error { return nil }); !errors.Is(err, ErrReleased) {
			t.Errorf("raw after release: %v", err)
		}
		// The session went back to its pool in order.
		if got := w.values(); got != "1 2 3" {
			t.Error(got)
		}
	})
}

func TestHandleClosedByTheProgram(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		w.must(w.db, "INSERT INTO a VALUES (4, 'x')")
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
		w.fails(w.db, "SELECT 1")
		if w.s.DB() == w.db {
			t.Fatal("the closed handle again")
		}
		w.must(w.s.DB(), "INSERT INTO a VALUES (5, 'x')")
		w.end(true)
		if got := w.values(); got != "1 2 3 4 5" {
			t.Fatal(got)
		}
	})
}

func TestPoolLimitsDoNotMatter(t *testing.T) {
	t.Parallel()
	w := setup(t, engineMySQL)
	w.db.SetMaxIdleConns(0)
	w.db.SetConnMaxLifetime(time.Nanosecond)
	w.db.SetConnMaxIdleTime(time.Nanosecond)
	ps, err := w.db.Prepare("INSERT INTO a VALUES (?, 'x')")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := ps.Exec(10 + i); err != nil {
			t.Fatal(err)
		}
		w.must(w.db, "UPDATE a SET v = 'y'")
	}
	if err := ps.Close(); err != nil { //nolint:sqlclosecheck // while the branch is open: its end would close it
		t.Fatal(err)
	}
	w.end(true)
}

func TestPreparedStatementsDoNotOutliveTheBranch(t *testing.T) {
	t.Parallel()
	for _, e := range []engine{engineMySQL, enginePQ, enginePGX} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			w := setup(t, e)
			w.other.SetMaxOpenConns(1)
			if _, err := w.db.Prepare("SELECT 42"); err != nil { //nolint:sqlclosecheck // the branch's end has to close it
				t.Fatal(err)
			}
			w.end(false)
			count := "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 42'"
			if e.dialect == sqltext.MySQL {
				count = "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Com_stmt_close'"
			}
			var n int
			if err := w.other.QueryRow(count).Scan(&n); err != nil {
				t.Fatal(err)
			}
			if want := map[bool]int{true: 1}[e.dialect == sqltext.MySQL]; n != want {
				t.Errorf("%d, want %d", n, want)
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		const workers, rounds = 4, 10
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				for j := range rounds {
					if _, err := ids(w.db); err != nil {
						t.Error(err)
						return
					}
					if _, err := w.db.Exec("INSERT INTO a VALUES ("+w.arg(1)+", 'x')", 100+i*rounds+j); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		w.end(true)
		if got := len(strings.Fields(w.values())); got != 3+workers*rounds {
			t.Fatal(got)
		}
	})
}

func TestSealWhileInUse(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		reason := errors.New("over")
		var wg sync.WaitGroup
		first := make(chan struct{}, 4)
		for i := range 4 {
			wg.Go(func() {
				for j := 0; ; j++ {
					_, err := ids(w.db)
					if err == nil {
						_, err = w.db.Exec("INSERT INTO a VALUES ("+w.arg(1)+", 'x')", 1000*(i+1)+j)
					}
					if j == 0 {
						first <- struct{}{}
					}
					if err != nil {
						if !errors.Is(err, reason) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		for range 4 {
			<-first
		}
		w.s.Seal(reason)
		if w.s.Failed() != nil {
			t.Error(w.s.Failed())
		}
		wg.Wait()
		if w.s.Failed() != nil {
			t.Error(w.s.Failed())
		}
		w.end(true)
	})
}

func TestStatementContext(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		w.must(w.db, "INSERT INTO a VALUES (4, 'x')")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.db.ExecContext(ctx, slow(e)); err == nil {
			t.Fatal("no error")
		}
		if w.s.Failed() == nil {
			t.Error("not failed")
		}
		// Whatever the driver did to the session or the database to the transaction:
		_, _ = w.db.Exec("INSERT INTO a VALUES (5, 'x')")
		w.end(false)
		if got := w.values(); got != "1 2 3" {
			t.Fatalf("committed outside of the branch: %s", got)
		}
	})
}

func slow(e engine) string {
	switch e.dialect {
	case sqltext.Postgres:
		return "UPDATE a SET v = 'x' WHERE (SELECT pg_sleep(300)) IS NOT NULL"
	case sqltext.MySQL:
		return "UPDATE a SET v = 'x' WHERE sleep(300) = 0"
	case sqltext.SQLite:
		return "INSERT INTO a WITH RECURSIVE c(x) AS (SELECT 100 UNION ALL SELECT x+1 FROM c) SELECT x, 'y' FROM c"
	}
	return ""
}

type contextKey struct{}

func TestTransactionContext(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		for _, how := range []string{"background", "own", "descends"} {
			t.Run(how, func(t *testing.T) {
				tooLong := errors.New("too long")
				tx, end := context.WithCancelCause(context.WithValue(t.Context(), contextKey{}, t))
				defer end(nil)
				w := setup(t, e, func(c *Config) { c.Context, c.ContextKey = tx, contextKey{} })
				ctx := context.Background()
				switch how {
				case "own":
					var cancel func()
					ctx, cancel = context.WithCancel(ctx)
					defer cancel()
				case "descends":
					var cancel func()
					ctx, cancel = context.WithCancel(tx)
					defer cancel()
				}
				began := time.Now()
				timer := time.AfterFunc(100*time.Millisecond, func() { end(tooLong) })
				defer timer.Stop()
				_, err := w.db.ExecContext(ctx, slow(e))
				if err == nil || time.Since(began) > time.Minute {
					t.Fatalf("%v after %v", err, time.Since(began))
				}
				if w.s.Failed() == nil {
					t.Error("not failed")
				}
				// A waiter, and one that comes later.
				if err := w.failure(w.db, "INSERT INTO a VALUES (4, 'x')"); err == nil {
					t.Error("no error")
				}
			})
		}
	})
}

func TestWaitingHonoursContext(t *testing.T) {
	t.Parallel()
	w := setup(t, engineSQLite)
	w.must(w.db, "SELECT 1")
	err := w.s.Raw(t.Context(), func(driver.Conn) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := w.db.ExecContext(ctx, "SELECT 1")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		return nil
	})
	if err != nil || w.s.Failed() == nil {
		t.Errorf("%v, failed %v", err, w.s.Failed())
	}
}

func TestErrorWhileReadingRows(t *testing.T) {
	t.Parallel()
	for _, e := range []engine{enginePGX, enginePQ} {
		for _, nested := range []bool{false, true} {
			t.Run(fmt.Sprint(e.name, nested), func(t *testing.T) {
				t.Parallel()
				w := setup(t, e)
				rows, err := w.db.Query("SELECT 1/(2-g) FROM generate_series(0, 2) g")
				if err != nil {
					t.Skip("the driver reads ahead")
				}
				defer func() { _ = rows.Close() }()
				if nested {
					w.fails(w.db, "SELECT 1") // the transaction has failed by then
				}
				for rows.Next() {
				}
				if rows.Err() == nil || w.s.Failed() == nil {
					t.Errorf("rows %v, failed %v", rows.Err(), w.s.Failed())
				}
			})
		}
	}
}

func TestBufferLimit(t *testing.T) {
	t.Parallel()
	w := setup(t, enginePGX)
	rows, err := w.db.Query("SELECT g, repeat('x', 1000000) FROM generate_series(1, 70) g")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	if err := w.failure(w.db, "SELECT 1"); !strings.Contains(err.Error(), "64 MiB") {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() { // nothing of it is lost
		n++
		var id int
		var b sql.RawBytes
		if err := rows.Scan(&id, &b); err != nil || id != n || len(b) != 1000000 {
			t.Fatalf("row %d: %d, %d bytes, %v", n, id, len(b), err)
		}
	}
	if n != 70 || rows.Err() != nil || w.s.buffered.Load() != 0 {
		t.Fatalf("%d rows, %v, %d bytes counted", n, rows.Err(), w.s.buffered.Load())
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		for _, c := range []struct {
			query string
			exec  bool
			want  Change
		}{
			{"SELECT * FROM a", false, ChangeNo},
			{"SELECT * FROM a", true, ChangeNo},
			{"UPDATE a SET v = 'x' WHERE id = 99", true, ChangeMaybe},
			{"UPDATE a SET v = 'x' WHERE id = 1", true, ChangeYes},
			{"INSERT INTO a VALUES (4, 'x') RETURNING id", false, ChangeMaybe},
			{"SELECT * FROM a FOR UPDATE", true, ChangeMaybe},
		} {
			if e.dialect == sqltext.SQLite && strings.Contains(c.query, "FOR UPDATE") {
				continue
			}
			w := setup(t, e)
			if c.exec {
				w.must(w.db, c.query)
			} else if err := drain(w.db, c.query); err != nil {
				t.Fatal(err)
			}
			if got := w.s.Wrote(); got != c.want {
				t.Errorf("%s: %v, want %v", c.query, got, c.want)
			}
			w.end(false)
		}
	})
}

func TestStart(t *testing.T) {
	t.Parallel()
	t.Run("fails", func(t *testing.T) {
		t.Parallel()
		calls := 0
		w := setup(t, enginePGX, func(c *Config) {
			c.Start = func(context.Context, driver.Conn) error { calls++; return errors.New("no") }
		})
		w.fails(w.db, "INSERT INTO a VALUES (4, 'x')")
		w.fails(w.db, "INSERT INTO a VALUES (4, 'x')")
		if calls != 1 || w.s.Failed() == nil || !w.s.Started() {
			t.Errorf("%d calls, failed %v", calls, w.s.Failed())
		}
		w.end(false)
		if got := w.values(); got != "1 2 3" {
			t.Error(got)
		}
	})
	t.Run("joined", func(t *testing.T) {
		t.Parallel()
		for _, declines := range []bool{false, true} {
			started, joined := 0, 0
			w := setup(t, enginePGX, func(c *Config) {
				start := c.Start
				c.Start = func(ctx context.Context, dc driver.Conn) error { started++; return start(ctx, dc) }
				c.StartExec = func(ctx context.Context, dc driver.Conn, query string, args []driver.NamedValue) (driver.Result, error) {
					if declines {
						return nil, ErrNotJoined
					}
					joined++
					return drivercall.Exec(ctx, dc, "BEGIN; "+query, args)
				}
			})
			tx, err := w.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			w.must(tx, "INSERT INTO a VALUES (4, 'x')")
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if started+joined != 1 || (started == 1) != declines {
				t.Errorf("started %d, joined %d", started, joined)
			}
			w.end(true)
		}
	})
	t.Run("joined fails", func(t *testing.T) {
		t.Parallel()
		w := setup(t, enginePGX, func(c *Config) {
			c.StartQuery = func(context.Context, driver.Conn, string, []driver.NamedValue) (driver.Rows, error) {
				return nil, errors.New("no")
			}
		})
		if err := drain(w.db, "SELECT 1"); err == nil {
			t.Error("no error")
		}
		w.fails(w.db, "INSERT INTO a VALUES (4, 'x')") // may be outside of a transaction
		if !w.s.Started() {
			t.Error("not started")
		}
	})
}

func TestRefusedBeforeStartSendsNothing(t *testing.T) {
	t.Parallel()
	w := setup(t, engineSQLite)
	w.fails(w.db, "COMMIT")
	if w.s.Started() || w.s.Failed() == nil {
		t.Errorf("started %v, failed %v", w.s.Started(), w.s.Failed())
	}
}

func TestReleaseDiscards(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		w.must(w.db, "INSERT INTO a VALUES (4, 'x')")
		if err := w.s.Release(true); err != nil {
			t.Fatal(err)
		}
		w.done = true
		if err := w.s.Release(true); err != nil {
			t.Fatal(err)
		}
		if got := w.values(); got != "1 2 3" {
			t.Error(got)
		}
	})
}

// What the wrapper itself costs per statement: nothing on the heap but a result set's.
func TestAllocations(t *testing.T) {
	w := setup(t, engineSQLite)
	w.must(w.db, "SELECT 1")
	c := &conn{s: w.s}
	s := w.s
	ctx := context.Background()
	query := "UPDATE a SET v = 'x' WHERE id = 1"
	n := testing.AllocsPerRun(100, func() {
		tx := parse(s.cfg.Dialect, query)
		if s.enter(ctx, c) != nil || s.check(c, &tx) != nil {
			t.Fatal("refused")
		}
		_, end := s.bound(ctx)
		if end != nil {
			end()
		}
		s.executed(c, &tx, driver.RowsAffected(1))
		s.leave()
	})
	if n > 1 { // the boxed result of this test
		t.Errorf("%v allocations", n)
	}
}

// The MySQL driver's values lie in its read buffer, which the next packet overwrites.
func TestBufferedValuesAreCopies(t *testing.T) {
	t.Parallel()
	w := setup(t, engineMySQL)
	rows, err := w.db.Query("WITH RECURSIVE c AS (SELECT 1 x UNION ALL SELECT x+1 FROM c WHERE x < 900) " +
		"SELECT x, concat(x, repeat('.', 500)) FROM c")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	w.must(w.db, "UPDATE a SET v = 'y'")
	n := 0
	for rows.Next() {
		n++
		var id int
		var v string
		if err := rows.Scan(&id, &v); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(n, strings.Repeat(".", 500)); id != n || v != want {
			t.Fatalf("row %d: %d %.10s", n, id, v)
		}
	}
	if n != 900 || rows.Err() != nil {
		t.Fatalf("%d rows, %v", n, rows.Err())
	}
}
