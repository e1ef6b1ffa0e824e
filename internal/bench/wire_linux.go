package bench

import (
	"os"
	"syscall"
	"time"
)

// pause sleeps in the kernel: the runtime's timers round up to a millisecond when
// a process is idle.
func pause(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	for syscall.Nanosleep(&ts, &ts) == syscall.EINTR {
	}
}

// mapCounter maps a file of eight bytes.
func mapCounter(f *os.File) ([]byte, error) {
	return syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
}
