// Package registertest is the conformance suite of decision registers. A
// register that passes can decide transactions.
//
//	func TestRegister(t *testing.T) {
//		registertest.Run(t, registertest.Factory{
//			New: func(t *testing.T) func(t *testing.T) troth.Register {
//				dir := t.TempDir()
//				return func(*testing.T) troth.Register { return filelog.New(dir) }
//			},
//		})
//	}
package registertest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/troth-tx/troth"
)

// A Factory makes registers for the suite and says what they can.
type Factory struct {
	// New makes fresh storage and returns a function that makes a register over
	// it, not opened yet. That function is called several times for one storage.
	// The suite opens and closes what it returns.
	New func(t *testing.T) func(t *testing.T) troth.Register

	// SingleOwner: the storage can be open once at a time.
	SingleOwner bool

	// AbortsVolatile: abort records may be lost when the register is closed.
	AbortsVolatile bool

	// SharedByDomains: several domains keep their decisions in one storage, and
	// Committed and Expire heed only the one that the register was opened for.
	SharedByDomains bool

	// Floor: once Expire has run, commits of transactions that began longer ago
	// than its age are answered with Aborted.
	Floor bool
}

// Run tests the registers of f against the contract of [troth.Register].
func Run(t *testing.T, f Factory) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"Decide", testDecide},
		{"DecideRefusesNonsense", testDecideRefusesNonsense},
		{"FirstWriterWins", testFirstWriterWins},
		{"ManyAtOnce", testManyAtOnce},
		{"TwoOwners", testTwoOwners},
		{"Reopen", testReopen},
		{"Identity", testIdentity},
		{"Branches", testBranches},
		{"CommittedPages", testCommittedPages},
		{"CommittedAge", testCommittedAge},
		{"Forget", testForget},
		{"Expire", testExpire},
		{"ExpireBatches", testExpireBatches},
		{"Floor", testFloor},
		{"Domains", testDomains},
		{"CancelledContext", testCancelledContext},
		{"Closed", testClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, &bench{t: t, f: f, make: f.New(t)})
		})
	}
}

const domain = "bank"

// A bench is one storage and what a test does with it.
type bench struct {
	t    *testing.T
	f    Factory
	make func(t *testing.T) troth.Register
}

// open opens a register over the storage; it is closed when the test ends.
func (b *bench) open() troth.Register { b.t.Helper(); return b.openFor(domain) }

func (b *bench) openFor(domain string) troth.Register {
	b.t.Helper()
	reg := b.make(b.t)
	cfg := troth.RegisterConfig{Domain: domain, Logger: slog.New(slog.DiscardHandler)}
	if err := reg.Open(b.t.Context(), cfg); err != nil {
		b.t.Fatalf("Open: %v", err)
	}
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := reg.Close(ctx); err != nil {
			b.t.Errorf("Close: %v", err)
		}
	})
	return reg
}

func (b *bench) close(reg troth.Register) {
	b.t.Helper()
	if err := reg.Close(b.t.Context()); err != nil {
		b.t.Fatalf("Close: %v", err)
	}
}

func (b *bench) decide(reg troth.Register, d troth.Decision, want troth.Outcome) {
	b.t.Helper()
	got, err := reg.Decide(b.t.Context(), d)
	if err != nil || got != want {
		b.t.Fatalf("Decide(%s, %v) = %v, %v, want %v", d.GID, d.Outcome, got, err, want)
	}
}

func (b *bench) lookup(reg troth.Register, gid troth.GID, want troth.Outcome) {
	b.t.Helper()
	got, err := reg.Lookup(b.t.Context(), gid)
	if err != nil || got != want {
		b.t.Fatalf("Lookup(%s) = %v, %v, want %v", gid, got, err, want)
	}
}

func (b *bench) committed(reg troth.Register, minAge time.Duration, after troth.GID, limit int) []troth.Decision {
	b.t.Helper()
	list, err := reg.Committed(b.t.Context(), minAge, after, limit)
	if err != nil {
		b.t.Fatalf("Committed: %v", err)
	}
	for _, d := range list {
		if d.Outcome != troth.Committed {
			b.t.Fatalf("Committed lists %s, which is %v", d.GID, d.Outcome)
		}
	}
	return list
}

// expire runs Expire until nothing is left, and returns how many were dropped.
func (b *bench) expire(reg troth.Register, age time.Duration) int {
	b.t.Helper()
	sum, idle := 0, 0
	for idle < 3 { // a floor needs two runs to settle
		n, err := reg.Expire(b.t.Context(), age)
		if err != nil {
			b.t.Fatalf("Expire(%v): %v", age, err)
		}
		sum += n
		if n == 0 {
			idle++
		}
	}
	return sum
}

func newGID() troth.GID { return troth.NewGID(domain, time.Now()) }

// oldGID names a transaction that began an hour ago.
func oldGID() troth.GID { return troth.NewGID(domain, time.Now().Add(-time.Hour)) }

func commit(gid troth.GID) troth.Decision {
	return troth.Decision{GID: gid, Outcome: troth.Committed, Branches: []troth.BranchRecord{{Resource: "porthos", Branch: 2}}}
}

func abort(gid troth.GID) troth.Decision { return troth.Decision{GID: gid, Outcome: troth.Aborted} }
