package sqltext

import (
	"slices"
	"strings"
	"testing"
)

const all = Dialect(0) // in tables: every dialect

func dialects(d Dialect) []Dialect {
	if d == all {
		return []Dialect{Postgres, MySQL, SQLite}
	}
	return []Dialect{d}
}

func TestKind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dialect Dialect
		text    string
		kind    Kind
		word    string
	}{
		{all, "", Empty, ""},
		{all, "  \n", Empty, ""},
		{all, ";", Empty, ""},
		{all, "-- nothing", Empty, ""},
		{all, "/* commit */", Empty, ""},

		{all, "SELECT 1", Read, "SELECT"},
		{all, "select 1;", Read, "SELECT"},
		{all, "(select 1) union (select 2)", Read, "SELECT"},
		{all, "SELECT 'for update'", Read, "SELECT"},
		{all, "SELECT x FROM t -- for update", Read, "SELECT"},
		{all, "SELECT count(*) FROM t WHERE a IN (1,2) AND (b = 3)", Read, "SELECT"},
		{all, "VALUES (1)", Read, "VALUES"},
		{all, "TABLE t", Read, "TABLE"},
		{all, "WITH x AS (SELECT 1) SELECT * FROM x", Read, "WITH"},
		{all, "EXPLAIN SELECT 1", Read, "EXPLAIN"},
		{all, "EXPLAIN DELETE FROM t", Read, "EXPLAIN"},
		{all, "SHOW TABLES", Read, "SHOW"},
		{all, "WITH x AS (SELECT replace(a, 'b', 'c') FROM t) SELECT * FROM x", Read, "WITH"},
		{all, "SELECT t.update, t.into FROM t", Read, "SELECT"},
		{Postgres, "SELECT substring(a FOR 3) FROM t", Read, "SELECT"},
		{Postgres, "SELECT setval('s', 1)", Read, "SELECT"}, // the server knows
		{Postgres, "SELECT a FROM t WHERE lock IN (1)", Read, "SELECT"},
		{MySQL, "DESCRIBE t", Read, "DESCRIBE"},
		{MySQL, "desc t", Read, "DESCRIBE"},
		{MySQL, "HELP 'x'", Read, "HELP"},
		{SQLite, "PRAGMA table_info(t)", Read, "PRAGMA"},
		{SQLite, "PRAGMA main.table_info('t')", Read, "PRAGMA"},
		{SQLite, "PRAGMA foreign_keys = on", Setting, "PRAGMA"},

		{all, "INSERT INTO t VALUES (1)", Write, ""},
		{all, "update t set a = 1", Write, ""},
		{all, "DELETE FROM t", Write, ""},
		{all, "REPLACE INTO t VALUES (1)", Write, ""},
		{all, "CALL p()", Write, ""},
		{all, "gibberish", Write, ""},
		{all, "42", Write, ""},
		{all, "'commit'", Write, ""},
		{all, "SELECT * FROM t FOR UPDATE", Write, "SELECT"},
		{all, "SELECT * FROM t FOR/**/SHARE", Write, "SELECT"},
		{all, "select * into x from t", Write, "SELECT"},
		{all, "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", Write, "WITH"},
		{all, "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", Write, "WITH"},
		{all, "(WITH x AS (UPDATE t SET a=1 RETURNING *) SELECT * FROM x)", Write, "WITH"},
		{all, "SELECT * FROM (DELETE FROM t RETURNING *) x", Write, "SELECT"},
		{all, "EXPLAIN ANALYZE UPDATE t SET a = 1", Write, "EXPLAIN"},
		{all, "EXPLAIN ANALYZE SELECT 1", Read, "EXPLAIN"},
		{Postgres, "EXPLAIN (ANALYZE, BUFFERS) DELETE FROM t", Write, "EXPLAIN"},
		{Postgres, "SELECT 1 FOR NO KEY UPDATE", Write, "SELECT"},
		{Postgres, "SELECT 1 FOR KEY SHARE", Write, "SELECT"},
		{Postgres, "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", Write, ""},
		{Postgres, "CREATE TABLE t (a int)", Write, "CREATE"},
		{Postgres, "TRUNCATE t", Write, ""},
		{Postgres, "LOCK TABLE t", Write, ""},
		{Postgres, "PREPARE x AS SELECT 1", Write, "PREPARE"},
		{Postgres, "COPY t FROM stdin", Write, ""},
		{Postgres, "DO $$BEGIN COMMIT; END$$", Write, ""}, // the server refuses it within a transaction
		{Postgres, "XA START 'x'", Write, ""},
		{SQLite, "CREATE TABLE t (a)", Write, "CREATE"},
		{SQLite, "VACUUM", Write, ""},

		{MySQL, "SELECT * FROM t LOCK IN SHARE MODE", Write, "SELECT"},
		{MySQL, "SELECT a INTO @x FROM t", Write, "SELECT"},
		{MySQL, "SELECT stored(1)", Write, "SELECT"},
		{MySQL, "SELECT stored (1)", Write, "SELECT"},
		{MySQL, "SELECT `count`(1)", Write, "SELECT"},
		{MySQL, "SELECT db.count(1)", Write, "SELECT"},
		{MySQL, "SELECT concat(upper(a), stored()) FROM t", Write, "SELECT"},
		{MySQL, "SELECT GET_LOCK('x', 1)", Write, "SELECT"},
		{MySQL, "SELECT NEXT VALUE FOR s", Write, "SELECT"},
		{MySQL, "SELECT nextval(s)", Write, "SELECT"},
		{MySQL, "SELECT /*!50000 stored(1) */", Write, "SELECT"},
		{MySQL, "SELECT ifnull(a, now()), cast(b AS decimal(10,2)) FROM `t` WHERE a NOT IN (SELECT max(b) FROM u)", Read, "SELECT"},
		{MySQL, "SELECT a FROM t USE INDEX (i) WHERE EXISTS (SELECT 1)", Read, "SELECT"},
		{MySQL, "VALUES ROW(1, stored())", Write, "VALUES"},
		{MySQL, "DO stored()", Write, ""},
		{MySQL, "HANDLER t OPEN", Write, ""},
		{MySQL, "LOAD DATA INFILE 'x' INTO TABLE t", Write, "LOAD"},
		{MySQL, "CREATE TEMPORARY TABLE t (a int)", Write, "CREATE"},
		{MySQL, "CREATE OR REPLACE TEMPORARY TABLE t (a int)", Write, "CREATE"},
		{MySQL, "DROP TEMPORARY TABLE t", Write, "DROP"},
		{MySQL, "PREPARE x FROM 'commit'", Write, ""}, // the server refuses it in an XA branch
		{MySQL, "ANALYZE UPDATE t SET a = 1", Write, ""},
		{MySQL, "ANALYZE FORMAT=JSON DELETE FROM t", Write, "ANALYZE"},
		{MySQL, "ANALYZE SELECT 1", Read, "SELECT"},
		{MySQL, "SET @x = stored()", Write, "SET"},
		{MySQL, "SET STATEMENT max_statement_time=1 FOR UPDATE t SET a=1", Write, ""},
		{MySQL, "SET STATEMENT max_statement_time=1 FOR SELECT 1", Read, "SELECT"},

		{all, "BEGIN", TransactionControl, "BEGIN"},
		{all, "begin work", TransactionControl, "BEGIN"},
		{SQLite, "BEGIN IMMEDIATE", TransactionControl, "BEGIN"},
		{MySQL, "BEGIN NOT ATOMIC SELECT 1; END", TransactionControl, "BEGIN"},
		{Postgres, "START TRANSACTION ISOLATION LEVEL SERIALIZABLE", TransactionControl, "START TRANSACTION"},
		{MySQL, "START /* x */ TRANSACTION", TransactionControl, "START TRANSACTION"},
		{all, "COMMIT", TransactionControl, "COMMIT"},
		{all, "CoMmIt;", TransactionControl, "COMMIT"},
		{all, "/* x */ commit", TransactionControl, "COMMIT"},
		{all, "-- x\ncommit", TransactionControl, "COMMIT"},
		{all, "\t\r\n commit/**/work", TransactionControl, "COMMIT"},
		{all, "COMMIT AND CHAIN", TransactionControl, "COMMIT"},
		{all, "COMMIT PREPARED 'x'", TransactionControl, "COMMIT"},
		{all, "ROLLBACK", TransactionControl, "ROLLBACK"},
		{all, "ROLLBACK WORK", TransactionControl, "ROLLBACK"},
		{all, "ROLLBACK AND NO CHAIN", TransactionControl, "ROLLBACK"},
		{all, "ROLLBACK PREPARED 'x'", TransactionControl, "ROLLBACK"},
		{Postgres, "END", TransactionControl, "END"},
		{SQLite, "END TRANSACTION", TransactionControl, "END"},
		{SQLite, "\uFEFFCOMMIT", TransactionControl, "COMMIT"},
		{Postgres, "ABORT", TransactionControl, "ABORT"},
		{Postgres, "prepare transaction 'x'", TransactionControl, "PREPARE TRANSACTION"},
		{Postgres, "-- x\rcommit", TransactionControl, "COMMIT"},
		{Postgres, "/* /* */ */ commit", TransactionControl, "COMMIT"},
		{MySQL, "# x\ncommit", TransactionControl, "COMMIT"},
		{MySQL, "/* /* */ commit", TransactionControl, "COMMIT"},
		{MySQL, "/*! commit */", TransactionControl, "COMMIT"},
		{MySQL, "/*!50000commit*/", TransactionControl, "COMMIT"},
		{MySQL, "/*M!100100 commit */", TransactionControl, "COMMIT"},
		{MySQL, "com/*!x*/", Write, ""},
		{MySQL, "XA COMMIT 'x'", TransactionControl, "XA"},
		{MySQL, "SET autocommit = 1", TransactionControl, "SET AUTOCOMMIT"},
		{MySQL, "SET SESSION autocommit = 0", TransactionControl, "SET AUTOCOMMIT"},
		{MySQL, "SET @@autocommit = 1", TransactionControl, "SET AUTOCOMMIT"},
		{MySQL, "SET @@session.autocommit = 1", TransactionControl, "SET AUTOCOMMIT"},
		{MySQL, "SET @@`autocommit` = 1", TransactionControl, "SET AUTOCOMMIT"},
		{MySQL, "SET names utf8, `AutoCommit` = on", TransactionControl, "SET AUTOCOMMIT"},
		{MySQL, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", TransactionControl, "SET TRANSACTION"},
		{MySQL, "SET SESSION TRANSACTION READ ONLY", TransactionControl, "SET TRANSACTION"},
		{MySQL, "SET STATEMENT max_statement_time=(1) FOR COMMIT", TransactionControl, "COMMIT"},
		{MySQL, "/*!99999 ' */ commit", TransactionControl, "quote left open in an executable comment"},

		{Postgres, "SET TRANSACTION READ ONLY", Setting, "SET"},
		{Postgres, "SET LOCAL x = 1", Setting, "SET"},
		{Postgres, "RESET ALL", Setting, "RESET"},
		{MySQL, "SET @autocommit = 1", Setting, "SET"},
		{MySQL, "SET @`autocommit` = 1", Setting, "SET"},
		{MySQL, "SET @x = 'autocommit'", Setting, "SET"},
		{MySQL, "SET @x = upper('a'), sql_mode = ''", Setting, "SET"},
		{MySQL, "USE x", Setting, "USE"},

		{MySQL, "CREATE TABLE t (a int)", ImplicitCommit, "CREATE"},
		{MySQL, "create or replace view v as select 1", ImplicitCommit, "CREATE"},
		{MySQL, "ALTER TABLE t ADD b int", ImplicitCommit, "ALTER"},
		{MySQL, "DROP TABLE t", ImplicitCommit, "DROP"},
		{MySQL, "TRUNCATE t", ImplicitCommit, "TRUNCATE"},
		{MySQL, "RENAME TABLE t TO u", ImplicitCommit, "RENAME"},
		{MySQL, "LOCK TABLES t READ", ImplicitCommit, "LOCK"},
		{MySQL, "UNLOCK TABLES", ImplicitCommit, "UNLOCK"},
		{MySQL, "ANALYZE TABLE t", ImplicitCommit, "ANALYZE"},
		{MySQL, "OPTIMIZE TABLE t", ImplicitCommit, "OPTIMIZE"},
		{MySQL, "REPAIR TABLE t", ImplicitCommit, "REPAIR"},
		{MySQL, "CHECK TABLE t", ImplicitCommit, "CHECK"},
		{MySQL, "FLUSH TABLES", ImplicitCommit, "FLUSH"},
		{MySQL, "GRANT ALL ON x TO y", ImplicitCommit, "GRANT"},
		{MySQL, "REVOKE ALL ON x FROM y", ImplicitCommit, "REVOKE"},
		{MySQL, "SET PASSWORD = 'x'", ImplicitCommit, "SET PASSWORD"},
		{MySQL, "SET DEFAULT ROLE x TO y", ImplicitCommit, "SET DEFAULT ROLE"},
		{MySQL, "LOAD INDEX INTO CACHE t", ImplicitCommit, "LOAD INDEX"},
		{MySQL, "START SLAVE", ImplicitCommit, "START"},
		{MySQL, "/*!40000 ALTER TABLE t DISABLE KEYS */", ImplicitCommit, "ALTER"},

		{all, "SELECT 'open; commit", Write, ""},
		{all, "SELECT \"open; commit", Write, ""},
		{Postgres, "SELECT $x$ open; commit", Write, ""},
		{SQLite, "SELECT [open; commit", Write, ""},
	} {
		for _, d := range dialects(c.dialect) {
			st, rest := First(d, c.text)
			if d == MySQL && c.kind == TransactionControl && c.word == "BEGIN" {
				rest = "" // a compound statement; its first part is refused, which is enough
			}
			if st.Kind != c.kind || st.Word != c.word || rest != "" {
				t.Errorf("%v: %q: %v %q, rest %q; want %v %q", d, c.text, st.Kind, st.Word, rest, c.kind, c.word)
			}
		}
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70)
	for _, c := range []struct {
		dialect Dialect
		text    string
		kind    Kind
		name    string
	}{
		{all, "SAVEPOINT a", Savepoint, "a"},
		{all, "savepoint A ;", Savepoint, "a"},
		{all, "SAVEPOINT/**/sp_1 -- x", Savepoint, "sp_1"},
		{all, "SAVEPOINT", Savepoint, ""},
		{all, "SAVEPOINT a b", Savepoint, ""},
		{all, "ROLLBACK TO a", RollbackTo, "a"},
		{all, "ROLLBACK TO SAVEPOINT a", RollbackTo, "a"},
		{all, "ROLLBACK WORK TO SAVEPOINT a", RollbackTo, "a"},
		{all, "rollback transaction to a", RollbackTo, "a"},
		{all, "RELEASE SAVEPOINT a", Release, "a"},
		{all, "RELEASE a", Release, "a"},
		{Postgres, `SAVEPOINT "A""b"`, Savepoint, `A"b`},
		{Postgres, `SAVEPOINT "savepoint"`, Savepoint, "savepoint"},
		{Postgres, `SAVEPOINT U&"\0041"`, Savepoint, ""},
		{Postgres, "SAVEPOINT " + long, Savepoint, long[:63]},
		{Postgres, "SAVEPOINT É" + long, Savepoint, "É" + long[:61]},
		{MySQL, "SAVEPOINT `A``b`", Savepoint, "a`b"},
		{MySQL, "SAVEPOINT 1A", Savepoint, "1a"},
		{SQLite, `SAVEPOINT "A""b"`, Savepoint, `a"b`},
		{SQLite, "SAVEPOINT [A b]", Savepoint, "a b"},
		{SQLite, "SAVEPOINT 'A'", Savepoint, "a"},
	} {
		for _, d := range dialects(c.dialect) {
			st, rest := First(d, c.text)
			if st.Kind != c.kind || st.Name != c.name || rest != "" {
				t.Errorf("%v: %q: %v %q, rest %q; want %v %q", d, c.text, st.Kind, st.Name, rest, c.kind, c.name)
			}
		}
	}
}

func TestStatements(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dialect Dialect
		text    string
		want    []Kind
	}{
		{all, "select 1; commit", []Kind{Read, TransactionControl}},
		{all, "select 1;commit; -- end", []Kind{Read, TransactionControl}},
		{all, ";;commit", []Kind{Empty, Empty, TransactionControl}},
		{all, "select ';' ; update t set a = ';commit;' ;", []Kind{Read, Write}},
		{all, "select 1 /* ; */ ; -- ; commit\n rollback to a", []Kind{Read, RollbackTo}},
		{all, `select ''';commit'';' ; select 1`, []Kind{Read, Read}},
		{all, `select """;commit;" ; select 1`, []Kind{Read, Read}},

		{Postgres, `select '\'; commit; --'`, []Kind{Read, TransactionControl}},
		{Postgres, `select E'\'; commit; --'`, []Kind{Read}},
		{Postgres, `select e'it''s \\'; commit`, []Kind{Read, TransactionControl}},
		{Postgres, "select E'a'\n -- x\n '\\'; commit; --'", []Kind{Read}},
		{Postgres, "select E'a' '\\'; commit; --'", []Kind{Read, TransactionControl}},
		{Postgres, `select fooE'\'; commit; --'`, []Kind{Read, TransactionControl}},
		{Postgres, "select $$;commit;$$; select $a$ $$ ; $b$ ; $a$; select $1;select $2", []Kind{Read, Read, Read, Read}},
		{Postgres, "select a$b$; commit; select $b$", []Kind{Read, TransactionControl, Write}},
		{Postgres, "select 1 /* ; /* ; */ ; commit */; select 2", []Kind{Read, Read}},
		{Postgres, "select 1 - -1; select 1--; \n;commit", []Kind{Read, Read, TransactionControl}},
		{Postgres, "create rule r as on insert to t do (select 1; select 2); commit", []Kind{Write, TransactionControl}},
		{
			Postgres, "create or replace function f() returns int language sql begin atomic select case when true then 1 end; select 2; end; commit",
			[]Kind{Write, TransactionControl},
		},
		{Postgres, "create procedure p() as $$ begin commit; end $$ language plpgsql; select 1", []Kind{Write, Read}},
		{Postgres, "create function f() returns int as 'begin' language sql; commit", []Kind{Write, TransactionControl}},
		{Postgres, "create; commit", []Kind{Write, TransactionControl}},
		{Postgres, "prepare; commit", []Kind{Write, TransactionControl}},
		{Postgres, "rollback; savepoint; commit", []Kind{TransactionControl, Savepoint, TransactionControl}},
		{Postgres, "begin; update t set a=1; prepare transaction 'x'", []Kind{TransactionControl, Write, TransactionControl}},

		{MySQL, `select 'it\'s; commit'; select "\";commit;"`, []Kind{Read, Read}},
		{MySQL, "select 1 # ; commit\n; commit", []Kind{Read, TransactionControl}},
		{MySQL, "select 1--1; commit", []Kind{Read, TransactionControl}},
		{MySQL, "select 1 -- ; commit\n; commit", []Kind{Read, TransactionControl}},
		{MySQL, "select 1 /*! ; commit */", []Kind{Read, TransactionControl}},
		{MySQL, "select `;commit;`; drop table t", []Kind{Read, ImplicitCommit}},
		{MySQL, "set autocommit=0; select 1", []Kind{TransactionControl, Read}},
		{MySQL, "set; drop table t", []Kind{Setting, ImplicitCommit}},
		{MySQL, "set statement x=1 for update t set a=1; commit", []Kind{Write, TransactionControl}},
		{MySQL, "analyze select 1; commit", []Kind{Read, TransactionControl}},

		{SQLite, "select [;commit;]; commit", []Kind{Read, TransactionControl}},
		{
			SQLite, "create trigger x after insert on t begin update t set a=1; select case when 1 then 2 end; end; commit",
			[]Kind{Write, TransactionControl},
		},
		{SQLite, "create temp trigger x after insert on t begin delete from t; end", []Kind{Write}},
		{SQLite, "pragma table_info(t); commit", []Kind{Read, TransactionControl}},
	} {
		for _, d := range dialects(c.dialect) {
			var got []Kind
			var texts strings.Builder
			for st := range Statements(d, c.text) {
				got = append(got, st.Kind)
				texts.WriteString(st.Text)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v: %q: %v, want %v", d, c.text, got, c.want)
			}
			if texts.String() != c.text {
				t.Errorf("%v: %q came back as %q", d, c.text, texts.String())
			}
		}
	}
}

func TestFirstDoesNotAllocate(t *testing.T) {
	for _, d := range dialects(all) {
		for _, text := range []string{
			"SELECT a, count(*) FROM t WHERE b = 'x' AND c IN (1, 2) ORDER BY d LIMIT 10",
			"UPDATE accounts SET balance = balance - $1 WHERE id = $2",
			"SAVEPOINT sp1",
		} {
			if n := testing.AllocsPerRun(100, func() { First(d, text) }); n != 0 {
				t.Errorf("%v: %q: %v allocations", d, text, n)
			}
		}
	}
}

func BenchmarkFirst(b *testing.B) {
	for _, d := range dialects(all) {
		b.Run(d.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				First(d, "SELECT a.id, a.name, count(*) FROM accounts a JOIN owners o ON o.id = a.owner WHERE a.balance > 10 AND o.kind IN ('x', 'y') GROUP BY a.id, a.name")
			}
		})
	}
}
