//go:build !race

package engine

// few is what tests of thousands divide their numbers by.
const few = 1
