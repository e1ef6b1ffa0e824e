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

// A plan is one part of TROTH_FAULT.
type plan struct {
	point  string
	n      int
	action string
}

var plans = sync.OnceValue(func() []plan {
	text := os.Getenv("TROTH_FAULT")
	if text == "" {
		return nil
	}
	var all []plan
	for part := range strings.SplitSeq(text, ",") {
		fields := strings.Split(part, ":")
		if len(fields) != 3 {
			panic("TROTH_FAULT: want <point>:<n>:<action>, not " + part)
		}
		n, err := strconv.Atoi(fields[1])
		if err != nil {
			panic("TROTH_FAULT: want <point>:<n>:<action>, not " + part)
		}
		p := plan{fields[0], n, fields[2]}
		if p.point != "*" && !known()[p.point] {
			panic("TROTH_FAULT: no point is called " + p.point)
		}
		all = append(all, p)
	}
	return all
})

var known = sync.OnceValue(func() map[string]bool {
	names := make(map[string]bool)
	for _, p := range append(Points(), ServerPoints()...) {
		names[p.Name] = true
	}
	return names
})

var (
	mu   sync.Mutex
	hits = make(map[string]int)
)

// Hit marks a point and carries out what TROTH_FAULT asks for.
func Hit(point string) {
	if !known()[point] {
		panic("faultpoint: " + point + " is not among Points")
	}
	mu.Lock()
	hits[point]++
	hit := hits[point]
	mu.Unlock()
	for _, p := range plans() {
		if p.point == point || p.point == "*" {
			p.carryOut(point, hit)
		}
	}
}

func (p plan) carryOut(point string, hit int) {
	if p.action == "print" {
		tell(point)
		return
	}
	if hit != p.n {
		return
	}
	switch p.action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way: not one step further
	case "freeze":
		tell(point)
		// Sent to this very thread, so that it is stopped before the call returns:
		// with kill(2) another thread may take the signal and this one run on a little.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(syscall.Gettid()), uintptr(syscall.SIGSTOP))
	case "exit":
		os.Exit(7)
	default:
		panic("TROTH_FAULT: no action is called " + p.action)
	}
}

func tell(point string) { fmt.Fprintln(os.Stderr, "faultpoint "+point) }
