//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package filelog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// openDirectory opens the log's directory, makes it if it is missing, and locks
// it for this process. The notes are what an operator should hear.
func openDirectory(path string, s settings) (_ osFiles, notes []string, err error) {
	if path == "" {
		return osFiles{}, nil, errors.New("filelog: Open: the directory has no name: give the path of a directory for the log alone")
	}
	path = filepath.Clean(path) // Lstat follows a link whose name ends in a slash
	if err := makeDirectory(path); err != nil {
		return osFiles{}, nil, err
	}
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR) {
		return osFiles{}, nil, fmt.Errorf("filelog: %s is not a directory, or is a symbolic link to one: name the directory itself", path)
	}
	if err != nil {
		return osFiles{}, nil, fmt.Errorf("filelog: open the directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Close()) // which unlocks
		}
	}()
	notes, inodes, err := checkDirectory(dir, s)
	if err != nil {
		return osFiles{}, nil, err
	}
	// The lock belongs to this open directory: it ends with the process, however the
	// process ends, and no child inherits it.
	err = ignoringEINTR(func() error { return syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return osFiles{}, nil, fmt.Errorf("%w: %s: stop the other process, or give this one a directory of its own", ErrLocked, path)
	}
	if err != nil {
		return osFiles{}, nil, fmt.Errorf("filelog: lock %s: %w", path, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return osFiles{}, nil, fmt.Errorf("filelog: open the directory: %w", err)
	}
	if err := sameDirectory(root, dir); err != nil {
		return osFiles{}, nil, errors.Join(err, root.Close())
	}
	return osFiles{root: root, dir: dir, inodes: inodes}, notes, nil
}

// makeDirectory makes path unless it is there, whatever the umask is.
func makeDirectory(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("filelog: make the directory: %w: make %s first", err, filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("filelog: make the directory: %w", err)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return fmt.Errorf("filelog: make the directory: %w", err)
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("filelog: sync the parent directory: %w", err)
	}
	if err := errors.Join(parent.Sync(), parent.Close()); err != nil {
		return fmt.Errorf("filelog: sync the parent directory: %w", err)
	}
	return nil
}

// checkDirectory looks at who may write to the directory and what keeps it. inodes
// says that files there keep their inodes.
func checkDirectory(dir *os.File, s settings) (notes []string, inodes bool, err error) {
	info, err := dir.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("filelog: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, false, fmt.Errorf("filelog: others may write to %s (mode %#o), and so change decisions: chmod 700 it, or name a directory inside it", dir.Name(), mode)
	}
	if os.Geteuid() == 0 {
		notes = append(notes, "this process runs as root, which the decision log does not need: run it as a user of its own")
	}
	kind, verdict, err := fileSystem(dir)
	if err != nil {
		return nil, false, fmt.Errorf("filelog: %w", err)
	}
	switch {
	case verdict == fileSystemUnsafe && !s.unsafeFiles:
		return nil, false, fmt.Errorf("filelog: %s is on %s, which may lose decisions or let two machines own the log: use a local disk, or WithUnsafeFileSystem", dir.Name(), kind)
	case verdict != fileSystemSafe:
		notes = append(notes, "the decision log is on "+kind+": make sure that it outlives the machine's restart")
	}
	return notes, verdict == fileSystemSafe, nil
}

func sameDirectory(root *os.Root, dir *os.File) error {
	a, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("filelog: %w", err)
	}
	b, err := dir.Stat()
	if err != nil {
		return fmt.Errorf("filelog: %w", err)
	}
	if !os.SameFile(a, b) {
		return fmt.Errorf("filelog: %s was replaced while it was being opened", dir.Name())
	}
	return nil
}

func inodeOf(info fs.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Ino) //nolint:unconvert // narrower on other systems
}

// linkCount returns how many names a file has.
func linkCount(f *os.File) (uint64, error) {
	var st syscall.Stat_t
	if err := ignoringEINTR(func() error { return syscall.Fstat(int(f.Fd()), &st) }); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return uint64(st.Nlink), nil //nolint:unconvert // narrower on other systems
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

type fileSystemVerdict uint8

const (
	fileSystemSafe    fileSystemVerdict = iota
	fileSystemUnclear                   // depends on what is below
	fileSystemUnsafe
)
