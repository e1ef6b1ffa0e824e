package postgres

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
)

// startServer is a server of the test's own, with settings.
func startServer(t *testing.T, settings map[string]string) string {
	t.Helper()
	s, err := dbtest.StartPostgres(t.Context(), dbtest.PostgresConfig{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.DSN("postgres")
}

func findings(r *rig, subject string) (list []troth.Finding) {
	r.Helper()
	all, err := New("athos", r.db).Check(r.Context()) // it needs no Open
	if err != nil {
		r.Fatal(err)
	}
	for _, f := range all {
		if strings.Contains(f.Subject, subject) {
			list = append(list, f)
		}
	}
	return list
}

func TestSlots(t *testing.T) {
	t.Parallel()
	r := newRig(t, "pgx", startServer(t, map[string]string{"max_prepared_transactions": "1"}))
	first, db := r.begin()
	r.work(db, "UPDATE account SET balance = 1 WHERE id = 1")
	if vote, err := first.Prepare(r.Context(), newXID()); vote != troth.VoteCommit {
		r.Fatal(vote, err)
	}
	second, db := r.begin()
	r.work(db, "UPDATE account SET balance = 1 WHERE id = 2")
	r.wantRefused(second, "53200", "max_prepared_transactions")
	if f := findings(r, "slots"); len(f) != 1 || f[0].Severity != troth.FindingWarning {
		r.Errorf("findings %+v", f)
	}
	if err := first.Rollback(r.Context()); err != nil {
		r.Error(err)
	}
}

func TestNoSlotsAndUnsafeSettings(t *testing.T) {
	t.Parallel()
	dsn := startServer(t, map[string]string{
		"max_prepared_transactions": "0", "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off",
	})
	db := open(t, "pgx", dsn, 0)
	refused := New("athos", db)
	err := refused.Open(t.Context(), config())
	for _, want := range []string{"fsync", "full_page_writes", "ALTER SYSTEM", `Allow("fsync")`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open does not say %q: %v", want, err)
		}
	}
	if err := refused.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	r := &rig{T: t, dsn: dsn, db: db, outside: db, res: New("athos", db, Allow("fsync", "full_page_writes"))}
	r.open(r.res)
	if r.res.Can() != troth.CanDecide {
		t.Errorf("Can is %b", r.res.Can())
	}
	r.exec("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)")
	b, handle := r.begin()
	r.work(handle, "INSERT INTO account VALUES (1, 1)")
	r.wantRefused(b, "55000", "max_prepared_transactions")
	b, handle = r.begin()
	r.work(handle, "INSERT INTO account VALUES (1, 1)")
	if outcome, err := b.CommitDeciding(r.Context(), troth.Decision{GID: newXID().GID, Outcome: troth.Committed}); outcome != troth.Committed || err != nil {
		t.Error(outcome, err)
	}
	for subject, severity := range map[string]troth.Severity{
		"fsync": troth.FindingFatal, "full_page_writes": troth.FindingFatal,
		"synchronous_commit": troth.FindingNote, "max_prepared_transactions": troth.FindingNote,
		"lock_timeout": troth.FindingWarning,
	} {
		f := findings(r, subject)
		if len(f) != 1 || f[0].Severity != severity || f[0].Fix == "" || f[0].Why == "" {
			t.Errorf("%s: %+v", subject, f)
		}
	}
}

// One server, several databases, one list of prepared transactions.
func TestAnotherDatabase(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 0)
	here, there := newRig(t, "pgx", server.NewDatabase(t)), newRig(t, "postgres", server.NewDatabase(t))
	b, db := there.begin()
	there.work(db, "UPDATE account SET balance = 1 WHERE id = 1")
	xid := newXID()
	if vote, err := b.Prepare(t.Context(), xid); vote != troth.VoteCommit {
		t.Fatal(vote, err)
	}
	list, err := here.res.Recover(t.Context())
	if err != nil || slices.ContainsFunc(list, func(p troth.Prepared) bool { return p.XID == xid }) {
		t.Errorf("another database's branch is listed, or: %v", err)
	}
	err = here.res.Finish(t.Context(), xid, troth.Committed, b.Evidence())
	var be *troth.BranchError
	if !errors.As(err, &be) || !strings.Contains(be.Hint, "database") {
		t.Errorf("Finish in the wrong database: %v", err)
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if err := there.res.Finish(t.Context(), xid, troth.Committed, b.Evidence()); err != nil {
		t.Errorf("Finish again: %v", err)
	}
}

// Evidence names the cluster: a number of another one proves nothing.
func TestEvidenceOfAnotherCluster(t *testing.T) {
	t.Parallel()
	r := newRig(t, "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t))
	b, db := r.begin()
	r.work(db, "UPDATE account SET balance = 1 WHERE id = 1")
	xid := newXID()
	if vote, err := b.Prepare(t.Context(), xid); vote != troth.VoteCommit {
		t.Fatal(vote, err)
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	number, system, _ := strings.Cut(b.Evidence(), "-")
	if system == "" {
		t.Fatalf("evidence %q names no cluster", b.Evidence())
	}
	if err := r.res.Finish(t.Context(), xid, troth.Committed, number+"-deadbeef"); err == nil || !strings.Contains(err.Error(), "deadbeef") {
		t.Errorf("got %v", err)
	}
	if err := r.res.Finish(t.Context(), xid, troth.Committed, "18446744073709551615-"+system); !errors.Is(err, troth.ErrNoEvidence) {
		t.Errorf("got %v", err)
	}
	if err := r.res.Finish(t.Context(), xid, troth.Committed, ""); !errors.Is(err, troth.ErrNoEvidence) {
		t.Errorf("got %v", err)
	}
	var h *troth.HeuristicError
	if err := r.res.Finish(t.Context(), xid, troth.Aborted, b.Evidence()); !errors.As(err, &h) {
		t.Errorf("got %v", err)
	}
}

// throughProxy is a rig all of whose sessions go through a proxy.
func throughProxy(t *testing.T, driver string) (*rig, *cutproxy.Proxy) {
	t.Helper()
	server := dbtest.SharedPostgres(t, 0)
	dsn := server.NewDatabase(t)
	proxy := cutproxy.New(t, server.Addr())
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = proxy.Addr()
	r := newRig(t, driver, u.String())
	r.outside = open(t, "pgx", dsn, 0)
	return r, proxy
}

// The network loses a branch's session at PREPARE; the server's side lives on, and
// would prepare the branch after everybody looked. The vote is unknown, and
// Rollback ends the server's process first.
func TestLatePrepare(t *testing.T) {
	t.Parallel()
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			r, proxy := throughProxy(t, driver)
			r.exec(`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3); RETURN NULL; END'`)
			r.exec(`CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`)
			b, db := r.begin()
			r.work(db, "UPDATE account SET balance = 1 WHERE id = 1")
			xid := newXID()
			cut := proxy.Cut(cutproxy.StrandedAfter, "PREPARE TRANSACTION", 1)
			vote, err := b.Prepare(t.Context(), xid)
			if vote != troth.VoteUnknown || err == nil {
				t.Fatalf("vote %v, %v", vote, err)
			}
			<-cut
			const preparing = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE '%PREPARE TRANSACTION%' AND pid <> pg_backend_pid()"
			// The others do not tell whom to end, so the server must have begun; if the
			// driver's own request to cancel was faster it is over, and still listed.
			const begun = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%PREPARE TRANSACTION%' AND pid <> pg_backend_pid()"
			for end := time.Now().Add(time.Minute); driver != "pgx" && r.get(begun) == "0" && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if err := b.Rollback(t.Context()); err != nil {
				t.Fatalf("rollback: %v", err)
			}
			// Nothing may hold the row now, and nothing may come later.
			r.exec("SET lock_timeout = '100ms'; UPDATE account SET balance = 2 WHERE id = 1; RESET lock_timeout")
			if n := r.get(preparing); n != "0" {
				t.Error("the server still prepares")
			}
			if n := r.get("SELECT count(*)::text FROM pg_prepared_xacts WHERE gid = '" + xid.String() + "'"); n != "0" {
				t.Error("the branch is prepared")
			}
		})
	}
}

// Without a decision table, the status of the transaction settles a COMMIT whose
// answer is lost.
func TestSettle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		place cutproxy.Place
		want  troth.Outcome
	}{
		"before the server":   {cutproxy.BeforeServer, troth.Aborted},
		"after the answer":    {cutproxy.AfterAnswer, troth.Committed},
		"lost in the network": {cutproxy.StrandedBefore, troth.Aborted},
		"answer is stranded":  {cutproxy.StrandedAfter, troth.Committed},
	} {
		for _, driver := range drivers {
			t.Run(name+"/"+driver, func(t *testing.T) {
				t.Parallel()
				r, proxy := throughProxy(t, driver)
				cfg := config()
				cfg.NeedDecisions = false
				r.res = New("porthos", r.db)
				if err := r.res.Open(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = r.res.Close(context.Background()) })
				if r.res.Decisions() != nil || r.res.Can() != troth.CanPrepare {
					t.Fatal("there is a decision table")
				}
				b, db := r.begin()
				r.work(db, "UPDATE account SET balance = 1 WHERE id = 1")
				cut := proxy.Cut(c.place, "COMMIT", 1)
				outcome, err := b.CommitDeciding(t.Context(), troth.Decision{GID: newXID().GID, Outcome: troth.Committed})
				if outcome != troth.Undecided || err == nil {
					t.Fatalf("outcome %v, %v", outcome, err)
				}
				<-cut
				b.Close()
				deadline := time.Now().Add(2 * time.Minute)
				for outcome, err = b.Settle(t.Context()); err != nil && time.Now().Before(deadline); outcome, err = b.Settle(t.Context()) {
					if driver != "pgx" {
						proxy.Release() // only pgx tells whom to end; else the server must notice by itself
					}
					time.Sleep(20 * time.Millisecond) // the status has no signal
				}
				got := r.get("SELECT balance::text FROM account WHERE id = 1")
				if want := map[troth.Outcome]string{troth.Committed: "1", troth.Aborted: "100"}[outcome]; err != nil || got != want {
					t.Errorf("settled %v, %v; the balance is %s", outcome, err, got)
				}
				// Where the answer is stranded Settle ends the server's process, and may be
				// quicker than the COMMIT: then aborted is the truth.
				if outcome != c.want && c.place != cutproxy.StrandedAfter {
					t.Errorf("settled %v, want %v", outcome, c.want)
				}
			})
		}
	}
}

func TestBlocked(t *testing.T) {
	t.Parallel()
	r := newRig(t, "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t))
	b, db := r.begin()
	r.work(db, "UPDATE account SET balance = 1 WHERE id = 1")
	xid := newXID()
	if vote, err := b.Prepare(t.Context(), xid); vote != troth.VoteCommit {
		t.Fatal(vote, err)
	}
	done := make(chan error, 3)
	for _, query := range []string{
		"UPDATE account SET balance = 2 WHERE id = 1", "UPDATE account SET balance = 3 WHERE id = 1", "LOCK TABLE account",
	} {
		go func() {
			_, err := r.outside.ExecContext(t.Context(), "BEGIN; "+query+"; COMMIT")
			done <- err
		}()
	}
	var list []troth.Blocked
	// A session that has just begun to wait may be listed before its query is.
	shown := func() bool {
		return len(list) == 3 && !slices.ContainsFunc(list, func(w troth.Blocked) bool { return w.Query == "" })
	}
	for deadline := time.Now().Add(2 * time.Minute); !shown() && time.Now().Before(deadline); {
		var err error
		if list, err = r.res.Blocked(t.Context(), xid.String()); err != nil {
			t.Fatal(err)
		}
	}
	if len(list) != 3 {
		t.Errorf("blocked: %+v", list)
	}
	for _, w := range list {
		if w.Session == "" || !strings.Contains(w.Query, "account") {
			t.Errorf("%+v", w)
		}
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if list, err := r.res.Blocked(t.Context(), xid.String()); len(list) != 0 || err != nil {
		t.Errorf("%+v, %v", list, err)
	}
}

// A prepared transaction of another program is shown as an orphan when it is old,
// with the statement that ends it; its name may hold anything.
func TestOrphanOfAnotherProgram(t *testing.T) {
	t.Parallel()
	r := newRig(t, "pgx", startServer(t, nil))
	r.exec(`BEGIN; UPDATE account SET balance = 1; PREPARE TRANSACTION 'it''s; DROP TABLE account'`)
	list, err := r.res.Recover(t.Context())
	if err != nil || len(list) != 1 || list[0].Ours || list[0].Native != "it's; DROP TABLE account" || list[0].Owner == "" || list[0].Age <= 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if f := findings(r, "orphans"); len(f) != 1 || f[0].Severity != troth.FindingOK {
		t.Errorf("a young one is reported: %+v", f)
	}
	if f := findings(r, "rights"); len(f) != 1 || f[0].Severity != troth.FindingOK {
		t.Errorf("rights: %+v", f)
	}
	if f := findings(r, "pooler"); len(f) != 1 || f[0].Severity != troth.FindingOK {
		t.Errorf("pooler: %+v", f)
	}
	r.exec("ROLLBACK PREPARED 'it''s; DROP TABLE account'")
}

// The list of a standby is empty whatever is prepared (R6).
func TestStandby(t *testing.T) {
	t.Parallel()
	s, err := dbtest.StartPostgres(t.Context(), dbtest.PostgresConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	r := newRig(t, "pgx", s.DSN("postgres"))
	b, db := r.begin()
	r.work(db, "UPDATE account SET balance = 1 WHERE id = 1")
	xid := newXID()
	if vote, err := b.Prepare(t.Context(), xid); vote != troth.VoteCommit {
		t.Fatal(vote, err)
	}
	b.Close()
	r.db.SetMaxIdleConns(0)
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Socket(), "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := r.res.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("Recover lists %v, %v", list, err)
	}
	for _, outcome := range []troth.Outcome{troth.Committed, troth.Aborted} {
		if err := r.res.Finish(t.Context(), xid, outcome, b.Evidence()); err == nil || errors.Is(err, troth.ErrNoEvidence) {
			t.Errorf("Finish %v: %v", outcome, err)
		}
	}
	other := New("athos", r.db)
	if err := other.Open(t.Context(), config()); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("Open: %v", err)
	}
	if err := other.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}
