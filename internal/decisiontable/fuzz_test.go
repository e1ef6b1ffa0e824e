package decisiontable

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/sqltext"
)

// openedTable is a Table as Open leaves it, without a database.
func openedTable(kind Dialect) *Table {
	table := New(kind, nil, Options{})
	q := table.dialect.identifier
	table.names.Store(&names{domain: "bank", schema: "s", decision: q("s") + "." + q(decisionTable), meta: q("s") + "." + q(metaTable)})
	return table
}

// FuzzInsertSQL: a decision is one INSERT in which the values of the record are
// literals as they are, and the rest is the same for every decision; or it is
// refused, because something in it is not of our alphabets.
func FuzzInsertSQL(f *testing.F) {
	gid := string(troth.NewGID("bank", time.UnixMilli(1700000000000)))
	f.Add(gid, uint8(troth.Committed), "athos", 1, "731-6a1f")
	f.Add(gid, uint8(troth.Aborted), "porthos", 999, "")
	f.Add(gid, uint8(troth.Undecided), "porthos", 1, "")
	f.Add("bank.'; DROP TABLE account; --", uint8(troth.Committed), "a'", 0, `\`)
	f.Fuzz(func(t *testing.T, gid string, outcome uint8, resource string, branch int, evidence string) {
		d := troth.Decision{GID: troth.GID(gid), Outcome: troth.Outcome(outcome), Branches: []troth.BranchRecord{{Resource: resource, Branch: branch, Evidence: evidence}}}
		branches := troth.EncodeBranches(d.Branches)
		_, badGID := troth.ParseGID(gid)
		_, badBranches := troth.ParseBranches(branches)
		stored := map[troth.Outcome]string{troth.Committed: "commit", troth.Aborted: "abort"}[d.Outcome]
		bad := badGID != nil || badBranches != nil || stored == ""
		for _, kind := range []Dialect{Postgres, MySQL, SQLite} {
			table := openedTable(kind)
			text, panicked := attempt(func() string { return table.InsertSQL(d) })
			if panicked != bad {
				t.Fatalf("%v: %+v: panic %v, want %v", kind, d, panicked, bad)
			}
			if panicked {
				continue
			}
			values := "'" + gid + "', '" + stored + "', '" + branches + "'"
			other := table.InsertSQL(troth.Decision{GID: "bank.01jgq8x0000000000000000000", Outcome: troth.Aborted})
			if strings.Replace(text, values, "'bank.01jgq8x0000000000000000000', 'abort', ''", 1) != other {
				t.Errorf("%v: %s\nis more than its values\n%s", kind, text, other)
			}
			if st, rest := sqltext.First(kind, text); st.Kind != sqltext.Write || rest != "" {
				t.Errorf("%v: %s\nis %v, with %q behind it", kind, text, st.Kind, rest)
			}
		}
	})
}

func attempt(f func() string) (text string, panicked bool) {
	defer func() { panicked = recover() != nil }()
	return f(), false
}

// Errors of drivers, by shape.
type (
	stateError  struct{ state, text string }
	numberError struct {
		Number uint16
		text   string
	}
	codeError struct {
		code int
		text string
	}
)

func (e *stateError) Error() string    { return e.text }
func (e *stateError) SQLState() string { return e.state }
func (e *numberError) Error() string   { return e.text }
func (e *codeError) Error() string     { return e.text }
func (e *codeError) Code() int         { return e.code }

// FuzzErrors: an error is one of the few that mean something only by the code of
// its own database, never by its text; and what says that the decision is there
// says nothing else.
func FuzzErrors(f *testing.F) {
	f.Add("23505", uint16(1062), 1555, "duplicate key")
	f.Add("40001", uint16(1213), 517, "UNIQUE constraint failed")
	f.Add("40P01", uint16(1020), 5, "database is locked")
	f.Add("42501", uint16(1142), 8|4<<8, "")
	f.Add("08006", uint16(0), 2067, "Error 1062 (23000): Duplicate entry")
	f.Fuzz(func(t *testing.T, state string, number uint16, code int, text string) {
		own := map[Dialect]error{
			Postgres: &stateError{state, text}, MySQL: &numberError{number, text}, SQLite: &codeError{code, text},
		}
		exists := map[Dialect]bool{
			Postgres: state == "23505", MySQL: number == 1062, SQLite: code == 1555 || code == 2067,
		}
		for _, kind := range []Dialect{Postgres, MySQL, SQLite} {
			d := openedTable(kind).dialect
			for of, err := range own {
				for _, err := range []error{err, fmt.Errorf("insert: %w", err)} {
					if got := d.exists(err); got != (of == kind && exists[kind]) {
						t.Errorf("%v: exists(%#v) = %v", kind, err, got)
					}
					if of != kind && (d.again(err) || d.busy(err) || d.denied(err) || d.created(err)) {
						t.Errorf("%v: %#v of %v means something", kind, err, of)
					}
					if d.exists(err) && (d.again(err) || d.busy(err) || d.denied(err)) {
						t.Errorf("%v: %#v means two things", kind, err)
					}
				}
			}
			if err := errors.New(text); d.exists(err) || d.again(err) || d.busy(err) || d.denied(err) || d.created(err) {
				t.Errorf("%v: the text %q means something", kind, text)
			}
		}
	})
}
