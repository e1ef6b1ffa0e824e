//go:build race

package engine

// few is what tests of thousands divide their numbers by. With tens of thousands of
// goroutines the race detector's runtime now and then ends the process with a failed check
// of its own (tsan_rtl.cpp, kEpochLast).
const few = 10
