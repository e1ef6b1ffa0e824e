package crash

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/mistake"
)

// Scenes are schedules in which one rule alone stands between the databases and
// harm: each fails if its rule is broken, and internal/mistake breaks them one
// after the other to prove it (see test/selftest).
var scenes = map[string]struct {
	a, b, register string
	play           func(t *testing.T, w *world)
}{
	"zombie and a shared register":         {"postgres", "postgres", "sql", zombie},
	"zombie and a home":                    {"postgres", "postgres", "home", zombie},
	"zombie and a home on MariaDB":         {"mysql", "postgres", "home", zombie},
	"killed when the last resource is in":  {"sqlite", "postgres", "home", killedWhenDecided},
	"home at its commit for a while":       {"postgres", "postgres", "home", slowHome},
	"failed statement ignored, PostgreSQL": {"postgres", "postgres", "home", mustAbort("ignores")},
	"failed statement ignored, MariaDB":    {"postgres", "mysql", "home", mustAbort("ignores")},
	"failed statement before a savepoint":  {"postgres", "mysql", "home", mustAbort("savepoint")},
	"hidden writer on PostgreSQL":          {"postgres", "postgres", "home", hiddenWriter},
	"hidden writer on MariaDB":             {"postgres", "mysql", "home", hiddenWriter},
	"sole commit that never arrives":       {"postgres", "mysql", "home", soleCommit(cutproxy.BeforeServer)},
	"sole commit without an answer":        {"postgres", "mysql", "home", soleCommit(cutproxy.AfterAnswer)},
	"sole commit that takes long":          {"postgres", "mysql", "sql", slowCommit},
	"caller who gives up":                  {"postgres", "postgres", "home", givesUp},
	"ended by hand":                        {"postgres", "postgres", "home", endedByHand},
	"held by a frozen program":             {"postgres", "mysql", "home", heldByFrozen},
	"held by a session that nobody has":    {"postgres", "mysql", "home", heldByStranded},
	"restarted before the commit":          {"postgres", "mysql", "home", restartedBeforeCommit},
	"branches of others":                   {"postgres", "postgres", "home", branchesOfOthers},
	"old record, and a server is down":     {"postgres", "postgres", "home", oldRecordServerDown},
	"asked after it was forgotten":         {"postgres", "postgres", "home", askedWhenForgotten},
}

func TestScenes(t *testing.T) {
	for name, s := range scenes {
		t.Run(name, func(t *testing.T) { s.play(t, newWorld(t, s.a, s.b, s.register)) })
	}
}

func (w *world) settle(t *testing.T) {
	t.Helper()
	w.child(t, "", "-settle", settleWithin.String())
}

// freeze starts the program and returns it when it has frozen at a point.
func (w *world) freeze(t *testing.T, point string, args ...string) *process {
	t.Helper()
	p := w.start(t, point+":1:freeze", args...)
	if !p.frozen(t) {
		t.Fatalf("the program does not come to %s\n%s", point, p.stderr.String())
	}
	return p
}

// requireTold fails unless the program was told so, once for each transaction.
func (w *world) requireTold(t *testing.T, p *process, want ...string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(p.stdout.String()) {
		if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word == "committed" || word == "aborted" || word == "unknown" {
			got = append(got, word)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the program was told %q, not %q\n%s", got, want, p.stderr.String())
	}
}

// zombie: a program that slept while another recorded abort and rolled back must
// not commit when it wakes (R2).
func zombie(t *testing.T, w *world) {
	p := w.freeze(t, "decide.before")
	w.settle(t)
	p.thaw(t)
	p.wait(t)
	w.settle(t)
	w.check(t)
	w.requireTold(t, p, "aborted", "committed", "aborted")
}

// killedWhenDecided: what the last resource committed must be on record (R1).
func killedWhenDecided(t *testing.T, w *world) {
	if !w.child(t, "decide.after:1:kill") {
		t.Fatal("the program does not come to decide.after")
	}
	w.settle(t)
	w.check(t)
}

// slowHome: while the home is at its commit nobody can write an abort into its
// table, and an error is not one (R3). The test itself is the home.
func slowHome(t *testing.T, w *world) {
	if !w.child(t, "decide.before:1:kill") {
		t.Fatal("the program does not come to decide.before")
	}
	x, err := troth.ParseXID(w.b.prepared(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	home, err := w.a.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"UPDATE account SET balance = balance - 1",
		fmt.Sprintf("INSERT INTO journal (gid, amount) VALUES ('%s', -1)", x.GID),
		fmt.Sprintf("INSERT INTO troth_decision (gid, outcome, branches, created_at) VALUES ('%s', 'commit', '', now())", x.GID),
	} {
		if _, err := home.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	p := w.start(t, "", "-recover", "1s")
	p.wait(t)
	if !strings.Contains(p.stderr.String(), "ask for abort") {
		t.Errorf("recovery did not ask for abort while the home was at its commit\n%s", p.stderr.String())
	}
	if err := home.Commit(); err != nil {
		t.Fatal(err)
	}
	w.settle(t)
	w.check(t)
}

// mustAbort: a program that does not look at an error must not be told that its
// transaction committed (R9).
func mustAbort(work string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		p := w.start(t, "", "-n", "2", "-work", work)
		p.wait(t)
		w.settle(t)
		w.check(t)
		w.requireTold(t, p, "aborted", "aborted")
		if strings.Count(p.stderr.String(), "ignored:") != 2 || strings.Contains(p.stderr.String(), "ignored: <nil>") {
			t.Errorf("no statement failed, so nothing was tested\n%s", p.stderr.String())
		}
	}
}

// hiddenWriter: a branch whose text looks like a read votes all the same.
func hiddenWriter(t *testing.T, w *world) {
	w.b.create(t)
	if !w.child(t, "report.before:1:kill", "-n", "2", "-work", "hidden") {
		t.Fatal("the program does not come to report.before")
	}
	w.settle(t)
	w.check(t)
	if n := len(w.journal(t, w.a)); n != 1 {
		t.Errorf("%d transactions committed, not the one that was decided", n)
	}
}

// create makes the function receive(gid), which does what a transfer does.
func (d database) create(t *testing.T) {
	t.Helper()
	text := `CREATE FUNCTION receive(id VARCHAR(64)) RETURNS INT LANGUAGE plpgsql AS $$
BEGIN
	UPDATE account SET balance = balance + 1 WHERE account.id = 1;
	INSERT INTO journal (gid, amount) VALUES ($1, 1);
	RETURN 1;
END $$`
	if strings.HasPrefix(d.spec, "mysql") {
		text = `CREATE FUNCTION receive(name VARCHAR(64)) RETURNS INT
BEGIN
	UPDATE account SET balance = balance + 1 WHERE id = 1;
	INSERT INTO journal (gid, amount) VALUES (name, 1);
	RETURN 1;
END`
	}
	if _, err := d.db.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// behind puts a proxy between programs and a database.
func (d *database) behind(t *testing.T) *cutproxy.Proxy {
	t.Helper()
	p := cutproxy.New(t, d.server.Addr())
	if !strings.Contains(d.spec, d.server.Addr()) {
		t.Fatalf("%s does not name the address %s", d.spec, d.server.Addr())
	}
	d.spec = strings.ReplaceAll(d.spec, d.server.Addr(), p.Addr())
	return p
}

// soleCommit: the answer to the commit of a sole branch is lost, and what the
// program is then told is true (R3).
func soleCommit(place cutproxy.Place) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		w.child(t, "", "-n", "1", "-work", "one") // the tables are made, and their commits are over
		p := w.a.behind(t)
		c := w.start(t, "decide.before:1:freeze", "-n", "2", "-work", "one")
		if !c.frozen(t) {
			t.Fatal("the program does not come to decide.before")
		}
		cut := p.Cut(place, "COMMIT", 1)
		c.thaw(t)
		c.wait(t)
		<-cut
		word := "aborted"
		if place == cutproxy.AfterAnswer {
			word = "committed"
		}
		w.requireTold(t, c, word, "aborted")
		if n := len(w.journal(t, w.a)); (n == 1) != (word == "committed") {
			t.Errorf("the program was told %s, and %d transactions are there", word, n)
		}
	}
}

// slowCommit: the server is still at the commit of a sole branch, the answer is lost,
// and no record says how it ends. That it has not ended yet says nothing (F4). A real
// commit heeds no cancel request, so that which pgx sends for a lost connection must
// not arrive.
func slowCommit(t *testing.T, w *world) {
	w.child(t, "", "-n", "1", "-work", "one")
	gate, err := w.a.db.Conn(t.Context()) // the commit waits for it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gate.Close() }()
	for _, s := range []string{
		"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NULL; END $$",
		"CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON journal DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
		"SELECT pg_advisory_lock(77)",
	} {
		if _, err := gate.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	p := w.a.behind(t)
	c := w.start(t, "decide.before:1:freeze,ask.before:1:freeze", "-n", "2", "-work", "one")
	if !c.frozen(t) {
		t.Fatal("the program does not come to decide.before")
	}
	const cancelRequest = "\x04\xd2\x16\x2e" // CancelRequest's code
	p.Cut(cutproxy.BeforeServer, cancelRequest, 1)
	cut := p.Cut(cutproxy.StrandedAfter, "COMMIT", 1)
	c.thaw(t)
	<-cut
	if !c.frozen(t) {
		t.Fatal("the program does not come to ask.before")
	}
	w.a.awaitBusy(t, true)
	c.thaw(t)
	time.Sleep(4 * time.Second) // it asks meanwhile
	if _, err := gate.ExecContext(t.Context(), "SELECT pg_advisory_unlock(77)"); err != nil {
		t.Fatal(err)
	}
	c.wait(t)
	w.a.awaitBusy(t, false)
	for gid := range w.journal(t, w.a) {
		if w.told[gid] != "committed" {
			t.Errorf("I3: the program was told %q of %s, which is there", w.told[gid], gid)
		}
	}
	for gid, word := range w.told {
		if _, ok := w.journal(t, w.a)[gid]; word == "committed" && !ok {
			t.Errorf("I2: %s was reported committed and is nowhere", gid)
		}
	}
}

// awaitBusy waits until a session of others is at a commit that waits for the test, or
// none is.
func (d database) awaitBusy(t *testing.T, want bool) {
	t.Helper()
	for start := time.Now(); time.Since(start) < 4*time.Minute; time.Sleep(10 * time.Millisecond) {
		var busy bool
		err := d.db.QueryRowContext(t.Context(), "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() "+
			"AND pid <> pg_backend_pid() AND state = 'active' AND wait_event = 'advisory'").Scan(&busy)
		if err != nil {
			t.Fatal(err)
		}
		if busy == want {
			return
		}
	}
	t.Fatalf("a commit that takes long: it is not %v", want)
}

// givesUp: the caller's context ends when the decision is asked for. Nothing that
// follows heeds it: the program ends, and leaves nothing to others.
func givesUp(t *testing.T, w *world) {
	const patience = 10 * time.Second
	p := w.freeze(t, "decide.before", "-n", "2", "-patience", patience.String())
	time.Sleep(patience) // its clock goes on while it is frozen
	p.thaw(t)
	p.wait(t)
	if left := w.b.prepared(t); len(left) > 0 {
		t.Errorf("%v was left prepared\n%s", left, p.stderr.String())
	}
	w.check(t)
	if n := len(w.journal(t, w.a)); n != 1 {
		t.Errorf("%d transactions committed, not the one that was decided", n)
	}
}

// endedByHand: an administrator rolls a prepared branch of a committed transaction
// back. The program must not hear that all is well (I8).
func endedByHand(t *testing.T, w *world) {
	p := w.freeze(t, "commit.before", "-n", "2")
	for _, gid := range w.b.prepared(t) {
		if _, err := w.b.db.ExecContext(t.Context(), "ROLLBACK PREPARED '"+gid+"'"); err != nil {
			t.Fatal(err)
		}
	}
	p.thaw(t)
	p.wait(t)
	w.requireTold(t, p, "unknown", "aborted")
	if !strings.Contains(p.stderr.String(), "heuristic") {
		t.Errorf("nobody was told of a heuristic outcome\n%s", p.stderr.String())
	}
}

// prepared lists what is prepared in a PostgreSQL database.
func (d database) prepared(t *testing.T) []string {
	t.Helper()
	rows, err := d.db.QueryContext(t.Context(), "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var all []string
	for rows.Next() {
		var gid string
		if err := rows.Scan(&gid); err != nil {
			t.Fatal(err)
		}
		all = append(all, gid)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// heldByFrozen: MariaDB lets nobody end a branch while its session lives, so
// recovery ends the session (F6), and need not wait for the program.
func heldByFrozen(t *testing.T, w *world) {
	p := w.freeze(t, "decide.before")
	w.settle(t)
	p.thaw(t)
	p.wait(t)
	w.settle(t)
	w.check(t)
}

// heldByStranded: the program loses the session of a prepared branch and the server
// does not notice. Unknown XID is then no sign that the branch has ended (R8).
func heldByStranded(t *testing.T, w *world) {
	p := w.b.behind(t)
	cut := p.Cut(cutproxy.StrandedBefore, "XA COMMIT", 1)
	c := w.start(t, "", "-n", "2", "-keep", "-1s")
	c.wait(t)
	<-cut
	w.requireTold(t, c, "committed", "aborted")
	p.Release()
	w.settle(t)
	w.check(t)
}

// restartedBeforeCommit: a branch that was prepared and not told is committed after
// the restart of its server, and is proved to be (R8).
func restartedBeforeCommit(t *testing.T, w *world) {
	p := w.freeze(t, "commit.before", "-n", "2")
	restarted(1)(t, w)
	p.thaw(t)
	p.wait(t)
	w.settle(t)
	w.check(t)
	w.requireTold(t, p, "committed", "aborted")
}

// branchesOfOthers: recovery leaves alone what is of another domain, even one that
// begins alike, and what is decided in another register (R7).
func branchesOfOthers(t *testing.T, w *world) {
	w.child(t, "", "-n", "1") // makes the tables
	var identity string
	if err := w.a.db.QueryRowContext(t.Context(), "SELECT value FROM troth_meta WHERE name = 'identity'").Scan(&identity); err != nil {
		t.Fatal(err)
	}
	here := troth.Place{Resource: "athos", Identity: identity}
	elsewhere := troth.Place{Resource: "athos", Identity: troth.NewIdentity()}
	var want []string
	for _, x := range []troth.XID{
		{GID: troth.NewGID("crash2", time.Now()), Place: here, Branch: 2},
		{GID: troth.NewGID("cras", time.Now()), Place: here, Branch: 2},
		{GID: troth.NewGID("crash", time.Now()), Place: elsewhere, Branch: 2},
	} {
		want = append(want, x.String())
		w.b.plant(t, x.String())
	}
	want = append(want, "of another program")
	w.b.plant(t, "of another program")
	w.child(t, "", "-recover", "1s")
	got := strings.Join(w.b.prepared(t), "\n")
	for _, gid := range want {
		if !strings.Contains(got, gid) {
			t.Errorf("%s is not prepared any more", gid)
		}
		_, _ = w.b.db.ExecContext(t.Context(), "ROLLBACK PREPARED '"+gid+"'") // it is in the way of others' tests
	}
}

// plant prepares a transaction that is not ours to end.
func (d database) plant(t *testing.T, gid string) {
	t.Helper()
	c, err := d.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, s := range []string{"BEGIN", fmt.Sprintf("INSERT INTO journal (gid, amount) VALUES ('%.60s', 0)", gid), "PREPARE TRANSACTION '" + gid + "'"} {
		if _, err := c.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

// oldRecordServerDown: the record of a commit is old, and the database of the branch
// that it binds does not answer: that proves nothing, so the record stays (R4, R6).
func oldRecordServerDown(t *testing.T, w *world) {
	if !w.child(t, "commit.before:1:kill") {
		t.Fatal("the program does not come to commit.before")
	}
	aged(t, w)
	p := w.freeze(t, "recover.before-finish", "-recover", "1ms")
	if err := w.b.server.Kill(); err != nil {
		t.Fatal(err)
	}
	p.thaw(t)
	p.wait(t)
	if !strings.Contains(p.stderr.String(), "is kept") && !mistake.Enabled {
		t.Errorf("nobody tried to prove the record\n%s", p.stderr.String())
	}
	if err := w.b.server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.settle(t)
	w.check(t)
	if n := len(w.journal(t, w.b)); n != 1 {
		t.Errorf("%d transactions are there, not the one that was decided", n)
	}
}

// askedWhenForgotten: a transaction that committed and was forgotten is unknown,
// never aborted (R4).
func askedWhenForgotten(t *testing.T, w *world) {
	w.child(t, "", "-n", "2", "-keep", "-1s")
	for gid, word := range w.told {
		if word != "committed" {
			continue
		}
		p := w.start(t, "", "-outcome", gid)
		p.wait(t)
		if !strings.Contains(p.stdout.String(), "outcome undecided troth:") && !strings.Contains(p.stdout.String(), "outcome undecided "+gid) {
			t.Errorf("%s committed and was forgotten: %s", gid, p.stdout.String())
		}
	}
}
