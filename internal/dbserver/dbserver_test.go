package dbserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The tests of what a server can do are package dbtest's; these are about what
// is left of one.

func TestMain(m *testing.M) {
	if os.Getenv("DBSERVER_ORPHAN") != "" {
		startOrphans()
	}
	os.Exit(m.Run())
}

// startOrphans is the other process of the next test: it starts servers, says
// where, and waits for its end.
func startOrphans() {
	p, err := StartPostgres(context.Background(), PostgresConfig{})
	if err != nil {
		panic(err)
	}
	m, err := StartMariaDB(context.Background(), MariaDBConfig{})
	if err != nil {
		panic(err)
	}
	if os.Getenv("DBSERVER_ORPHAN") == "frozen" {
		if err := errors.Join(p.Freeze(), m.Freeze()); err != nil {
			panic(err)
		}
	}
	_, _ = os.Stdout.WriteString(p.dir + "\n" + m.dir + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	panic("asked to panic")
}

func TestServersDieWithTheirOwner(t *testing.T) {
	for _, how := range []string{"killed", "frozen", "panic"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "DBSERVER_ORPHAN="+how)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var dirs []string
			for lines := bufio.NewScanner(stdout); len(dirs) < 2 && lines.Scan(); {
				dirs = append(dirs, lines.Text())
			}
			if len(dirs) < 2 || len(processes(dirs[0])) < 3 || len(processes(dirs[1])) != 1 {
				t.Errorf("servers did not start: %v", dirs)
			}
			if how == "panic" {
				_ = stdin.Close()
			} else {
				_ = cmd.Process.Kill()
			}
			_ = cmd.Wait() // it was killed, or it panicked
			for _, dir := range dirs {
				requireGone(t, dir)
			}
		})
	}
}

func requireGone(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) && len(processes(dir)) == 0 {
			return
		}
	}
	left, _ := filepath.Glob(dir + "/*")
	t.Errorf("left behind: processes %v, files %v", processes(dir), left)
}
