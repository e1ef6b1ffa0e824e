package wireproxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/wireproxy"
)

// native opens a connection of pgx itself, which can send statements ahead.
func native(t *testing.T) (*world, *pgx.Conn) {
	t.Helper()
	w := newWorld(t, clients["pgx extended"])
	var name string
	if err := w.direct.QueryRowContext(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	server := dbtest.SharedPostgres(t, 0)
	conn, err := pgx.Connect(t.Context(), strings.Replace(server.DSN(name), server.Addr(), w.proxy.Addr(), 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return w, conn
}

// Of three statements sent ahead under one Sync, a rule acts on the second: the
// answers to those before arrive, and the server commits all or none.
func TestOneStatementOfABatch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		action   wireproxy.Action
		executed bool
	}{{wireproxy.CutBefore, false}, {wireproxy.CutAfter, true}} {
		t.Run(test.action.String(), func(t *testing.T) {
			t.Parallel()
			w, conn := native(t)
			armed := w.proxy.Add(wireproxy.Rule{Match: insert, Nth: 2, Action: test.action})
			var batch pgx.Batch
			for i := range 3 {
				batch.Queue("INSERT INTO item VALUES ($1)", i)
			}
			results := conn.SendBatch(t.Context(), &batch)
			var errs [3]error
			for i := range errs {
				_, errs[i] = results.Exec()
			}
			_ = results.Close()
			if (errs[0] == nil) != test.executed || errs[1] == nil || errs[2] == nil {
				t.Errorf("the client was told %v", errs)
			}
			await(t, "the cut", armed.Done())
			w.awaitSessions(t, 0)
			for i := range 3 {
				if got := w.has(t, i); got != test.executed {
					t.Errorf("the server committed statement %d: %v, want %v", i, got, test.executed)
				}
			}
		})
	}
}

// A client that asks for answers with Flush, and sends no Sync yet, gets those
// before the rule's statement, and the rule sees that statement's.
func TestFlushedPipeline(t *testing.T) {
	t.Parallel()
	w, conn := native(t)
	armed := w.proxy.Add(wireproxy.Rule{Match: insert, Nth: 2, Action: wireproxy.HoldAfter})
	p := conn.PgConn().StartPipeline(t.Context())
	for i := range 2 {
		p.SendQueryParams(fmt.Sprintf("INSERT INTO item VALUES (%d)", i), nil, nil, nil, nil)
	}
	p.SendFlushRequest()
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	next := func() error {
		r, err := p.GetResults()
		if err != nil {
			return err
		}
		_, err = r.(*pgconn.ResultReader).Close()
		return err
	}
	if err := next(); err != nil {
		t.Fatalf("the first: %v", err)
	}
	await(t, "the answer to the second", armed.Done())
	if armed.Answered() != 1 || w.has(t, 1) {
		t.Errorf("%d answered; committed without a Sync: %v", armed.Answered(), w.has(t, 1))
	}
	armed.Release()
	if err := next(); err != nil {
		t.Fatalf("the second: %v", err)
	}
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil { // reads up to the answer to the Sync
		t.Fatal(err)
	}
	if !w.has(t, 0) || !w.has(t, 1) {
		t.Error("not committed after the Sync")
	}
}

// An error makes the server skip to the Sync: what comes behind it is never
// answered, and must not shift the answers of the next batch.
func TestErrorInABatch(t *testing.T) {
	t.Parallel()
	w, conn := native(t)
	for round := range 3 {
		var batch pgx.Batch
		batch.Queue("INSERT INTO item VALUES ($1)", 1000)
		batch.Queue("INSERT INTO item VALUES ($1)", 1000) // a duplicate
		batch.Queue("INSERT INTO item VALUES ($1)", 1001)
		if err := conn.SendBatch(t.Context(), &batch).Close(); err == nil {
			t.Fatal("a duplicate key passed")
		}
		if _, err := conn.Exec(t.Context(), "INSERT INTO item VALUES ($1)", round); err != nil {
			t.Fatal(err)
		}
	}
	armed := w.proxy.Add(wireproxy.Rule{Match: insert, Nth: 2, Action: wireproxy.CutAfter})
	if _, err := conn.Exec(t.Context(), "INSERT INTO item VALUES ($1)", 10); err != nil {
		t.Fatalf("the statement before the rule's: %v", err)
	}
	if _, err := conn.Exec(t.Context(), "INSERT INTO item VALUES ($1)", 11); err == nil {
		t.Error("the answer arrived")
	}
	await(t, "the cut", armed.Done())
	if armed.Answered() != 1 || !w.has(t, 11) || w.has(t, 1001) {
		t.Errorf("%d answered; the last is there: %v; the one behind the error: %v", armed.Answered(), w.has(t, 11), w.has(t, 1001))
	}
}

// A rule acts Times in a row and then no more; the one added first goes first.
func TestTimesAndOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, clients["mysql text"])
	first := w.proxy.Add(wireproxy.Rule{Match: insert, Nth: 2, Times: 2, Action: wireproxy.CutAfter})
	second := w.proxy.Add(wireproxy.Rule{Match: "INTO item", Nth: 2, Action: wireproxy.CutBefore})
	var told, there []bool
	for i := range 5 {
		told = append(told, w.insert(t.Context(), i) == nil)
		w.awaitSessions(t, map[bool]int{true: 1}[told[i]])
		there = append(there, w.has(t, i))
	}
	if got, want := fmt.Sprint(told, there), "[true false false false true] [true true true false true]"; got != want {
		t.Errorf("told and there: %s, want %s", got, want)
	}
	if first.Acted() != 2 || first.Answered() != 2 || second.Acted() != 1 || second.Matches() != 2 {
		t.Errorf("the first acted %d times, the second %d times on %d matches", first.Acted(), second.Acted(), second.Matches())
	}
	never := w.proxy.Add(wireproxy.Rule{Match: "no such text", Action: wireproxy.Reset})
	never.Remove()
	select {
	case <-never.Done():
		t.Error("a rule that never matched has acted")
	case <-time.After(0):
	}
}
