//go:build !linux

package history

import "time"

var start = time.Now()

// Now is a monotonic clock in nanoseconds. Here it is this process's own: histories
// of several processes can be merged on Linux only.
func Now() int64 { return int64(time.Since(start)) + 1 }
