package filelog

import (
	"errors"
	"fmt"
)

// ErrCopied says that the directory is a copy of a log, or was restored from one.
// Two logs of one identity roll back each other's transactions, and an older one
// has forgotten what was decided since. If the original will never run again and
// nothing was decided after the copy was made, make an empty file named
// "adopt-copy" in the directory, and open it again.
var ErrCopied = errors.New("filelog: the directory is a copy of a log")

// adoptName is the file with which an operator says that a copy is meant. Open
// removes it.
const adoptName = "adopt-copy"

// checkCopied compares the file that a segment is in with the one that the log
// made for it. A copy made file by file has other inodes; a clone of a whole file
// system has not, and is not noticed.
func (l *loader) checkCopied(name string, h header) error {
	if h.inode == 0 || l.adopted {
		return nil
	}
	inode, err := l.fs.Inode(name)
	if err != nil {
		return fmt.Errorf("filelog: read: %w", err)
	}
	if inode == 0 || inode == h.inode {
		return nil
	}
	return fmt.Errorf("%w: %s is not the file that the log wrote: start the log in its own directory; if that is gone for good, and nothing was decided after the copy was made, make an empty file named %s in this one and try again",
		ErrCopied, name, adoptName)
}
