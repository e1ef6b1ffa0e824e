package pgrm

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/troth-tx/troth"
)

// serverError is an error as pgx and lib/pq have them.
type serverError struct{ code, text string }

func (e *serverError) Error() string    { return e.text }
func (e *serverError) SQLState() string { return e.code }

// definite are the classes of SQLSTATE that prove a refusal, written down once
// more: a class that is added by mistake fails here (R10).
const definite = " 09 0A 20 21 22 23 24 25 26 27 2B 2F 34 38 39 3B 3D 3F 40 42 44 53 54 55 P0 "

// FuzzRefused: what is not known for certain is ambiguous (R10). Only the server's
// code counts, never a text, and wrapping hides nothing.
func FuzzRefused(f *testing.F) {
	for _, code := range []string{
		"42704", "55000", "0A000", "25006", "40001", "40003", "40P01", "57014", "57P01", "25P03", "25P02",
		"53200", "53100", "58030", "XX000", "08006", "08P01", "00000", "2D000", "", "5320", "42", "23505",
	} {
		f.Add(code, "ERROR: duplicate key (SQLSTATE 23505)")
	}
	f.Fuzz(func(t *testing.T, code, text string) {
		err := &serverError{code, text}
		want := len(code) == 5 && strings.Contains(definite, " "+code[:2]+" ") && code != "40003" && code != "25P03" || code == "57014"
		if got := refused(err); got != want {
			t.Errorf("refused(%q, %q) = %v", code, text, got)
		}
		if refused(fmt.Errorf("prepare: %w", err)) != want {
			t.Errorf("%q: wrapped, it is another class", code)
		}
		if refused(errors.New(text)) || transient(errors.New(text)) {
			t.Errorf("the text %q is taken for the server's answer", text)
		}
		if transient(err) && !refused(err) {
			t.Errorf("%q: a retry is said to help although it may have happened", code)
		}
		if h := hint(err); h != "" && SQLState(err) == "" {
			t.Errorf("hint %q about an error that is not the server's", h)
		}
		b := branchError("athos", "prepare", "x", err)
		if !errors.Is(b, error(err)) || branchError("athos", "other", "", fmt.Errorf("again: %w", b)) != b {
			t.Errorf("%q: the driver's error is lost, or wrapped twice", code)
		}
	})
}

// FuzzStatements: the text of each statement of the protocol is one quoted name
// behind fixed words, or there is none: what could end the quotes panics.
func FuzzStatements(f *testing.F) {
	f.Add("bank.01jgq8x0000000000000000000", "athos", "0123abcd", 1, "")
	f.Add("bank.x", "a'; DROP TABLE account; --", "0123abcd", 1, `\`)
	f.Fuzz(func(t *testing.T, gid, resource, identity string, branch int, session string) {
		xid := troth.XID{GID: troth.GID(gid), Place: troth.Place{Resource: resource, Identity: identity}, Branch: branch, Session: session}
		name := xid.String()
		hostile := strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == '\'' || r == '\\' })
		for _, c := range []struct {
			words string
			text  func(troth.XID) string
		}{
			{"PREPARE TRANSACTION ", prepareSQL},
			{"COMMIT PREPARED ", commitPreparedSQL},
			{"ROLLBACK PREPARED ", rollbackPreparedSQL},
			{"SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid = ", listedSQL},
		} {
			text, panicked := attempt(func() string { return c.text(xid) })
			if panicked != hostile || !panicked && text != c.words+"'"+name+"'" {
				t.Errorf("%q: panic %v, text %q", name, panicked, text)
			}
		}
		if _, err := troth.ParseXID(name); err == nil && hostile {
			t.Errorf("%q is taken for ours and cannot be quoted", name)
		}
	})
}

func attempt(f func() string) (text string, panicked bool) {
	defer func() { panicked = recover() != nil }()
	return f(), false
}

// FuzzEvidence: evidence is read as it was written, fits into a decision's record,
// and names a transaction by a number, whoever wrote it.
func FuzzEvidence(f *testing.F) {
	f.Add(uint64(731), "6a1f0c55d2b3e4f5", "731-6a1f")
	f.Add(^uint64(0), "", "731'::xid8); DROP TABLE t; --")
	f.Fuzz(func(t *testing.T, xact uint64, system, text string) {
		number := fmt.Sprint(xact)
		got, of, ok := parseEvidence(evidence(number, system))
		if !ok || got != number || of != system {
			t.Errorf("%s on %q is read as %q on %q, %v", number, system, got, of, ok)
		}
		written := evidence(number, fmt.Sprintf("%x", ^xact))
		if _, err := troth.ParseBranches("athos.1=" + written); err != nil {
			t.Errorf("%q does not fit into a record: %v", written, err)
		}
		if got, _, ok := parseEvidence(text); ok && (got == "" || strings.Trim(got, "0123456789") != "") {
			t.Errorf("%q names the transaction %q", text, got)
		}
	})
}
