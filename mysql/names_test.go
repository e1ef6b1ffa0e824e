package mysql

import (
	"database/sql"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
)

var literalForm = regexp.MustCompile(`^X'([0-9a-f]{2,128})',X'([0-9a-f]{2,128})',1414680404$`)

func TestXIDLiteral(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("z", 24)
	for _, x := range []troth.XID{
		newXID(),
		{GID: troth.NewGID(long, time.Now()), Place: troth.Place{Resource: long, Identity: "0123abcd"}, Branch: 999},
	} {
		m := literalForm.FindStringSubmatch(xidLiteral(x))
		if m == nil {
			t.Fatalf("%s", xidLiteral(x))
		}
		gtrid, _ := hex.DecodeString(m[1])
		bqual, _ := hex.DecodeString(m[2])
		back, err := troth.ParseXA(troth.FormatID, string(gtrid), string(bqual))
		if err != nil || back != x {
			t.Fatalf("%v comes back as %v, %v", x, back, err)
		}
	}
}

func TestQuotedRefusesWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"a'b", "a\\b", "A", "a b", "a\x00", "ä"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was let through", s)
				}
			}()
			_ = quoted(s)
		}()
	}
}

func TestEvidence(t *testing.T) {
	t.Parallel()
	e := evidence{thread{1<<32 - 1, 4102444800}, schemaHash("shop")}
	s := e.String()
	if _, err := troth.ParseBranches("porthos.1=" + s); err != nil {
		t.Fatalf("%q is not fit for a record: %v", s, err)
	}
	if back, ok := parseEvidence(s); !ok || back != e {
		t.Fatalf("%q comes back as %+v, %v", s, back, ok)
	}
	for _, bad := range []string{"", "1", "1-2", s + "x", "x" + s, "1-2-zz", "-1-2-00000000", "1-2-0", " " + s} {
		if e, ok := parseEvidence(bad); ok {
			t.Errorf("%q is read as %+v", bad, e)
		}
	}
}

// A physical session is asked for its id once, not once for each transaction.
func TestSessionIsLearnedOnce(t *testing.T) {
	eachKind(t, func(w *world) {
		status := func(b *testBranch) (n int) {
			// Asked in the branch: its own session's counter, by the branch's last statement.
			w.must(b.db.QueryRowContext(w.ctx, "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Questions'").Scan(&n))
			return n
		}
		r, _ := w.resource("porthos", w.dsn, true, func(pool *sql.DB) { pool.SetMaxOpenConns(1) })
		round := func() int {
			b := w.begin(r)
			w.must(b.add(w.ctx, 1))
			n := status(b)
			w.mustPrepare(b)
			w.must(b.Commit(w.ctx))
			return n
		}
		round()
		second, third, fourth := round(), round(), round()
		if third-second != fourth-third {
			w.Fatalf("transactions cost %d and %d statements", third-second, fourth-third)
		}
		// XA START, update, the question, witness, XA END, XA PREPARE, XA COMMIT. Without
		// interpolation an argument costs a prepare and a close more.
		if limit := map[bool]int{true: 9, false: 7}[w.params == ""]; third-second > limit {
			w.Fatalf("a transaction costs %d statements, want %d", third-second, limit)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	m := newMemory()
	for range flightsMax + 10 {
		m.takeOff(newXID(), thread{id: 1})
	}
	if len(m.flights) > flightsMax {
		t.Fatalf("%d flights are remembered", len(m.flights))
	}
	x := newXID()
	m.takeOff(x, thread{id: 7})
	if got, ok := m.flight(x); !ok || got.id != 7 {
		t.Fatalf("the newest is forgotten: %v, %v", got, ok)
	}
	m.land(x)
	if _, ok := m.flight(x); ok {
		t.Fatal("remembered after its end")
	}
}
