package filelog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/troth-tx/troth"
)

// diskLog makes a log on a real disk with some decisions, and closes it.
func diskLog(t *testing.T) (dir string, want []troth.GID) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "log")
	l := openDisk(t, dir)
	for n := range 10 {
		decide(t, l, commitNo(n), troth.Committed)
		want = append(want, gidNo(n))
	}
	closeLog(t, l)
	return dir, want
}

func openDisk(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// needInodes skips the test, aloud, where files do not keep their inodes.
func needInodes(t *testing.T, dir string) {
	t.Helper()
	d := must(os.Open(dir))
	defer func() { _ = d.Close() }() // only read from
	if _, inodes, err := checkDirectory(d, settings{unsafeFiles: true}); err != nil || !inodes {
		t.Skipf("skipped: the file system of %s may change inodes, so copies are not noticed there: %v", dir, err)
	}
}

// copyDirectory copies file by file, as people and backups do.
func copyDirectory(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	must(0, os.Mkdir(to, 0o700))
	for _, e := range must(os.ReadDir(from)) {
		content, err := os.ReadFile(filepath.Join(from, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the next segment, which got its name meanwhile
		}
		must(0, errors.Join(err, os.WriteFile(filepath.Join(to, e.Name()), content, 0o600)))
	}
	return to
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, e := range must(os.ReadDir(dir)) {
		out[e.Name()] = string(must(os.ReadFile(filepath.Join(dir, e.Name()))))
	}
	return out
}

// A copy of a log in use has its identity, and would roll back what it has not
// decided. It does not start, until an operator says that the original is gone.
func TestCopiedDirectory(t *testing.T) {
	t.Parallel()
	dir, want := diskLog(t)
	needInodes(t, dir)
	original := openDisk(t, dir)
	defer closeLog(t, original)
	decide(t, original, commitNo(10), troth.Committed)
	dup := copyDirectory(t, dir)
	before := contents(t, dup)
	l, err := Open(dup, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem())
	if !errors.Is(err, ErrCopied) || !strings.Contains(err.Error(), adoptName) {
		if err == nil {
			closeLog(t, l)
		}
		t.Fatalf("open a copy: %v; want ErrCopied and what to do", err)
	}
	if after := contents(t, dup); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("the copy was refused, but changed")
	}
	decide(t, original, commitNo(11), troth.Committed) // which is none of its business

	must(0, os.WriteFile(filepath.Join(dup, adoptName), nil, 0o600))
	requireDecided(t, "adopted", dup, append(want, gidNo(10)))
	if _, err := os.Stat(filepath.Join(dup, adoptName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the operator's word outlives its use: %v", err)
	}
	requireDecided(t, "opened again", dup, append(want, gidNo(10)))
	if _, err := Open(copyDirectory(t, dup), WithUnsafeFileSystem()); !errors.Is(err, ErrCopied) {
		t.Errorf("a copy of the copy: %v", err)
	}
}

// One file that was put back from a backup is enough.
func TestRestoredSegment(t *testing.T) {
	t.Parallel()
	dir, want := diskLog(t)
	needInodes(t, dir)
	names := must(filepath.Glob(filepath.Join(dir, "*.log")))
	backup := names[0] + ".backup"
	must(0, os.WriteFile(backup, must(os.ReadFile(names[0])), 0o600))
	must(0, os.Rename(backup, names[0]))
	if _, err := Open(dir, WithUnsafeFileSystem()); !errors.Is(err, ErrCopied) {
		t.Fatalf("a restored segment: %v", err)
	}
	must(0, os.WriteFile(filepath.Join(dir, adoptName), nil, 0o600))
	requireDecided(t, "adopted", dir, want)
}

// A directory that was moved is not a copy.
func TestMovedDirectory(t *testing.T) {
	t.Parallel()
	dir, want := diskLog(t)
	must(0, os.Rename(dir, dir+"-moved"))
	requireDecided(t, "moved", dir+"-moved", want)
}

// The power may fail while a copy is being adopted. Then it is adopted, or the
// operator's word still holds.
func TestPowerCutWhileAdopting(t *testing.T) {
	t.Parallel()
	fs, w := newMemFiles(), newLedger()
	fs.inodes = 1
	l := openMem(t, fs, small())
	if err := w.run(l, 12); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	fs = fs.cut(func(int) bool { return true })
	for _, f := range fs.names {
		f.inode += 1000
	}
	fs.inodes += 10_000
	if _, err := openFiles(fs, small(), nil); !errors.Is(err, ErrCopied) {
		t.Fatalf("open a copy: %v", err)
	}
	fs.set(adoptName, nil)
	scenes := film(fs, w)
	w.check(t, "adopted", fs)
	tried := 0
	for i, s := range scenes() {
		subsets(s.fs.cuttable(), 2, func(what string, keep func(int) bool) {
			s.checkTwice(t, fmt.Sprintf("power cut after change %d, %s", i, what), s.fs.cut(keep))
			tried++
		})
	}
	if tried < 50 {
		t.Errorf("only %d power cuts", tried)
	}
}

const nobody = 65534

// asNobody runs f without root's rights over files, which tests may have.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if os.Geteuid() == 0 {
			_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0) // of this thread alone
		}
		f()
	}()
	<-done
}

// A file that may not be read is not one that is missing.
func TestUnreadableFiles(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"0000000001.log", markName, "."} {
		dir, want := diskLog(t)
		// Whoever asks must come as far as the file itself.
		must(0, os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755))
		must(0, os.Chmod(filepath.Dir(dir), 0o755))
		must(0, os.Chmod(dir, 0o755))
		if os.Geteuid() == 0 {
			must(0, os.Chown(dir, nobody, nobody))
			for _, e := range must(os.ReadDir(dir)) {
				must(0, os.Chown(filepath.Join(dir, e.Name()), nobody, nobody))
			}
		}
		path := filepath.Join(dir, name)
		mode := must(os.Stat(path)).Mode().Perm()
		must(0, os.Chmod(path, 0))
		before := len(must(os.ReadDir(dir)))
		asNobody(t, func() {
			l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem())
			if err == nil {
				closeLog(t, l)
			}
			if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), filepath.Base(path)) {
				t.Errorf("%s without rights: %v", name, err)
			}
		})
		must(0, os.Chmod(path, mode))
		if after := len(must(os.ReadDir(dir))); after != before {
			t.Errorf("%s without rights: %d files, %d before", name, after, before)
		}
		requireDecided(t, name+" readable again", dir, want)
	}
}
