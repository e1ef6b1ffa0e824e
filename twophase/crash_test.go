package twophase

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// childEnv makes the test binary the program that the crash test kills: it holds
// "<driver> <dsn>", one line for each participant.
const childEnv = "TWOPHASE_TEST_CHILD"

// child inserts row 1 into every database.
func child() int {
	var params Params
	for line := range strings.Lines(os.Getenv(childEnv)) {
		driver, dsn, _ := strings.Cut(strings.TrimSpace(line), " ")
		db, err := sql.Open(driver, dsn)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		params.Participants = append(params.Participants, NewParticipant(db, insert(1)))
	}
	if err := Do(context.Background(), params); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// childBinary is this test with the fault points in it.
var childBinary = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../bin/twophase-child") // kept: the next build is quick
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "test", "-c", "-tags", "faultpoint", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// A program killed around the decision leaves a prepared branch. The next process
// that uses the databases, whatever their order, ends it as decided.
func TestCrash(t *testing.T) {
	t.Parallel()
	binary, err := childBinary()
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{{"postgres", "postgres"}, {"postgres", "mysql"}, {"mysql", "postgres"}, {"mysql", "mysql"}, {"sqlite", "postgres"}} {
		for _, at := range []struct {
			point     string
			committed bool
		}{{"decide.before", false}, {"decide.after", true}} {
			t.Run(pair[0]+"+"+pair[1]+"/"+at.point, func(t *testing.T) {
				t.Parallel()
				driverA, dsnA := newDatabase(t, pair[0], 0)
				driverB, dsnB := newDatabase(t, pair[1], 0)
				cmd := exec.CommandContext(t.Context(), binary)
				cmd.Env = append(os.Environ(), "TROTH_FAULT="+at.point+":1:kill",
					childEnv+"="+driverA+" "+dsnA+"\n"+driverB+" "+dsnB)
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("the child was not killed: %v\n%s", err, out)
				}
				a, b := openDB(t, driverA, dsnA), openDB(t, driverB, dsnB)
				if n := len(ids(t, a)) + len(ids(t, b)); at.committed && n != 1 || !at.committed && n != 0 {
					t.Fatalf("the crash left %d rows", n)
				}
				// Work that does not meet the locks of the dead goes on.
				if err := do(t, []*sql.DB{b, a}, insert(2), insert(2)); err != nil {
					t.Fatal(err)
				}
				if !at.committed { // wait for the grace time: five seconds
					requireEnded(t, b, a)
					requireIDs(t, a, 2)
					requireIDs(t, b, 2)
					if err := do(t, []*sql.DB{a, b}, insert(1), insert(1)); err != nil {
						t.Fatal(err)
					}
				}
				for _, db := range []*sql.DB{a, b} { // the session of the dead may hold its branch for a moment
					waitFor(t, "recovery", func() bool { return len(ids(t, db)) == 2 })
				}
				requireIDs(t, a, 1, 2)
				requireIDs(t, b, 1, 2)
			})
		}
	}
}

// requireEnded waits until recovery has ended a branch: then its row, which nobody
// can see, does not block one like it any more.
func requireEnded(t *testing.T, dbs ...*sql.DB) {
	t.Helper()
	for _, db := range dbs {
		waitFor(t, "recovery", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			return insert(1)(ctx, tx) == nil
		})
	}
}
