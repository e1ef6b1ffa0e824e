package mysql

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/troth-tx/troth"
)

var anyLiteral = regexp.MustCompile(`^X'([0-9a-f]*)',X'([0-9a-f]*)',1414680404$`)

// FuzzXIDLiteral: whatever is in an XID, the literal is one literal (S1), and says
// what was in it.
func FuzzXIDLiteral(f *testing.F) {
	f.Add("a.b", "x'; DROP TABLE t; --", "\x00\xff", 1)
	f.Fuzz(func(t *testing.T, gid, resource, identity string, branch int) {
		x := troth.XID{GID: troth.GID(gid), Place: troth.Place{Resource: resource, Identity: identity}, Branch: branch}
		m := anyLiteral.FindStringSubmatch(xidLiteral(x))
		if m == nil {
			t.Fatalf("%q", xidLiteral(x))
		}
		if m[1] != hex.EncodeToString([]byte(x.GTRID())) || m[2] != hex.EncodeToString([]byte(x.BQUAL())) {
			t.Errorf("%q says something else than %+v", xidLiteral(x), x)
		}
	})
}

// FuzzListing: a row of XA RECOVER, whatever a server writes into it, is an error
// or a branch whose name can be printed and sent back; only what is ours to the
// byte is ours (R7).
func FuzzListing(f *testing.F) {
	x := newXID()
	x.Session = thread{17, 1700000000}.session()
	f.Add(int64(troth.FormatID), len(x.GTRID()), len(x.BQUAL()), []byte(x.GTRID()+x.BQUAL()))
	f.Add(int64(7), 4, 2, []byte("a'b\\\x00\xff"))
	f.Add(int64(1), math.MaxInt, 1, []byte("x"))
	f.Add(int64(1), 1, math.MaxInt, []byte("x"))
	f.Fuzz(func(t *testing.T, format int64, gtridSize, bqualSize int, data []byte) {
		p, err := listed(format, gtridSize, bqualSize, data)
		if err != nil {
			if gtridSize >= 0 && bqualSize >= 0 && gtridSize <= len(data) && bqualSize <= len(data)-gtridSize {
				t.Errorf("%d and %d of %d bytes: %v", gtridSize, bqualSize, len(data), err)
			}
			return
		}
		gtrid, bqual := data[:gtridSize], data[gtridSize:][:bqualSize]
		if p.Ours && (format != int64(troth.FormatID) || p.XID.GTRID() != string(gtrid) || p.XID.BQUAL() != string(bqual)) {
			t.Errorf("taken for ours: %d %q %q", format, gtrid, bqual)
		}
		for i, c := range []byte(p.Native) {
			if c < ' ' || c > '~' || c == '\\' {
				t.Fatalf("byte %d of %q cannot be printed", i, p.Native)
			}
		}
		g, b, n := readNative(t, p.Native)
		if !bytes.Equal(g, gtrid) || !bytes.Equal(b, bqual) || n != format {
			t.Errorf("%q names %q, %q, %d; want %q, %q, %d", p.Native, g, b, n, gtrid, bqual, format)
		}
		if holder := holderOf(p.Native); p.Ours {
			if want, ok := parseSession(p.XID.Session); ok && holder != want {
				t.Errorf("%q is held by %+v, want %+v", p.Native, holder, want)
			}
		} else if holder != (thread{}) && format == int64(troth.FormatID) {
			t.Errorf("%q is not ours and held by %+v", p.Native, holder)
		}
	})
}

var nativeForm = regexp.MustCompile(`^(X?)'([^']*)',(X?)'([^']*)',(-?[0-9]+)$`)

// readNative reads a name as the server's parser would.
func readNative(t *testing.T, s string) (gtrid, bqual []byte, format int64) {
	t.Helper()
	m := nativeForm.FindStringSubmatch(s)
	if m == nil {
		t.Fatalf("%q is not a name in XA statements", s)
	}
	part := func(x, text string) []byte {
		if x == "" {
			return []byte(text)
		}
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return b
	}
	format, err := strconv.ParseInt(m[5], 10, 64)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return part(m[1], m[2]), part(m[3], m[4]), format
}

// FuzzEvidence: evidence and sessions are read as they were written, and nothing
// else is taken for them.
func FuzzEvidence(f *testing.F) {
	f.Add(uint64(17), int64(1700000000), uint32(7), "17-1700000000-00000007")
	f.Add(uint64(math.MaxUint64), int64(math.MinInt64), uint32(math.MaxUint32), "1p-t3b0x2")
	f.Add(uint64(0), int64(0), uint32(0), "0017-1-0x000007")
	f.Fuzz(func(t *testing.T, id uint64, boot int64, schema uint32, text string) {
		e := evidence{thread{id, boot}, schema}
		if back, ok := parseEvidence(e.String()); !ok || back != e {
			t.Errorf("%q is read as %+v, %v; want %+v", e, back, ok, e)
		}
		if back, ok := parseSession(e.thread.session()); !ok || back != e.thread {
			t.Errorf("%q is read as %+v, %v", e.thread.session(), back, ok)
		}
		if got, ok := parseEvidence(text); ok && got.String() != text {
			t.Errorf("%q is taken for %+v", text, got)
		}
		if got, ok := parseSession(text); ok && got.session() != text {
			t.Errorf("%q is taken for %+v", text, got)
		}
		if boot < 0 || boot > 1<<36 { // the year 4147
			return
		}
		x := newXID()
		x.Session = e.thread.session()
		if back, err := troth.ParseXID(x.String()); err != nil || back != x {
			t.Errorf("%s is read as %+v, %v", x, back, err)
		}
		if _, err := troth.ParseBranches("porthos.1=" + e.String()); err != nil {
			t.Errorf("%q does not fit into a record: %v", e, err)
		}
	})
}

// again are the errors after which the same transaction may succeed, written down
// once more: each is a rollback of the statement or of the transaction.
var again = []uint16{1020, 1205, 1213, 1613, 1614, 3572}

// FuzzServerCode: only an answer of the server is one, whatever a text says, and
// an error that nobody knows is none that a retry helps (R10).
func FuzzServerCode(f *testing.F) {
	for _, n := range append(again, 0, 1062, 1094, 1095, 1290, 1397, 1400, 1401, 1402, 1440, 2006) {
		f.Add(n, "Error 1213: Deadlock found when trying to get lock")
	}
	f.Fuzz(func(t *testing.T, number uint16, text string) {
		err := error(&mysql.MySQLError{Number: number, Message: text})
		for range 2 {
			if serverCode(err) != number || transient(err) != slices.Contains(again, number) {
				t.Errorf("%v: code %d, transient %v", err, serverCode(err), transient(err))
			}
			if isCode(err, number) != (number != 0) || isCode(err, number+1) && number != 0 {
				t.Errorf("%v: taken for another code", err)
			}
			if hinted(hinted(err)).Error() != hinted(err).Error() {
				t.Errorf("%v: its hint is given twice", err)
			}
			err = fmt.Errorf("commit: %w", err)
		}
		if other := errors.New(text); serverCode(other) != 0 || isCode(other, 0) || transient(other) || hint(other) != "" {
			t.Errorf("the text %q is taken for the server's answer", text)
		}
		b := new(Resource).branchError("commit", troth.XID{}, err)
		if !errors.Is(b, err) || !errors.Is(new(Resource).branchError("again", troth.XID{}, b), b) {
			t.Errorf("%v: the driver's error is lost", err)
		}
	})
}

var (
	quotedForm = regexp.MustCompile(`^'[a-z0-9._~@-]*'$`)
	nameForm   = regexp.MustCompile("(?s)^`([^`]|``)*`$")
)

// FuzzQuoted: a value stands in SQL as one literal, a name as one name, or not at
// all.
func FuzzQuoted(f *testing.F) {
	f.Add("bank.0123~@_-")
	f.Add("a`b'; -- \\")
	f.Fuzz(func(t *testing.T, s string) {
		text, ok := attempt(func() string { return quoted(s) })
		if ok && (text != "'"+s+"'" || !quotedForm.MatchString(text)) {
			t.Errorf("%q became %q", s, text)
		}
		name := quotedName(s)
		if !nameForm.MatchString(name) || len(name) != len(s)+2+bytes.Count([]byte(s), []byte("`")) {
			t.Errorf("%q became %q", s, name)
		}
	})
}

func attempt(f func() string) (text string, ok bool) {
	defer func() { ok = recover() == nil }()
	return f(), true
}
