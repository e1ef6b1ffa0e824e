package filelog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// files is the log's directory. The log knows the disk only through it, so that
// tests can cut the power. Names have no directory part.
type files interface {
	List() ([]string, error)
	ReadFile(name string) ([]byte, error)
	Create(name string) (file, error) // that must not exist, for its owner alone
	Rename(from, to string) error     // replaces to
	Remove(name string) error
	Inode(name string) (uint64, error) // tells a file from a copy of it; 0: nothing here does
	SyncDir() error                    // makes creations, renames and removals last
}

type file interface {
	io.WriterAt
	Sync() error // makes what was written last
	Close() error
}

// Names in the directory.
const (
	segmentSuffix = ".log"
	tempSuffix    = ".tmp"     // being prepared: removed when a log is opened
	tornName      = "torn.bak" // the last segment that ended in a torn write, for the curious
)

func segmentName(number uint32) string { return fmt.Sprintf("%010d%s", number, segmentSuffix) }

// parseSegmentName returns the number in a segment's name. Files of other names
// are none of the log's business.
func parseSegmentName(name string) (number uint32, ok bool) {
	base, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(base) != 10 {
		return 0, false
	}
	var n uint64
	for _, c := range []byte(base) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(n), n > 0 && n < 1<<32
}

// osFiles are real files.
type osFiles struct {
	root   *os.Root
	dir    *os.File // the same directory: it holds the lock, and syncs
	inodes bool     // the file system keeps the numbers of its inodes
}

func (o osFiles) List() ([]string, error) {
	entries, err := fs.ReadDir(o.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (o osFiles) ReadFile(name string) ([]byte, error) { return o.root.ReadFile(name) }
func (o osFiles) Rename(from, to string) error         { return o.root.Rename(from, to) }
func (o osFiles) Remove(name string) error             { return o.root.Remove(name) }
func (o osFiles) SyncDir() error                       { return o.dir.Sync() }

func (o osFiles) Inode(name string) (uint64, error) {
	if !o.inodes {
		return 0, nil
	}
	info, err := o.root.Lstat(name)
	if err != nil {
		return 0, err
	}
	return inodeOf(info), nil
}

func (o osFiles) Create(name string) (file, error) {
	f, err := o.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil { // whatever the umask is
		return nil, errors.Join(err, f.Close())
	}
	return osFile{f}, nil
}

type osFile struct{ *os.File }

var errRemoved = errors.New("the file was removed while the log was in use")

// Sync syncs the data, and fails if nobody could find them any more: a log whose
// file was removed would promise what no restart can keep.
func (f osFile) Sync() error {
	if err := datasync(f.File); err != nil {
		return err
	}
	if n, err := linkCount(f.File); err != nil {
		return err
	} else if n == 0 {
		return &fs.PathError{Op: "sync", Path: f.Name(), Err: errRemoved}
	}
	return nil
}

// slowFiles make every sync longer, see WithSyncDelay.
type slowFiles struct {
	files
	delay time.Duration
}

func (s slowFiles) Create(name string) (file, error) {
	f, err := s.files.Create(name)
	return slowFile{f, s.delay}, err
}

func (s slowFiles) SyncDir() error {
	time.Sleep(s.delay)
	return s.files.SyncDir()
}

type slowFile struct {
	file
	delay time.Duration
}

func (s slowFile) Sync() error {
	time.Sleep(s.delay)
	return s.file.Sync()
}

var zeros [1 << 20]byte

// zeroFill writes zeros from off up to size. Space that is only reserved
// (fallocate) would have to be marked as written later, by the file system, in
// the middle of a decision.
func zeroFill(f file, off, size int64) error {
	for off < size {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
