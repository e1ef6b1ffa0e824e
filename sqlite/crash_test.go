package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/sqlite"
)

// childEnv names the database in which this test binary, started a second time,
// commits until it is killed.
const childEnv = "TROTH_SQLITE_CRASH_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		if err := commitForEver(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	dbtest.Main(m)
}

// commitForEver prints each GID whose commit was acknowledged.
func commitForEver(path string) error {
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return err
	}
	ctx := context.Background()
	r := sqlite.New("aramis", db)
	if err := r.Open(ctx, resourceConfig(time.Hour)); err != nil {
		return err
	}
	for {
		gid := troth.NewGID(domain, time.Now())
		b, err := r.Begin(ctx, troth.BranchConfig{GID: gid, Branch: 1, Context: ctx})
		if err != nil {
			return err
		}
		if _, err := b.(branchDB).DB().ExecContext(ctx, "insert into work values (?)", gid); err != nil {
			return err
		}
		outcome, err := b.CommitDeciding(ctx, troth.Decision{GID: gid, Outcome: troth.Committed})
		if err != nil {
			return err
		}
		if _, err := fmt.Println(gid, outcome); err != nil {
			return err
		}
	}
}

// TestKilled kills a process again and again while it commits. Work and decision
// must agree, and everything acknowledged must be there.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"wal", "delete"} {
		t.Run(journal, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "bank.db")
			db := openDB(t, path, "_pragma=busy_timeout(10000)&_pragma=journal_mode("+journal+")")
			h := &home{T: t, outside: db}
			h.exec(db, "create table work (gid text primary key)")
			var acked []string
			for range 6 {
				acked = append(acked, runAndKill(t, path, 1+rand.IntN(30))...)
			}
			for _, gid := range acked {
				h.wantNumber(db, "select count(*) from work join troth_decision using (gid) where outcome = 'commit' and gid = '"+gid+"'", 1)
			}
			h.wantNumber(db, "select count(*) from work where gid not in (select gid from troth_decision)", 0)
			h.wantNumber(db, "select count(*) from troth_decision where gid not in (select gid from work)", 0)
			t.Logf("%d commits acknowledged, %d there", len(acked), h.number(db, "select count(*) from work"))
		})
	}
}

// runAndKill lets a child commit n times at least, kills it, and returns what it
// acknowledged.
func runAndKill(t *testing.T, path string, n int) (acked []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var gid, outcome string
		if _, err := fmt.Sscan(lines.Text(), &gid, &outcome); err != nil || outcome != "committed" {
			continue // the last line may be torn
		}
		if acked = append(acked, gid); len(acked) == n {
			if err := cmd.Process.Kill(); err != nil { // SIGKILL; what it printed before is still read
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(acked) < n {
		t.Fatalf("the child ended by itself after %d commits: %v", len(acked), err)
	}
	return acked
}
