//go:build linux

package filelog

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/troth-tx/troth"
)

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

// Not parallel: the umask belongs to the process.
func TestModesUnderAnyUmask(t *testing.T) {
	for _, mask := range []int{0, 0o077, 0o777} {
		dir := filepath.Join(t.TempDir(), "log")
		old := syscall.Umask(mask)
		l, err := Open(dir, WithUnsafeFileSystem(), WithSegmentSize(segmentSizeMin))
		syscall.Umask(old)
		if err != nil {
			t.Fatalf("umask %#o: %v", mask, err)
		}
		closeLog(t, l)
		if mode := must(os.Stat(dir)).Mode().Perm(); mode != 0o700 {
			t.Errorf("umask %#o: the directory has mode %#o", mask, mode)
		}
		for _, e := range must(os.ReadDir(dir)) {
			if mode := must(e.Info()).Mode(); mode != 0o600 {
				t.Errorf("umask %#o: %s has mode %v", mask, e.Name(), mode)
			}
		}
	}
}

func TestOpenRefusesDirectories(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	must(0, os.Mkdir(filepath.Join(temp, "real"), 0o700))
	must(0, os.Symlink("real", filepath.Join(temp, "link")))
	must(0, os.WriteFile(filepath.Join(temp, "file"), nil, 0o600))
	must(0, os.Mkdir(filepath.Join(temp, "open"), 0o700))
	must(0, os.Chmod(filepath.Join(temp, "open"), 0o777))
	for dir, want := range map[string]string{
		"link":    "symbolic link",
		"link/":   "symbolic link",
		"file":    "not a directory",
		"open":    "chmod 700",
		"no/such": "first",
	} {
		l, err := Open(temp+"/"+dir, WithUnsafeFileSystem())
		if err == nil {
			closeLog(t, l)
			t.Errorf("%s was opened", dir)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want a word about %q", dir, err, want)
		}
	}
	if _, err := Open(""); err == nil {
		t.Error("a directory without a name was opened")
	}
	if _, err := Open(temp+"/new", WithSegmentSize(1)); err == nil || !strings.Contains(err.Error(), "WithSegmentSize") {
		t.Errorf("a segment of one byte: %v", err)
	}
	if _, err := os.Stat(temp + "/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a bad option left a directory behind")
	}
}

func TestOpenRefusesMemory(t *testing.T) {
	t.Parallel()
	const shm = "/dev/shm"
	var st syscall.Statfs_t
	if err := syscall.Statfs(shm, &st); err != nil || uint32(st.Type) != 0x01021994 {
		t.Skip("skipped: no tmpfs at /dev/shm")
	}
	dir := filepath.Join(must(os.MkdirTemp(shm, "filelog")), "log")
	defer os.RemoveAll(filepath.Dir(dir))
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "WithUnsafeFileSystem") {
		t.Errorf("Open on tmpfs: %v", err)
	}
	l, err := Open(dir, WithUnsafeFileSystem())
	if err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
}

// A log whose file was removed must not promise anything.
func TestRemovedWhileInUse(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "log")
	l, err := Open(dir, WithUnsafeFileSystem(), WithSegmentSize(segmentSizeMin))
	if err != nil {
		t.Fatal(err)
	}
	defer closeLog(t, l)
	decide(t, l, commitNo(1), troth.Committed)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Decide(t.Context(), commitNo(2)); !errors.Is(err, ErrFailed) || !errors.Is(err, errRemoved) {
		t.Errorf("Decide without a file: %v", err)
	}
}
