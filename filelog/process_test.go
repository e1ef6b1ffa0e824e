package filelog

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/troth-tx/troth"
)

// childVariable makes the test binary a program that decides until it is killed,
// in the log that the variable names.
const childVariable = "TROTH_FILELOG_CHILD"

// childMain prints a line for each thing that it was told: "D <gid>" after a
// decision, "F <gid>" before it forgets one.
func childMain(dir string) {
	l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem())
	if err != nil {
		fmt.Println("E", err)
		os.Exit(1)
	}
	fmt.Println("O", l.Identity())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				d := commitNo(0)
				d.GID = troth.NewGID("bank", l.cfg.now())
				if _, err := l.Decide(background, d); err != nil {
					panic(err)
				}
				fmt.Println("D", d.GID)
				if n%3 != 0 {
					fmt.Println("F", d.GID)
					if err := l.Forget(background, []troth.GID{d.GID}); err != nil {
						panic(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func startChild(t *testing.T, dir string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(must(os.Executable()))
	cmd.Env = append(os.Environ(), childVariable+"="+dir)
	cmd.Stderr = os.Stderr
	out := must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be dead
		_ = cmd.Wait()
	})
	return cmd, bufio.NewReader(out)
}

// What a process printed as decided is there after it was killed, also what the
// processes before it printed.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "log")
	decided, forgotten := map[troth.GID]bool{}, map[troth.GID]bool{}
	identity := ""
	for cycle := range 8 {
		cmd, out := startChild(t, dir)
		for lines := 0; ; lines++ {
			if lines == 1000+500*cycle {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			line, err := out.ReadString('\n')
			if err != nil {
				break // a line that was not finished was not printed
			}
			what, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			switch what {
			case "D":
				decided[troth.GID(rest)] = true
			case "F":
				forgotten[troth.GID(rest)] = true
			case "O":
				if identity != "" && identity != rest {
					t.Fatalf("the identity was %s and is %s", identity, rest)
				}
				identity = rest
			default:
				t.Fatalf("the child says %q", line)
			}
		}
		_ = cmd.Wait() // killed
	}
	l, err := Open(dir, WithUnsafeFileSystem())
	if err != nil {
		t.Fatal(err)
	}
	defer closeLog(t, l)
	for gid := range decided {
		if !forgotten[gid] {
			lookup(t, l, gid, troth.Committed)
		}
	}
	if len(decided) < 8*500 {
		t.Errorf("only %d decisions were made", len(decided))
	}
}

func TestTwoOwners(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "log")
	cmd, out := startChild(t, dir)
	if line := must(out.ReadString('\n')); line[0] != 'O' {
		t.Fatal(line)
	}
	_, err := Open(dir, WithUnsafeFileSystem())
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("Open of another process's log: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	l, err := Open(dir, WithUnsafeFileSystem())
	if err != nil {
		t.Fatalf("Open after the owner died: %v", err)
	}
	if _, err := Open(dir, WithUnsafeFileSystem()); !errors.Is(err, ErrLocked) {
		t.Errorf("Open twice in one process: %v", err)
	}
	closeLog(t, l)
}
