package decisiontable

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
)

func mustExpire(t *testing.T, table *Table, age time.Duration, want int) {
	t.Helper()
	if n, err := table.Expire(t.Context(), age); err != nil || n != want {
		t.Fatalf("Expire(%v) = %d, %v, want %d", age, n, err, want)
	}
}

// meta reads a value behind the Table's back.
func meta(t *testing.T, db *sql.DB, name string) string {
	t.Helper()
	var value string
	if err := db.QueryRowContext(t.Context(), "SELECT value FROM troth_meta WHERE name = '"+name+"'").Scan(&value); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

// F3: the abort record stays until the floor has settled, however often Expire
// runs; the floor refuses at once.
func TestFloorSettlesFirst(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		table := openTable(t, e, db, Options{Floor: true}) // an hour
		zombie := troth.NewGID("bank", time.Now().Add(-3*time.Hour))
		mustDecide(t, table, abort(zombie), troth.Aborted)
		back := func(d string) { // lets time pass for the row and for the floor
			created := map[Dialect]string{
				Postgres: "created_at - interval '" + d + " minutes'",
				MySQL:    "created_at - INTERVAL " + d + " MINUTE",
				SQLite:   "created_at - " + d + " * 60000000",
			}[e.kind]
			raised := map[Dialect]string{
				Postgres: "(value::bigint - " + d + " * 60000000::bigint)::text",
				MySQL:    "CAST(CAST(value AS SIGNED) - " + d + " * 60000000 AS CHAR)",
				SQLite:   "CAST(value - " + d + " * 60000000 AS TEXT)",
			}[e.kind]
			mustExec(t, db, "UPDATE troth_decision SET created_at = "+created,
				"UPDATE troth_meta SET value = "+raised+" WHERE name = 'floor-raised.bank' AND value <> '0'")
		}
		back("125")
		mustExpire(t, table, 2*time.Hour, 0) // raises the floor
		first := meta(t, db, "floor.bank")
		if at := troth.GID(first).Time(); time.Since(at).Round(time.Minute) != 2*time.Hour {
			t.Errorf("the floor is at %v, want two hours ago", at)
		}
		late := troth.NewGID("bank", time.Now().Add(-150*time.Minute))
		mustDecide(t, table, commit(late), troth.Aborted)
		mustExpire(t, table, 2*time.Hour, 0)
		back("59")
		mustExpire(t, table, 2*time.Hour, 0)
		if again := meta(t, db, "floor.bank"); again != first {
			t.Errorf("the floor rose to %s before it settled", again)
		}
		mustLookup(t, table, zombie, troth.Aborted)
		back("2")
		mustExpire(t, table, 2*time.Hour, 1)
		if settled := meta(t, db, "floor-settled.bank"); settled != first {
			t.Errorf("the settled floor is %s, want %s", settled, first)
		}
		mustLookup(t, table, zombie, troth.Undecided)
		mustDecide(t, table, commit(zombie), troth.Aborted)

		// F2: the floor never falls, also when ages differ.
		high := meta(t, db, "floor.bank")
		back("61")
		mustExpire(t, table, 20*time.Hour, 0)
		if now := meta(t, db, "floor.bank"); now < high {
			t.Errorf("the floor fell from %s to %s", high, now)
		}
		mustExpire(t, table, 100*365*24*time.Hour, 0) // before the clock began
	})
}

// A commit that the floor refuses may have gone in with an earlier attempt, and
// been forgotten since: that is not known to be aborted (R4).
func TestFloorDoesNotAnswerAfterALostReply(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		table := openTable(t, e, db, Options{Floor: true, FloorSettle: time.Nanosecond})
		gid := troth.NewGID("bank", time.Now().Add(-time.Hour))
		in, err := table.newInsertion(table.names.Load(), commit(gid))
		if err != nil {
			t.Fatal(err)
		}
		in.floor = "floor.bank"
		table.asking(in) // sent, and the answer was lost
		mustExpire(t, table, time.Minute, 0)
		outcome, err := table.Decide(t.Context(), commit(gid))
		if err == nil || outcome != troth.Undecided || !strings.Contains(err.Error(), "got no answer") {
			t.Errorf("Decide = %v, %v, want an error", outcome, err)
		}
		mustDecide(t, table, abort(gid), troth.Aborted) // recovery found it prepared, so it had not gone in
		mustDecide(t, table, commit(gid), troth.Aborted)
	})
}

// An unanswered commit that did not even reach the server counts as sent: the
// Table cannot know.
func TestUnansweredCommitIsRemembered(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		table, gid := openTable(t, e, db, Options{Floor: true, LockWait: time.Hour}), newGID()
		h := newHome(t, e, db)
		mustExec(t, h.conn, table.InsertSQL(abort(gid)))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		answers := decideMany(ctx, table, commit(gid), 1)
		awaitWaiter(t, e, db, 1)
		cancel()
		if a := <-answers; a.err == nil {
			t.Fatalf("Decide = %v while the key is held", a.outcome)
		}
		if _, asked := table.asked.Load(gid); !asked && e.kind != SQLite { // SQLite says for sure that it did nothing
			t.Error("the attempt is forgotten")
		}
		mustExec(t, h.conn, "ROLLBACK")
		mustDecide(t, table, commit(gid), troth.Committed)
		if _, asked := table.asked.Load(gid); asked {
			t.Error("the attempt is remembered for ever")
		}
	})
}
