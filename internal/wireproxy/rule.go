package wireproxy

import (
	"strings"
	"sync"
	"time"
)

// An Action is what a rule does with the statement it waits for.
type Action uint8

// The actions.
const (
	// CutBefore: the statement never reaches the server, and both ends of its
	// connection are closed. What the client sent before it on the same
	// connection does reach the server.
	CutBefore Action = iota + 1

	// CutAfter: the server carries the statement out, commits it where it is a
	// transaction of its own, and answers; the client gets nothing of the answer,
	// and both ends are closed.
	CutAfter

	// HoldBefore keeps the statement from the server until Release.
	HoldBefore

	// HoldAfter: the server carries the statement out and answers; the client gets
	// the answer at Release.
	HoldAfter

	// Reset is CutBefore with a reset (RST) to both ends at once.
	Reset

	// StrandBefore: the statement never reaches the server, the client's end is
	// closed, and the server's end stays open until Release: for the server the
	// client has gone silent.
	StrandBefore

	// StrandAfter is CutAfter, but the server's end stays open until Release.
	StrandAfter

	// Delay keeps the statement from the server for Rule.Delay.
	Delay
)

func (a Action) String() string {
	names := [...]string{"none", "cut-before", "cut-after", "hold-before", "hold-after", "reset", "strand-before", "strand-after", "delay"}
	if int(a) < len(names) {
		return names[a]
	}
	return "unknown"
}

// A Rule says on which statement to act, and how.
type Rule struct {
	// Match is a part of the statement's text, as the client wrote it. Empty
	// matches every statement.
	Match string

	// Nth is on which match it acts first, counted from Add over all connections;
	// 0 and 1 are the first.
	Nth int

	// Times is on how many matches in a row it acts; 0 is 1, and a negative number
	// is all until Remove.
	Times int

	Action Action

	// Delay is for how long the action Delay delays.
	Delay time.Duration
}

// Armed is a rule that was added to a proxy.
type Armed struct {
	proxy   *Proxy
	rule    Rule
	release chan struct{}
	done    chan struct{}

	// Guarded by Proxy.mu.
	matches   int
	acted     int
	answered  int
	over      bool // removed, or all its times are up
	finished  bool // done is closed
	releasing sync.Once
}

// Add arms a rule. Where several rules match one statement, the one added first
// acts, and the others do not count it.
func (p *Proxy) Add(r Rule) *Armed {
	r.Nth, r.Times = max(r.Nth, 1), normalTimes(r.Times)
	a := &Armed{proxy: p, rule: r, release: make(chan struct{}), done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, a)
	return a
}

func normalTimes(n int) int {
	if n == 0 {
		return 1
	}
	return n
}

// Done is closed when the rule has acted for the first time. For CutAfter,
// HoldAfter and StrandAfter that is when the server's whole answer was seen, or its
// connection broke before: see Answered.
func (a *Armed) Done() <-chan struct{} { return a.done }

// Matches is how many statements matched since Add.
func (a *Armed) Matches() int { return a.count(&a.matches) }

// Acted is on how many statements the rule began to act.
func (a *Armed) Acted() int { return a.count(&a.acted) }

// Answered is how many statements the server answered completely and the rule kept
// from the client.
func (a *Armed) Answered() int { return a.count(&a.answered) }

func (a *Armed) count(n *int) int {
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	return *n
}

// Remove disarms the rule. What it holds or has stranded stays so until Release.
func (a *Armed) Remove() {
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	a.endLocked()
}

func (a *Armed) endLocked() {
	a.over = true
	rules := a.proxy.rules[:0:0]
	for _, other := range a.proxy.rules {
		if other != a {
			rules = append(rules, other)
		}
	}
	a.proxy.rules = rules
}

// Release lets go what the rule holds, now and later, and closes what it has
// stranded.
func (a *Armed) Release() { a.releasing.Do(func() { close(a.release) }) }

// match counts a statement and returns the rule that acts on it, or nil.
func (p *Proxy) match(text string) *Armed {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Statements++
	for _, a := range p.rules {
		if !strings.Contains(text, a.rule.Match) {
			continue
		}
		a.matches++
		if a.matches < a.rule.Nth {
			continue
		}
		a.acted++
		p.stats.Acted++
		if a.rule.Times > 0 && a.acted >= a.rule.Times {
			a.endLocked()
		}
		return a
	}
	return nil
}

// finish reports that the rule has acted; answered: the server's whole answer was
// seen and kept.
func (a *Armed) finish(answered bool) {
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	if answered {
		a.answered++
	}
	if !a.finished {
		a.finished = true
		close(a.done)
	}
}
