package barrier_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/internal/dbtest"
)

// mortal is a server that may be killed.
type mortal interface {
	Kill() error
	Restart(ctx context.Context) error
}

// killable are servers that only the tests in this file use.
var killable = []struct {
	name string
	open func(t *testing.T) (*world, mortal)
}{
	{"postgres", func(t *testing.T) (*world, mortal) {
		server := dbtest.SharedPostgres(t, 1)
		server.MustOwn(t)
		return newWorld(t, barrier.PostgreSQL, "pgx", server.NewDatabase(t), ""), server
	}},
	{"mariadb", func(t *testing.T) (*world, mortal) {
		server := dbtest.SharedMariaDB(t, 2)
		server.MustOwn(t)
		return newWorld(t, barrier.MySQL, "mysql", server.NewDatabase(t), ""), server
	}},
}

// The database is killed between the business and the commit, or while it commits. The
// caller repeats until it is answered, and the effect is there once.
func TestDatabaseKilledAtCommit(t *testing.T) {
	t.Parallel()
	for _, e := range killable {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			w, server := e.open(t)
			const rounds = 12
			var unknown int // errors of Run although the work was committed
			for round := range rounds {
				s := step(t, newGID(), []barrier.Op{barrier.Action, barrier.Message}[round%2])
				killed := make(chan error, 1)
				err := w.Run(t.Context(), w.db, s, func(ctx context.Context, tx *sql.Tx) error {
					if err := w.insert(ctx, tx, s, 1); err != nil {
						return err
					}
					if round < rounds/3 {
						killed <- server.Kill()
						return nil
					}
					go func() {
						time.Sleep(rand.N(2 * time.Millisecond))
						killed <- server.Kill()
					}()
					return nil
				})
				must(t, <-killed)
				must(t, server.Restart(t.Context()))
				if round < rounds/3 && err == nil {
					t.Fatal("a dead server committed")
				}
				if n := w.again(t, s); err != nil && n == 1 {
					unknown++
				}
				if n := w.counts(t, s.GID)[s.Op]; n != 1 {
					t.Fatalf("round %d: %d effects after %v", round, n, err)
				}
			}
			t.Logf("%d kills, %d times committed although the commit failed", rounds, unknown)
		})
	}
}

// again does what a server, or a message's sender, does after an error, and returns how
// many effects there had been before.
func (w *world) again(t *testing.T, s barrier.Step) (before int) {
	t.Helper()
	for range 100 { // connections of before the kill fail first
		if err := w.db.PingContext(t.Context()); err == nil {
			break
		}
	}
	before = w.counts(t, s.GID)[s.Op]
	err := w.run(t, s)
	if s.Op == barrier.Message && before == 1 {
		requireIs(t, err, barrier.ErrDuplicated)
		committed, err := w.QueryPrepared(t.Context(), w.db, s)
		must(t, err)
		if !committed {
			t.Fatal("the query denies a transaction that was committed")
		}
		return before
	}
	must(t, err)
	return before
}

// A file's database dies with the participant.
func TestParticipantKilledOnSQLite(t *testing.T) {
	const envDSN, envGID, envAfter = "BARRIER_TEST_DSN", "BARRIER_TEST_GID", "BARRIER_TEST_AFTER"
	open := func(t *testing.T, dsn string) *world {
		table, err := barrier.NewTable(barrier.SQLite, nil)
		must(t, err)
		return &world{table, openDB(t, "sqlite", dsn)}
	}
	die := func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL); select {} }
	if dsn := os.Getenv(envDSN); dsn != "" { // the participant
		w, s := open(t, dsn), step(t, os.Getenv(envGID), barrier.Action)
		must(t, w.Run(t.Context(), w.db, s, func(ctx context.Context, tx *sql.Tx) error {
			if err := w.insert(ctx, tx, s, 1); err != nil || os.Getenv(envAfter) != "" {
				return err
			}
			die()
			return nil
		}))
		die()
	}
	t.Parallel()
	dsn := sqliteDSN(t)
	w := newWorld(t, barrier.SQLite, "sqlite", dsn, "")
	for _, after := range []string{"", "commit"} {
		gid := newGID()
		cmd := exec.Command(os.Args[0], "-test.run=^TestParticipantKilledOnSQLite$")
		cmd.Env = append(os.Environ(), envDSN+"="+dsn, envGID+"="+gid, envAfter+"="+after)
		out, err := cmd.CombinedOutput()
		if fmt.Sprint(err) != "signal: killed" {
			t.Fatalf("the participant ended with %v: %s", err, out)
		}
		committed := w.counts(t, gid)[barrier.Action] == 1
		if committed != (after != "") {
			t.Errorf("killed after %q: committed %v", after, committed)
		}
		must(t, w.run(t, step(t, gid, barrier.Action)))
		if n := w.counts(t, gid)[barrier.Action]; n != 1 {
			t.Errorf("killed after %q: %d effects", after, n)
		}
	}
}
