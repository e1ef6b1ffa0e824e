package filelog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/troth-tx/troth"
)

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
	temp := must(os.MkdirTemp(shm, "filelog")) //nolint:usetesting // t.TempDir is elsewhere
	t.Cleanup(func() {
		if err := os.RemoveAll(temp); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(temp, "log")
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
