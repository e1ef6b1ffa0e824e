package decisiontable

import (
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
)

// With synchronous_commit off a COMMIT is acknowledged up to three times
// wal_writer_delay before it is durable. A decision is durable all the same, on
// its own and in the transaction of a home.
func TestDecisionsSurviveAKillWithoutSynchronousCommit(t *testing.T) {
	p := dbtest.SharedPostgres(t, 1)
	p.MustOwn(t)
	dsn := p.NewDatabase(t)
	admin := open(t, "pgx", dsn)
	mustExec(t, admin, "ALTER SYSTEM SET synchronous_commit = off", "ALTER SYSTEM SET wal_writer_delay = '10s'", "SELECT pg_reload_conf()",
		"CREATE TABLE control (i int)")
	e := engine{kind: Postgres}
	for _, carry := range []bool{false, true} {
		db := open(t, "pgx", dsn)
		for { // until the new setting is in force
			var setting string
			if err := db.QueryRowContext(t.Context(), "SHOW synchronous_commit").Scan(&setting); err != nil {
				t.Fatal(err)
			}
			if setting == "off" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		table, gid := openTable(t, e, db, Options{}), newGID()
		identity, want := table.Identity(), troth.Aborted
		mustExec(t, db, "DELETE FROM control")
		if carry {
			want = troth.Committed
			h := newHome(t, e, db)
			mustExec(t, h.conn, table.InsertSQL(commit(gid)), "COMMIT")
		} else {
			mustDecide(t, table, abort(gid), want)
		}
		mustExec(t, db, "INSERT INTO control VALUES (1)") // what a COMMIT without a flush is worth
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := p.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		db = open(t, "pgx", dsn)
		table = openTable(t, e, db, Options{})
		if got := table.Identity(); got != identity {
			t.Errorf("the identity is %s after the kill, was %s", got, identity)
		}
		mustLookup(t, table, gid, want)
		var control int
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM control").Scan(&control); err != nil {
			t.Fatal(err)
		}
		if control != 0 {
			t.Log("the control row survived, too: this run proves nothing")
		}
	}
}
