//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// ownedByUs fails if the directory of a file log belongs to another user. Opening a
// log writes a new segment, which the program that owns the log could not read
// afterwards.
func ownedByUs(info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() {
		return nil
	}
	owner := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	} else if unknown := user.UnknownUserIdError(0); !errors.As(err, &unknown) {
		return fmt.Errorf("look up the owner of the log: %w", err)
	}
	return fmt.Errorf("the log belongs to the user %s: run troth as that user, or its program cannot open the log afterwards", owner)
}
