package simdb

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	modernc "modernc.org/sqlite"
	"pgregory.net/rapid"
)

// realSQLite runs texts on connections to one file. A connection that would wait
// answers busy at once, so nothing runs beside anything.
type realSQLite struct {
	t     testing.TB
	db    *sql.DB
	conns map[string]*sql.Conn
}

func (r *realSQLite) exec(name, text string) string {
	r.t.Helper()
	c := r.conns[name]
	if c == nil {
		var err error
		if c, err = r.db.Conn(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		r.conns[name] = c
	}
	if strings.HasPrefix(text, "SELECT") {
		return r.query(c, text)
	}
	res, err := c.ExecContext(r.t.Context(), text)
	if err != nil {
		return liteCode(r.t, err)
	}
	if isChange(text) {
		n, err := res.RowsAffected()
		if err != nil {
			r.t.Fatal(err)
		}
		return fmt.Sprint("ok ", n)
	}
	return "ok"
}

func isChange(text string) bool {
	return strings.HasPrefix(text, "INSERT") || strings.HasPrefix(text, "UPDATE") || strings.HasPrefix(text, "DELETE")
}

func (r *realSQLite) query(c *sql.Conn, text string) string {
	rows, err := c.QueryContext(r.t.Context(), text)
	if err != nil {
		return liteCode(r.t, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var b strings.Builder
	columns, _ := rows.Columns()
	for rows.Next() {
		values := make([]any, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			r.t.Fatal(err)
		}
		fmt.Fprint(&b, " ", values)
	}
	if err := rows.Err(); err != nil {
		return liteCode(r.t, err)
	}
	return "ok" + b.String()
}

func liteCode(t testing.TB, err error) string {
	t.Helper()
	var e *modernc.Error
	if !errors.As(err, &e) {
		t.Fatalf("not an answer of SQLite: %v", err)
	}
	return fmt.Sprint("error ", e.Code())
}

// simulatedSQLite writes an answer as realSQLite does.
func simulatedSQLite(text string, results []Result, err error) string {
	var e *Error
	switch {
	case errors.As(err, &e):
		return "error " + e.Code
	case err != nil:
		return err.Error()
	case isChange(text):
		return fmt.Sprint("ok ", results[0].Affected)
	}
	var b strings.Builder
	for _, row := range results[0].Rows {
		fmt.Fprint(&b, " ", row)
	}
	return "ok" + b.String()
}

func TestDifferentialSQLite(t *testing.T) {
	t.Parallel()
	met := map[string]int{}
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, fmt.Sprint(run))+"?_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }() // the directory goes with the test
		real := &realSQLite{t: t, db: db, conns: map[string]*sql.Conn{}}
		sim := newScript(t, SQLite, Options{})
		var log strings.Builder
		both := func(name, text string) {
			got := real.exec(name, text)
			results, err := sim.session(name).Exec(text)
			fmt.Fprintf(&log, "%s: %s -> %s\n", name, text, got)
			met[strings.SplitN(got, " [", 2)[0]]++
			if want := simulatedSQLite(text, results, err); got != want {
				rt.Fatalf("answers of SQLite:\n%sthe simulation: %s", log.String(), want)
			}
		}
		both("a", "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER NOT NULL)")
		both("a", "INSERT INTO t (id, v) VALUES (1, 10), (2, 20)")
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "session")
			if rapid.IntRange(0, 30).Draw(rt, "end") == 0 {
				fmt.Fprintf(&log, "%s ends\n", name)
				endSQLite(real, sim, name)
				continue
			}
			text := liteText(rt)
			if sim.session(name).sqlite.block {
				text = strings.TrimSuffix(text, " IMMEDIATE") // refused: see sqlite.go
			}
			both(name, text)
		}
		for _, name := range []string{"a", "b", "c"} {
			endSQLite(real, sim, name)
		}
		both("z", "SELECT id, v FROM t ORDER BY id")
		if c := real.conns["z"]; c != nil {
			_ = c.Close()
		}
	})
	t.Logf("met %v", met)
	for _, what := range []string{"error 5", "error 517", "error 1555", "error 1", "ok 1"} {
		if met[what] == 0 {
			t.Errorf("in all the runs there was no %q", what)
		}
	}
}

func endSQLite(real *realSQLite, sim *script, name string) {
	if c := real.conns[name]; c != nil {
		_ = c.Raw(func(any) error { return errors.New("unused") })
		_, _ = c.ExecContext(real.t.Context(), "ROLLBACK") // there may be nothing to roll back
		_ = c.Close()
		delete(real.conns, name)
	}
	if s := sim.sessions[name]; s != nil {
		s.Close()
	}
}

func liteText(rt *rapid.T) string {
	id := rapid.IntRange(1, 4).Draw(rt, "id")
	n := rapid.IntRange(0, 9).Draw(rt, "n")
	texts := []string{
		"BEGIN IMMEDIATE", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK",
		fmt.Sprintf("UPDATE t SET v = v + %d WHERE id = %d", n, id),
		fmt.Sprintf("UPDATE t SET v = v + %d WHERE id = %d", n, id),
		fmt.Sprintf("INSERT INTO t (id, v) VALUES (%d, %d)", id, n),
		fmt.Sprintf("INSERT INTO t (id, v) VALUES (%d, %d)", id, n),
		fmt.Sprintf("INSERT INTO t (id, v) SELECT %d, %d WHERE NOT EXISTS (SELECT 1 FROM t WHERE id = %d) ON CONFLICT (id) DO NOTHING", id, n, n),
		fmt.Sprintf("DELETE FROM t WHERE id = %d", id),
		fmt.Sprintf("SELECT v FROM t WHERE id = %d", id),
		"SELECT sum(v), count(*) FROM t",
	}
	return rapid.SampledFrom(texts).Draw(rt, "text")
}

// Savepoints within a transaction, and the counter that tells what a branch wrote.
func TestSQLiteSavepoints(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "x")+"?_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }() // the directory goes with the test
	real := &realSQLite{t: t, db: db, conns: map[string]*sql.Conn{}}
	sim := newScript(t, SQLite, Options{})
	texts := []string{
		"CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER NOT NULL)", "SELECT total_changes()",
		"BEGIN IMMEDIATE", "SAVEPOINT troth_branch", "INSERT INTO t (id, v) VALUES (1, 1)", "SAVEPOINT s",
		"UPDATE t SET v = v + 1 WHERE id = 1", "ROLLBACK TO SAVEPOINT s", "INSERT INTO t (id, v) VALUES (1, 1)", "RELEASE SAVEPOINT s",
		"RELEASE s", "SELECT v FROM t", "SELECT total_changes()", "RELEASE troth_branch", "COMMIT", "RELEASE troth_branch", "ROLLBACK",
		"SELECT v FROM t", "INSERT INTO t (id, v) VALUES (2, NULL)", "SELECT nothing FROM t",
	}
	var got, want []string
	for _, text := range texts {
		got = append(got, text+" -> "+real.exec("a", text))
		results, err := sim.session("a").Exec(text)
		want = append(want, text+" -> "+simulatedSQLite(text, results, err))
	}
	if !slices.Equal(got, want) {
		t.Errorf("SQLite:\n%s\nthe simulation:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	_ = real.conns["a"].Close()
}

// Only one of those that ask for the lock again and again gets it.
func TestSQLiteWaits(t *testing.T) {
	t.Parallel()
	sc := newScript(t, SQLite, Options{})
	sc.run(
		"a: CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER NOT NULL) STRICT, WITHOUT ROWID -> CREATE TABLE",
		"a: BEGIN IMMEDIATE -> OK",
		"b: BEGIN IMMEDIATE -> error 5",
		"b: PRAGMA busy_timeout = 300 -> OK 300",
		"c: PRAGMA busy_timeout = 300 -> OK 300",
		"b: BEGIN IMMEDIATE -> waits",
		"c: INSERT INTO t (id, v) VALUES (1, 1) -> waits",
		"a: COMMIT -> OK",
		"c -> INSERT 0 1",
		"b -> OK",
		"b: SELECT v FROM t -> SELECT 1 1",
		"c: INSERT INTO t (id, v) VALUES (2, 1) -> waits",
	)
	sc.sessions["c"].Expire()
	sc.run("c -> error 5", "c: SELECT v FROM t -> SELECT 1 1")
}
