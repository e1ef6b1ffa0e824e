package engine

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// Limits are what holds for every transaction that does not ask for something else.
type Limits struct {
	// TimeoutToFail is how long nothing may be heard of the caller of a TCC or XA
	// before it is aborted, and of a message or workflow before it is asked. Defaults to 35 s.
	TimeoutToFail time.Duration

	// RetryInterval is the pause before the first repetition; it doubles with each, up
	// to RetryIntervalMax. They default to 10 s and 10 min.
	RetryInterval    time.Duration
	RetryIntervalMax time.Duration

	// RequestTimeout is the time that a call may take. Defaults to 3 s.
	RequestTimeout time.Duration

	// ErrorMax is the length in bytes to which what participants say is cut before it
	// is stored. Defaults to 1024.
	ErrorMax int

	// StepsMax and PayloadsMax are how many steps a request may have, and how many bytes
	// their payloads together. They default to 1,000 and 16 MiB.
	StepsMax    int
	PayloadsMax int

	// Lease is how long another engine leaves a transaction alone that this one drives.
	// A pass that takes longer may be repeated by another, which costs calls and
	// breaks nothing. Defaults to 15 s.
	Lease time.Duration

	jitter func(time.Duration) time.Duration
}

// timeout is after how long without news of the caller something is done.
func (m *machine) timeout() time.Duration {
	if d := m.t.Options.TimeoutToFail; d > 0 {
		return d
	}
	return m.limits.TimeoutToFail
}

func (m *machine) deadline() time.Time { return m.t.Created.Add(m.timeout()) }

func timeoutReason(d time.Duration) string {
	return fmt.Sprintf("Timeout after %g seconds", d.Seconds()) // dtm's words
}

// cut shortens what others say, at a boundary of characters.
func cut(s string, bytesMax int) string {
	if len(s) <= bytesMax {
		return s
	}
	for bytesMax > 0 && !utf8.RuneStart(s[bytesMax]) {
		bytesMax--
	}
	return s[:bytesMax]
}

const gidMax = 128 // bytes, as dtm's

// check names what is wrong with a request.
func (l *Limits) check(r Request) error {
	switch {
	case r.GID == "":
		return fmt.Errorf("engine: gid is empty")
	case len(r.GID) > gidMax:
		return fmt.Errorf("engine: gid has %d bytes, the limit is %d", len(r.GID), gidMax)
	case len(r.Steps) > l.StepsMax:
		return fmt.Errorf("engine: %d steps, the limit is %d", len(r.Steps), l.StepsMax)
	}
	for _, c := range r.GID {
		if c < ' ' || c == 0x7f || c == utf8.RuneError {
			return fmt.Errorf("engine: gid has the character %q: use letters, digits and punctuation", c)
		}
	}
	payloads := 0
	for i, s := range r.Steps {
		payloads += len(s.Payload)
		for _, before := range r.Options.Orders[i] {
			if before < 0 || before >= len(r.Steps) {
				return fmt.Errorf("engine: orders: step %d waits for step %d, and there are %d", i, before, len(r.Steps))
			}
		}
	}
	if payloads > l.PayloadsMax {
		return fmt.Errorf("engine: payloads have %d bytes, the limit is %d", payloads, l.PayloadsMax)
	}
	return nil
}
