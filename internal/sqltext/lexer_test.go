package sqltext

import (
	"slices"
	"strings"
	"testing"
)

// Each text stands at an edge of the lexer, where one byte more or less, or one
// condition more, would split it elsewhere or take it for something else.
func TestEdges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dialect Dialect
		text    string
		want    []Kind
	}{
		// Words.
		{all, "ROLLBACK x TO y", []Kind{TransactionControl}},
		{all, "WITH x AS (SELECT 1) SELECT x.update FROM x", []Kind{Read}},
		{all, "WITH x AS (SELECT 1) MERGE t USING x", []Kind{Write}},
		{all, "WITH x AS (SELECT 1) REPLACE t SELECT * FROM x", []Kind{Write}},
		{all, "SELECT value FROM t WHERE value = 1", []Kind{Read}},
		{Postgres, "SELECT next value FROM t", []Kind{Read}},
		{MySQL, "SELECT NEXT VALUE FOR s", []Kind{Write}},
		{MySQL, "set @a = (1)", []Kind{Setting}},
		{MySQL, "set @a = `f`(1)", []Kind{Write}},

		// Bodies.
		{Postgres, "create or replace function f() begin atomic select 1; select 2; end; commit", []Kind{Write, TransactionControl}},
		{SQLite, "create temporary trigger x after insert on t begin delete from t; end; commit", []Kind{Write, TransactionControl}},
		{SQLite, "create table trigger (a); commit", []Kind{Write, TransactionControl}},

		// Strings.
		{SQLite, `select e'\'; commit`, []Kind{Read, TransactionControl}},
		{Postgres, `select n'\'; commit`, []Kind{Read, TransactionControl}},
		{Postgres, `select be'\'; commit`, []Kind{Read, TransactionControl}},

		// Comments.
		{all, "select (-1); commit", []Kind{Read, TransactionControl}},
		{all, "select 1 -", []Kind{Read}},
		{all, "select 1 /", []Kind{Read}},
		{all, "select 2*/*;*/3; commit", []Kind{Read, TransactionControl}},
		{MySQL, "/*! select *';' */; commit", []Kind{Read, TransactionControl}},
		{MySQL, "/*! select */ 'open", []Kind{Write}},
		{MySQL, "/*! select 'open", []Kind{TransactionControl}},
	} {
		for _, d := range dialects(c.dialect) {
			var got []Kind
			for st := range Statements(d, c.text) {
				got = append(got, st.Kind)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v: %q: %v, want %v", d, c.text, got, c.want)
			}
		}
	}
}

// PostgreSQL keeps 63 bytes of a name, and no half of a character.
func TestSavepointNamesAreCut(t *testing.T) {
	t.Parallel()
	a62 := strings.Repeat("a", 62)
	for _, c := range []struct {
		dialect Dialect
		name    string
		want    string
	}{
		{all, "a0", "a0"},
		{all, "a9", "a9"},
		{all, "Z", "z"},
		{all, "AZ", "az"},
		{Postgres, "À", "À"}, // its second byte is 0x80
		{MySQL, "/*!40000 ab*/", "ab"},
		{Postgres, a62 + "b", a62 + "b"},
		{Postgres, a62 + "bc", a62 + "b"},
		{Postgres, a62 + "ü", a62},
		{Postgres, strings.Repeat("\x80", 70), ""},
		{SQLite, a62 + "bc", a62 + "bc"},
	} {
		for _, d := range dialects(c.dialect) {
			st, _ := First(d, "SAVEPOINT "+c.name)
			if st.Kind != Savepoint || st.Name != c.want {
				t.Errorf("%v: %q is %v %q, want %q", d, c.name, st.Kind, st.Name, c.want)
			}
		}
	}
}
