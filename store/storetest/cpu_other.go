//go:build !linux

package storetest

import "time"

// CPUOf is 0: it is known on Linux only.
func CPUOf(string) time.Duration { return 0 }
