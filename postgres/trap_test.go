package postgres

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/pgrm"
)

// rig is one database with an open resource on it.
type rig struct {
	*testing.T
	dsn     string
	driver  string
	db      *sql.DB
	outside *sql.DB
	res     *Resource
}

func newRig(t *testing.T, driver, dsn string) *rig {
	t.Helper()
	r := &rig{T: t, dsn: dsn, driver: driver, db: open(t, driver, dsn, 0), outside: open(t, "pgx", dsn, 0)}
	r.res = New("athos", r.db)
	r.open(r.res)
	r.exec("CREATE TABLE IF NOT EXISTS account (id int PRIMARY KEY, balance int NOT NULL)")
	r.exec("INSERT INTO account SELECT i, 100 FROM generate_series(1, 10) i ON CONFLICT DO NOTHING")
	return r
}

func config() troth.ResourceConfig {
	return troth.ResourceConfig{Domain: "test", Logger: slog.New(slog.DiscardHandler), NeedDecisions: true, LifeMax: time.Hour}
}

func (r *rig) open(res *Resource) {
	r.Helper()
	if err := res.Open(r.Context(), config()); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := res.Close(ctx); err != nil {
			r.Error(err)
		}
	})
}

func (r *rig) exec(query string, args ...any) {
	r.Helper()
	if _, err := r.outside.ExecContext(r.Context(), query, args...); err != nil {
		r.Fatalf("%s: %v", query, err)
	}
}

func (r *rig) get(query string) (s string) {
	r.Helper()
	if err := r.outside.QueryRowContext(r.Context(), query).Scan(&s); err != nil {
		r.Fatalf("%s: %v", query, err)
	}
	return s
}

func (r *rig) begin() (*pgrm.Branch, *sql.DB) {
	r.Helper()
	b, err := r.res.Begin(r.Context(), troth.BranchConfig{Branch: 1, Context: r.Context()})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(b.Close)
	return b.(*pgrm.Branch), handle(b)
}

func newXID() troth.XID {
	return troth.XID{GID: troth.NewGID("test", time.Now()), Place: troth.Place{Resource: "athos", Identity: "00000000"}, Branch: 1}
}

// work runs statements on the branch.
func (r *rig) work(db *sql.DB, queries ...string) {
	r.Helper()
	for _, q := range queries {
		if _, err := db.ExecContext(r.Context(), q); err != nil {
			r.Fatalf("%s: %v", q, err)
		}
	}
}

// wantRefused checks that the vote is a definite no, with a hint that tells what
// to do, and that nothing stays prepared.
func (r *rig) wantRefused(b *pgrm.Branch, code, hint string) {
	r.Helper()
	xid := newXID()
	vote, err := b.Prepare(r.Context(), xid)
	if vote != troth.VoteRollback {
		r.Fatalf("vote %v, %v; want rollback", vote, err)
	}
	if got := pgrm.SQLState(err); got != code {
		r.Errorf("SQLSTATE %q, want %q (%v)", got, code, err)
	}
	var be *troth.BranchError
	if !errors.As(err, &be) {
		r.Fatalf("no *BranchError: %v", err)
	}
	if !strings.Contains(be.Hint, hint) {
		r.Errorf("hint %q, want one with %q", be.Hint, hint)
	}
	if want := code == "40001" || code == "40P01" || code == "55P03"; be.Transient != want {
		r.Errorf("Transient is %v, want %v", be.Transient, want)
	}
	if n := r.get("SELECT count(*)::text FROM pg_prepared_xacts WHERE gid = '" + xid.String() + "'"); n != "0" {
		r.Error("it is prepared all the same")
	}
	if err := b.Rollback(r.Context()); err != nil {
		r.Errorf("rollback after the vote: %v", err)
	}
}

// eachDriver runs the test with every driver, on databases of a shared server.
func eachDriver(t *testing.T, f func(r *rig)) {
	t.Parallel()
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			f(newRig(t, driver, dbtest.SharedPostgres(t, 0).NewDatabase(t)))
		})
	}
}

func TestWhatCannotBePrepared(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		statements []string
		code, hint string
	}{
		"temporary table": {[]string{"CREATE TEMP TABLE scratch (id int)"}, "0A000", "temporary"},
		"notify":          {[]string{"UPDATE account SET balance = 1", "NOTIFY channel"}, "0A000", "NOTIFY"},
		"cursor with hold": {
			[]string{"DECLARE c CURSOR WITH HOLD FOR SELECT 1", "UPDATE account SET balance = 1"},
			"0A000", "WITH HOLD",
		},
		"deferred constraint": {
			[]string{
				"CREATE TABLE child (id int REFERENCES account DEFERRABLE INITIALLY DEFERRED)",
				"INSERT INTO child VALUES (4711)",
			},
			"23503", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachDriver(t, func(r *rig) {
				b, db := r.begin()
				r.work(db, c.statements...)
				r.wantRefused(b, c.code, c.hint)
			})
		})
	}
}

// A statement that fails without the program's noticing, and a transaction whose
// failure only the server knows: PREPARE TRANSACTION and COMMIT then answer
// ROLLBACK, which is no error.
func TestFailedTransactionIsNotPrepared(t *testing.T) {
	eachDriver(t, func(r *rig) {
		// pinned does not see what happens through Raw, which stands for any way
		// around it.
		spoil := func(b *pgrm.Branch, db *sql.DB) {
			r.work(db, "UPDATE account SET balance = 0 WHERE id = 1")
			err := b.Session().Raw(r.Context(), func(l pgrm.Line) error {
				_, err := l.Round(r.Context(), "SELECT 1/0")
				return err
			})
			if pgrm.SQLState(err) != "22012" {
				r.Fatalf("want division by zero, got %v", err)
			}
		}
		b, db := r.begin()
		spoil(b, db)
		if vote, err := b.Prepare(r.Context(), newXID()); vote != troth.VoteRollback || err == nil {
			r.Errorf("vote %v, %v", vote, err)
		}
		b, db = r.begin()
		spoil(b, db)
		d := troth.Decision{GID: newXID().GID, Outcome: troth.Committed}
		if outcome, err := b.CommitDeciding(r.Context(), d); outcome != troth.Aborted || err == nil {
			r.Errorf("outcome %v, %v", outcome, err)
		}
		if got, err := r.res.Decisions().Lookup(r.Context(), d.GID); got != troth.Undecided || err != nil {
			r.Errorf("the decision is there: %v, %v", got, err)
		}
		if got := r.get("SELECT balance::text FROM account WHERE id = 1"); got != "100" {
			r.Errorf("balance %s", got)
		}
	})
}

// A transaction that ended behind our back must not be prepared empty, nor a
// decision be committed without its work.
func TestTransactionThatIsGone(t *testing.T) {
	eachDriver(t, func(r *rig) {
		lose := func(b *pgrm.Branch, db *sql.DB) {
			r.work(db, "UPDATE account SET balance = 0 WHERE id = 1")
			err := b.Session().Raw(r.Context(), func(l pgrm.Line) error {
				_, err := l.Round(r.Context(), "ROLLBACK")
				return err
			})
			if err != nil {
				r.Fatal(err)
			}
		}
		b, db := r.begin()
		lose(b, db)
		if vote, err := b.Prepare(r.Context(), newXID()); vote == troth.VoteCommit || err == nil {
			r.Errorf("vote %v, %v", vote, err)
		}
		b, db = r.begin()
		lose(b, db)
		d := troth.Decision{GID: newXID().GID, Outcome: troth.Committed}
		if outcome, err := b.CommitDeciding(r.Context(), d); outcome == troth.Committed || err == nil {
			r.Errorf("outcome %v, %v", outcome, err)
		}
		if got, err := r.res.Decisions().Lookup(r.Context(), d.GID); got != troth.Undecided || err != nil {
			r.Errorf("the decision is there: %v, %v", got, err)
		}
	})
}

func TestSerializationFailure(t *testing.T) {
	eachDriver(t, func(r *rig) {
		two := [2]*pgrm.Branch{}
		dbs := [2]*sql.DB{}
		for i := range two {
			b, err := r.res.Begin(r.Context(), troth.BranchConfig{Branch: 1, Context: r.Context(), Isolation: sql.LevelSerializable})
			if err != nil {
				r.Fatal(err)
			}
			r.Cleanup(b.Close)
			two[i], dbs[i] = b.(*pgrm.Branch), handle(b)
		}
		for i, db := range dbs { // write skew
			var sum int
			if err := db.QueryRowContext(r.Context(), "SELECT sum(balance) FROM account WHERE id IN (1, 2)").Scan(&sum); err != nil {
				r.Fatal(err)
			}
			r.work(db, []string{"UPDATE account SET balance = 0 WHERE id = 1", "UPDATE account SET balance = 0 WHERE id = 2"}[i])
		}
		if vote, err := two[0].Prepare(r.Context(), newXID()); vote != troth.VoteCommit {
			r.Fatalf("first: %v, %v", vote, err)
		}
		r.wantRefused(two[1], "40001", "again")
		if err := two[0].Commit(r.Context()); err != nil {
			r.Error(err)
		}
	})
}

func TestReadOnlyAndLockingBranches(t *testing.T) {
	eachDriver(t, func(r *rig) {
		for query, want := range map[string]bool{
			"SELECT balance FROM account":                       false,
			"SELECT balance FROM account FOR UPDATE":            true,
			"UPDATE account SET balance = 1 WHERE id = -1":      false,
			"UPDATE account SET balance = balance WHERE id = 1": true,
		} {
			b, db := r.begin()
			r.work(db, query)
			got, err := b.Wrote(r.Context())
			if got != want || err != nil {
				r.Errorf("%s: wrote %v, %v", query, got, err)
			}
			if err := b.Rollback(r.Context()); err != nil {
				r.Error(err)
			}
		}
	})
}

// The server sees to it that no transaction outlives LifeMax (R5).
func TestServerEndsIdleTransactions(t *testing.T) {
	eachDriver(t, func(r *rig) {
		for _, query := range []string{"SELECT 1", "UPDATE account SET balance = 1 WHERE id = 1"} {
			b, db := r.begin()
			r.work(db, query)
			var idle string
			if err := db.QueryRowContext(r.Context(), "SHOW idle_in_transaction_session_timeout").Scan(&idle); err != nil || idle != "1h" {
				r.Errorf("%q, %v", idle, err)
			}
			if err := b.Rollback(r.Context()); err != nil {
				r.Error(err)
			}
		}
	})
}

// A server that is strict enough by itself saves each branch a statement.
func TestServersOwnIdleTimeout(t *testing.T) {
	t.Parallel()
	for set, want := range map[string]string{"5min": "5min", "2h": "1h"} {
		dsn := dbtest.SharedPostgres(t, 0).NewDatabase(t)
		admin := open(t, "pgx", dsn, 0)
		var name string
		if err := admin.QueryRowContext(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.ExecContext(t.Context(), "ALTER DATABASE "+name+" SET idle_in_transaction_session_timeout = '"+set+"'"); err != nil {
			t.Fatal(err)
		}
		r := newRig(t, "pgx", dsn)
		_, db := r.begin()
		var idle string
		if err := db.QueryRowContext(t.Context(), "SHOW idle_in_transaction_session_timeout").Scan(&idle); err != nil || idle != want {
			t.Errorf("%s: %q, %v", set, idle, err)
		}
		text, err := r.res.BeginSQL(sql.LevelSerializable)
		if strings.Contains(text, "idle") != (set == "2h") || !strings.HasPrefix(text, "BEGIN ISOLATION LEVEL SERIALIZABLE") || err != nil {
			t.Errorf("%s: %q, %v", set, text, err)
		}
		if _, err := r.res.BeginSQL(sql.LevelLinearizable); err == nil {
			t.Error("a level that does not exist was accepted")
		}
	}
}

func TestArgumentsInTheFirstStatement(t *testing.T) {
	eachDriver(t, func(r *rig) {
		b, db := r.begin()
		res, err := db.ExecContext(r.Context(), "UPDATE account SET balance = balance + $1 WHERE id < $2", 5, 4)
		if err != nil {
			r.Fatal(err)
		}
		if n, err := res.RowsAffected(); n != 3 || err != nil {
			r.Errorf("%d rows, %v", n, err)
		}
		if err := b.Rollback(r.Context()); err != nil {
			r.Error(err)
		}
		b, db = r.begin()
		var sum int
		if err := db.QueryRowContext(r.Context(), "SELECT sum(balance) FROM account WHERE id < $1", 4).Scan(&sum); err != nil || sum != 300 {
			r.Errorf("%d, %v", sum, err)
		}
		if err := b.Release(r.Context()); err != nil {
			r.Error(err)
		}
		_, db = r.begin()
		_, err = db.ExecContext(r.Context(), "UPDATE acount SET balance = 0")
		if pgrm.SQLState(err) != "42P01" {
			r.Errorf("got %v", err)
		}
	})
}
