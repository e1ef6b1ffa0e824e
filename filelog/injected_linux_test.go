package filelog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/troth-tx/troth"
)

// runSteps runs the program under strace, with its calls of the system failing as
// inject says.
func runSteps(t *testing.T, dir string, first int, inject string) (decided []troth.GID, failure string) {
	t.Helper()
	call, _, _ := strings.Cut(inject, ":")
	cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", "inject="+inject, must(os.Executable()))
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", stepsVariable, first, dir), "GOMAXPROCS=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", inject, err, stderr.String())
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		switch what, rest, _ := strings.Cut(lines.Text(), " "); what {
		case "D":
			if failure != "" {
				t.Fatalf("%s: %s was confirmed after %s", inject, rest, failure)
			}
			decided = append(decided, troth.GID(rest))
		case "E":
			failure = rest
		case "N":
			t.Fatalf("%s: the log failed with %s; the next call said %s", inject, failure, rest)
		case "C":
		default:
			t.Fatalf("%s: the program says %q", inject, lines.Text())
		}
	}
	return decided, failure
}

// needStrace skips the test, aloud, where processes cannot be traced.
func needStrace(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("strace", "-qq", "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("skipped: strace, which makes real calls of the system fail, does not run here: %v\n%s", err, out)
	}
}

// Real calls of the system fail in a real process. It never confirms anything
// afterwards, and started again it has everything that it confirmed before.
func TestInjectedFailures(t *testing.T) {
	t.Parallel()
	needStrace(t)
	poisons := map[string]bool{"fdatasync:error=EIO": true, "pwrite64:error=EIO": true, "pwrite64:error=ENOSPC": true, "fsync:error=EIO": false, "renameat:error=EIO": false}
	failed, poisoned := 0, 0
	for fault, byDecision := range poisons {
		dir := filepath.Join(t.TempDir(), "log")
		var confirmed []troth.GID
		for i, when := range []string{"1", "2", "3", "4", "5", "8", "20+", "60", "100+"} {
			inject := fault + ":when=" + when
			decided, failure := runSteps(t, dir, i*(stepsMax+1), inject)
			confirmed = append(confirmed, decided...)
			if failure != "" {
				failed++
			}
			if strings.Contains(failure, ErrFailed.Error()) {
				poisoned++
				if !byDecision {
					t.Errorf("%s: %s; want no poison, for a decision does not need that call", inject, failure)
				}
			}
			if failure == "" && len(decided) != stepsMax {
				t.Errorf("%s: %d decisions, and no failure", inject, len(decided))
			}
			requireDecided(t, inject, dir, confirmed)
		}
	}
	if failed < len(poisons) || poisoned == 0 {
		t.Errorf("%d programs failed, %d of them in a decision: the faults did not hit", failed, poisoned)
	}
	t.Logf("%d programs failed, %d of them in a decision", failed, poisoned)
}

// requireDecided opens the log and fails unless it holds the decisions.
func requireDecided(t *testing.T, what, dir string, want []troth.GID) {
	t.Helper()
	l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem())
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	defer closeLog(t, l)
	for _, gid := range want {
		if got, err := l.Lookup(t.Context(), gid); err != nil || got != troth.Committed {
			t.Fatalf("%s: %s is %v, %v", what, gid, got, err)
		}
	}
}

// smallDisk mounts a file system of that many bytes, in memory, and returns where.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can mount the small file system that this test fills")
	}
	dir := t.TempDir()
	if err := syscall.Mount("troth-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("skipped: cannot mount the small file system that this test fills: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil { // a child of another test may be about to close it
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// On a disk that is really full the log stops, without poison and without losing
// anything, opens or refuses to with the reason, and goes on when there is room.
func TestFullDiskForReal(t *testing.T) {
	t.Parallel()
	const room = 5 * segmentSizeMin
	disk := smallDisk(t, room)
	dir := filepath.Join(disk, "log")
	l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem())
	if err != nil {
		t.Fatal(err)
	}
	var decided []troth.GID
	for n := 0; err == nil && n < 10_000; n++ {
		if _, err = l.Decide(t.Context(), bigCommit(n)); err == nil {
			decided = append(decided, gidNo(n))
		}
	}
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "make space") {
		t.Fatalf("after %d decisions: %v; want that the disk is full, and nothing worse", len(decided), err)
	}
	closeLog(t, l)
	if l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem()); err == nil {
		closeLog(t, l)
		t.Fatal("the log was opened on a full disk")
	} else if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("open on a full disk: %v", err)
	}
	if err := syscall.Mount("troth-test", disk, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", 4*room)); err != nil {
		t.Fatal(err)
	}
	requireDecided(t, "with more room", dir, decided)
	t.Logf("%d decisions fit on %d bytes", len(decided), room)
}

// A disk that becomes read-only stops the log, and nothing confirmed is lost.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 16*segmentSizeMin)
	dir := filepath.Join(disk, "log")
	l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem())
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		decide(t, l, bigCommit(n), troth.Committed)
	}
	closeLog(t, l)
	if err := syscall.Mount("troth-test", disk, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem()); err == nil {
		closeLog(t, l)
		t.Fatal("the log was opened on a disk that cannot be written to")
	} else if !errors.Is(err, syscall.EROFS) {
		t.Fatalf("open on a read-only disk: %v", err)
	}
	if err := syscall.Mount("troth-test", disk, "tmpfs", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	var want []troth.GID
	for n := range 10 {
		want = append(want, gidNo(n))
	}
	requireDecided(t, "writable again", dir, want)
}
