package history

import "golang.org/x/sys/unix"

// Now is the machine's monotonic clock in nanoseconds: all processes of one
// machine read the same one, which time.Now does not give.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("history: no monotonic clock: " + err.Error())
	}
	return ts.Nano()
}
