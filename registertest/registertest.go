// Package registertest is the conformance suite of decision registers.
package registertest

import (
	"testing"

	"github.com/troth-tx/troth"
)

// A Factory makes registers for the suite and says what they can.
type Factory struct {
	// New makes fresh storage and returns a function that makes a register over
	// it, not opened yet. The suite opens and closes every register that it gets.
	New func(t *testing.T) func(t *testing.T) troth.Register

	// SingleOwner: the storage can be open once at a time.
	SingleOwner bool

	// AbortsVolatile: abort records may be lost when the register is closed.
	AbortsVolatile bool

	// SharedByDomains: several domains keep their decisions in one storage.
	SharedByDomains bool
}

// Run tests the registers of f against the contract of [troth.Register].
func Run(t *testing.T, f Factory) { t.Skip("not written yet") }
