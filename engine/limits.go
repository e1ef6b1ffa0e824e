package engine

import (
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/troth-tx/troth/store"
)

// Limits are what holds for every transaction that does not ask for something else.
type Limits struct {
	// TimeoutToFail is how long nothing may be heard of the caller of a TCC or XA
	// before it is aborted, and of a message or workflow before it is asked. Defaults to 35 s.
	TimeoutToFail time.Duration

	// RetryInterval is the pause after a branch said that it goes on. After an answer
	// that was none it doubles each time, up to RetryIntervalMax: 20 s, 40 s, ... by
	// default, as dtm's does. One transaction of those that wait for the same address
	// is its canary: it does not double, and when it gets through, all are tried at
	// once. They default to 10 s and 10 min.
	RetryInterval    time.Duration
	RetryIntervalMax time.Duration

	// RequestTimeout is the time that a call may take; nobody may ask for more than an
	// hour. Defaults to 3 s.
	RequestTimeout time.Duration

	// ErrorMax is the length in bytes to which what participants say is cut before it
	// is stored. Defaults to 1024.
	ErrorMax int

	// StepsMax and PayloadsMax are how many steps a request may have, and how many bytes
	// their payloads together. They default to 1,000 and 16 MiB. A transaction has up to
	// twice as much in its branches: a step has two in most patterns, a topic has many
	// subscribers, and others are registered one by one.
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

// late reports whether nothing was heard of the caller in time.
func (m *machine) late(now time.Time) bool { return !now.Add(m.ageAhead).Before(m.deadline()) }

// interval is the first pause between passes.
func (m *machine) interval() time.Duration {
	if d := m.t.Options.RetryInterval; d > 0 {
		return d
	}
	return m.limits.RetryInterval
}

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
		return fmt.Errorf("%w: gid is empty", ErrInvalid)
	case len(r.GID) > gidMax:
		return fmt.Errorf("%w: gid has %d bytes, the limit is %d", ErrInvalid, len(r.GID), gidMax)
	case len(r.Steps) > l.StepsMax:
		return fmt.Errorf("%w: %d steps, the limit is %d", ErrInvalid, len(r.Steps), l.StepsMax)
	}
	for _, c := range r.GID {
		if c < ' ' || c == 0x7f || c == utf8.RuneError {
			return fmt.Errorf("%w: gid has the character %q: use letters, digits and punctuation", ErrInvalid, c)
		}
	}
	payloads := 0
	for _, step := range r.Steps {
		payloads += len(step.Payload)
	}
	if payloads > l.PayloadsMax {
		return fmt.Errorf("%w: payloads have %d bytes, the limit is %d", ErrInvalid, payloads, l.PayloadsMax)
	}
	if err := checkOrders(r.Options.Orders, len(r.Steps)); err != nil {
		return err
	}
	return checkOptions(r)
}

func checkOptions(r Request) error {
	o := r.Options
	if d := o.RequestTimeout; d < 0 || d > requestTimeoutMax {
		return fmt.Errorf("%w: request_timeout is %v: want 0 to %v", ErrInvalid, d, requestTimeoutMax)
	}
	for name, d := range map[string]time.Duration{
		"timeout_to_fail": o.TimeoutToFail, "retry_interval": o.RetryInterval, "delay": o.Delay,
	} {
		if d < 0 || d > durationMax {
			return fmt.Errorf("%w: %s is %v: want 0 to %v", ErrInvalid, name, d, durationMax)
		}
	}
	if o.RetryLimit < 0 || o.RetryLimit > retryLimitMax {
		return fmt.Errorf("%w: retry_limit is %d: want 0 to %d", ErrInvalid, o.RetryLimit, retryLimitMax)
	}
	if r.Pattern == store.Workflow {
		if name, _ := WorkflowOf(r.Data); name == "" {
			return fmt.Errorf(`%w: custom_data of a workflow: want {"name":"...","data":"<base64>"}`, ErrInvalid)
		}
	}
	return nil
}

// checkBranches bounds what a transaction becomes, which whoever drives it has in memory.
func (l *Limits) checkBranches(branches []store.Branch) error {
	if n := len(branches); n > 2*l.StepsMax {
		return fmt.Errorf("%w: %d branches, the limit is %d", ErrInvalid, n, 2*l.StepsMax)
	}
	size := 0
	for i := range branches {
		size += len(branches[i].Payload) + len(branches[i].URL) + len(branches[i].ID)
	}
	if size > 2*l.PayloadsMax {
		return fmt.Errorf("%w: the payloads, addresses and ids of all branches have %d bytes, the limit is %d", ErrInvalid, size, 2*l.PayloadsMax)
	}
	return nil
}

const (
	durationMax   = 10 * 365 * 24 * time.Hour
	retryLimitMax = 1000 // they are made at once

	// A call takes one of few places while nobody answers it.
	requestTimeoutMax = time.Hour
)

// checkOrders refuses steps that could never begin.
func checkOrders(orders map[int][]int, steps int) error {
	for step, before := range orders {
		for _, b := range append([]int{step}, before...) {
			if b < 0 || b >= steps {
				return fmt.Errorf("%w: orders: step %d waits for %v, and the steps are 0 to %d", ErrInvalid, step, before, steps-1)
			}
		}
	}
	const onPath, fine = 1, 2
	mark := make(map[int]int)
	var circle func(step int) bool
	circle = func(step int) bool {
		if mark[step] != 0 {
			return mark[step] == onPath
		}
		mark[step] = onPath
		found := slices.ContainsFunc(orders[step], circle)
		mark[step] = fine
		return found
	}
	for step := range orders {
		if circle(step) {
			return fmt.Errorf("%w: orders: step %d waits for itself, over others: %v", ErrInvalid, step, orders)
		}
	}
	return nil
}
