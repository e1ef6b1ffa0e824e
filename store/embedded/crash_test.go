package embedded

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/troth-tx/troth/store/storetest"
)

// childEnv makes this test binary a process that writes to a store until it is killed:
// its value is the directory and a prefix for the GIDs.
const childEnv = "TROTH_STORE_CHILD"

const childWorkers = 32

func TestMain(m *testing.M) {
	if task := os.Getenv(childEnv); task != "" {
		child(task)
	}
	goleak.VerifyTestMain(m)
}

func child(task string) {
	dir, prefix, _ := strings.Cut(task, "|")
	s, err := Open(context.Background(), dir, nil)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	err = storetest.Load{Prefix: prefix, Workers: childWorkers, Confirmed: func(gid string, version int64) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println("confirmed", gid, version)
	}}.Run(context.Background(), s)
	fmt.Println("error", err)
	os.Exit(1)
}

// What the store confirmed outlives the SIGKILL of its process, and nothing is there by
// halves. The next process opens the directory at once.
func TestProcessKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/s"
	confirmed := make(map[string]int64)
	const rounds = 8
	for round := range rounds {
		runChild(t, dir, fmt.Sprint("r", round), 100+rand.IntN(2000), confirmed)
	}
	s := mustOpen(t, dir)
	storetest.Check(t, s, confirmed, rounds*childWorkers)
	t.Logf("%d transactions confirmed over %d kills", len(confirmed), rounds)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireIntact(t, dir)
}

// runChild runs a process, kills it after so many confirmations, and notes all it made.
func runChild(t *testing.T, dir, prefix string, kill int, confirmed map[string]int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir+"|"+prefix)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // it was killed
	lines := bufio.NewScanner(out)
	for n := 1; lines.Scan(); n++ {
		var gid string
		var version int64
		if _, err := fmt.Sscanf(lines.Text(), "confirmed %s %d", &gid, &version); err != nil {
			_ = cmd.Process.Kill()
			t.Fatalf("the process says %q", lines.Text())
		}
		confirmed[gid] = version
		if n == kill {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// requireIntact lets SQLite compare every index with its table.
func requireIntact(t *testing.T, dir string) {
	t.Helper()
	db, err := connect(filepath.Join(dir, fileName), readerPragmas, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var verdict string
	if err := db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("the file is %q, %v, want ok", verdict, err)
	}
}
