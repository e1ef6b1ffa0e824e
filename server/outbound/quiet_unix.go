//go:build unix

package outbound

import (
	"errors"
	"syscall"
)

// quiet reports whether nothing has come on an idle connection: neither its end nor
// what nobody had asked for, such as a second answer, which must never be taken for the
// answer to the next call. What it reads is lost: only a quiet connection is used again.
func quiet(raw syscall.RawConn) (ok bool) {
	err := raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, err := syscall.Read(int(fd), b[:])
		ok = errors.Is(err, syscall.EAGAIN)
		return true // it does not wait
	})
	return err == nil && ok
}
