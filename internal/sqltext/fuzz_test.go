package sqltext

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

var fuzzTexts = []string{
	"", ";", "select 1; commit", "select E'\\'' '", "$a$ $a$", "/*! x */ commit", "/* /* */", "savepoint \"\"", "set @@autocommit=1",
	"create trigger a begin; end;", "create function f begin atomic; end;", "rollback to ''", "savepoint [", "with x as (", "analyze select",
	"/*M!100100 set */ autocommit = 0 -- \n;x", "E'\\\n' -- '\n'\\", "SET STATEMENT a=(1) FOR commit", "create rule r do (a; b)", "\ufeffend",
}

// FuzzStatements: the statements of a text make up the text, and each alone is
// what it was among the others, which is how a driver may send them.
func FuzzStatements(f *testing.F) {
	for _, text := range fuzzTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, d := range dialects(all) {
			all := slices.Collect(Statements(d, text))
			var b strings.Builder
			for _, st := range all {
				if st.Text == "" || st.Kind < Empty || st.Kind > Setting {
					t.Fatalf("%v: %q: bad statement %+v", d, text, st)
				}
				if st.Name != "" && st.Kind != Savepoint && st.Kind != RollbackTo && st.Kind != Release {
					t.Errorf("%v: %q: a %v has the name %q", d, text, st.Kind, st.Name)
				}
				b.WriteString(st.Text)
			}
			if b.String() != text {
				t.Fatalf("%v: %q came back as %q", d, text, b.String())
			}
			for _, st := range all {
				if again, rest := First(d, st.Text); rest != "" || again != st {
					t.Errorf("%v: %q alone is %+v and %q", d, st.Text, again, rest)
				}
			}
		}
	})
}

// literals writes a value in every way in which a dialect takes it as one literal
// or name.
func literals(d Dialect, value string) []string {
	double := func(quote string) string {
		return quote + strings.ReplaceAll(value, quote, quote+quote) + quote
	}
	escaped := func(quote string) string {
		return quote + strings.NewReplacer(`\`, `\\`, quote, `\`+quote).Replace(value) + quote
	}
	switch d {
	case Postgres:
		out := []string{double("'"), double(`"`), "E" + escaped("'")}
		if tag := "$troth$"; strings.Index(value+tag, tag) == len(value) {
			out = append(out, tag+value+tag)
		}
		return out
	case MySQL:
		return []string{escaped("'"), escaped(`"`), double("`")}
	case SQLite:
		out := []string{double("'"), double(`"`), double("`")}
		if !strings.Contains(value, "]") {
			out = append(out, "["+value+"]")
		}
		return out
	}
	return nil
}

// FuzzQuoted: what is quoted is neither a statement nor a word, and does not hide
// what follows it.
func FuzzQuoted(f *testing.F) {
	for _, text := range fuzzTexts {
		f.Add(text)
	}
	f.Add(`\'; commit; --`)
	f.Add("$troth; commit")
	f.Fuzz(func(t *testing.T, value string) {
		for _, d := range dialects(all) {
			for _, literal := range literals(d, value) {
				text := "SELECT " + literal + " ; COMMIT;UPDATE " + literal + " SET a = " + literal
				var kinds []Kind
				for st := range Statements(d, text) {
					kinds = append(kinds, st.Kind)
				}
				if !slices.Equal(kinds, []Kind{Read, TransactionControl, Write}) {
					t.Errorf("%v: %q is %v", d, text, kinds)
				}
			}
		}
	})
}

// FuzzSavepointName: a quoted savepoint has the name that was quoted.
func FuzzSavepointName(f *testing.F) {
	f.Add("sp1")
	f.Add("a\"b`c]d'e")
	f.Add(strings.Repeat("ü", 40))
	f.Fuzz(func(t *testing.T, value string) {
		if value == "" || !utf8.ValidString(value) {
			return
		}
		want := map[Dialect]string{Postgres: truncate(value), MySQL: strings.ToLower(value), SQLite: lower(value)}
		quote := map[Dialect]string{Postgres: `"`, MySQL: "`", SQLite: `"`}
		for _, d := range dialects(all) {
			name := quote[d] + strings.ReplaceAll(value, quote[d], quote[d]+quote[d]) + quote[d]
			for kind, verb := range []string{Savepoint: "SAVEPOINT ", RollbackTo: "ROLLBACK TO ", Release: "RELEASE SAVEPOINT "} {
				if verb == "" {
					continue
				}
				if st, rest := First(d, verb+name); st.Kind != Kind(kind) || st.Name != want[d] || rest != "" {
					t.Errorf("%v: %s%s is %+v, rest %q", d, verb, name, st, rest)
				}
			}
		}
	})
}

// FuzzCommented: a comment in front of a statement, or at its end, changes
// nothing, whatever is in it.
func FuzzCommented(f *testing.F) {
	for _, text := range fuzzTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, value string) {
		value = strings.NewReplacer("*/", "", "/*", "", "\n", "", "\r", "").Replace(value)
		if strings.Contains(value, "*/") || strings.Contains(value, "/*") {
			return
		}
		for _, d := range dialects(all) {
			for _, comment := range []string{"/* " + value + " */", "-- " + value + "\n"} {
				for kind, text := range []string{TransactionControl: "COMMIT", Read: "SELECT 1", Write: "DELETE FROM t", Savepoint: "SAVEPOINT a"} {
					if text == "" {
						continue
					}
					for _, commented := range []string{comment + text, text + " " + comment, strings.Replace(text, " ", comment, 1)} {
						if st, rest := First(d, commented); st.Kind != Kind(kind) || rest != "" {
							t.Errorf("%v: %q is %v, rest %q", d, commented, st.Kind, rest)
						}
					}
				}
			}
		}
	})
}
