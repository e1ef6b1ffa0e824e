//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// fileName is the database's. SQLite adds "-wal" and "-shm" for the files beside it, and
// gives them the mode of this one.
const fileName = "troth.db"

// A directory is one that this process has locked.
type directory struct {
	path string
	dir  *os.File
}

func (d *directory) close() error { return d.dir.Close() } // which unlocks

// openDirectory opens the directory, makes it if it is missing, and locks it for this
// process.
func openDirectory(path string) (_ *directory, err error) {
	if path == "" {
		return nil, errors.New("store: the directory has no name: give the path of a directory for the store alone")
	}
	path = filepath.Clean(path) // a name with a slash at its end would be followed
	if err := makeDirectory(path); err != nil {
		return nil, err
	}
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("store: %s is not a directory, or is a symbolic link to one: name the directory itself", path)
	}
	if err != nil {
		return nil, fmt.Errorf("store: open the directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Close())
		}
	}()
	info, err := dir.Stat()
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return nil, fmt.Errorf("store: others may write to %s (mode %#o): chmod 700 it, or name a directory inside it", path, mode)
	}
	// The lock belongs to this open directory: it ends with the process, however the
	// process ends, and no child inherits it.
	err = lock(dir)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s: stop the other process, or give this one a directory of its own", ErrLocked, path)
	}
	if err != nil {
		return nil, fmt.Errorf("store: lock %s: %w", path, err)
	}
	if err := makeFile(filepath.Join(path, fileName), dir); err != nil {
		return nil, err
	}
	return &directory{path: path, dir: dir}, nil
}

func lock(dir *os.File) error {
	for {
		if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// makeDirectory makes path unless it is there, whatever the umask is.
func makeDirectory(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: make the directory: %w: make %s first", err, filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("store: make the directory: %w", err)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return fmt.Errorf("store: make the directory: %w", err)
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("store: sync the parent directory: %w", err)
	}
	if err := errors.Join(parent.Sync(), parent.Close()); err != nil {
		return fmt.Errorf("store: sync the parent directory: %w", err)
	}
	return nil
}

// makeFile makes the database's file unless it is there, so that it never had another
// mode, and refuses a symbolic link, which SQLite would follow.
func makeFile(path string, dir *os.File) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("store: %s is a symbolic link: a store's file must lie in its directory", path)
	}
	if err != nil {
		return fmt.Errorf("store: open the file: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close(), dir.Sync()); err != nil {
		return fmt.Errorf("store: make the file: %w", err)
	}
	return nil
}
