//go:build faultpoint && linux

package faultpoint

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Enabled reports whether the fault points are compiled in.
const Enabled = true

var plan = sync.OnceValue(func() (p struct {
	point, action string
	n             int
},
) {
	fields := strings.Split(os.Getenv("TROTH_FAULT"), ":")
	if len(fields) != 3 {
		return p
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		panic("TROTH_FAULT: want <point>:<n>:<action>")
	}
	p.point, p.n, p.action = fields[0], n, fields[2]
	return p
})

var (
	mu   sync.Mutex
	hits = make(map[string]int)
)

// Hit marks a point and carries out what TROTH_FAULT asks for.
func Hit(point string) {
	p := plan()
	if p.action == "print" && (p.point == "*" || p.point == point) {
		fmt.Fprintln(os.Stderr, "faultpoint "+point)
		return
	}
	if p.point != point {
		return
	}
	mu.Lock()
	hits[point]++
	hit := hits[point]
	mu.Unlock()
	if hit != p.n {
		return
	}
	switch p.action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way: not one step further
	case "freeze":
		// Sent to this very thread, so that it is stopped before the call returns:
		// with kill(2) another thread may take the signal and this one run on a little.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(syscall.Gettid()), uintptr(syscall.SIGSTOP))
	case "exit":
		os.Exit(7)
	}
}
