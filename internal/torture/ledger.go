package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/history"
)

// A ledger follows what the clients of one epoch do and are told, and asks the
// managers for outcomes all the time (I13).
type ledger struct {
	fleet  *fleet
	failed func(format string, args ...any)
	polls  *history.Writer
	tails  []*tail

	mu     sync.Mutex // guards what follows
	events []history.Event
	phases map[history.Phase]int
	open   map[[2]int]string // gid of an operation without an answer
	unsure map[[2]int]string // gid of an operation whose answer was that nobody knows
	begun  map[int]bool      // the processes that began a transaction, by their numbers
	begins map[string]int    // who began a transaction, by its gid: the number in the history
	told   map[string]history.Answer
	recent []asked
	finals map[string]history.Answer // what any manager said about a transaction
}

// asked is a transaction that one may ask for, and who began it.
type asked struct {
	gid     string
	process int // its number in the history
}

// recentMax is among how many of the latest transactions the polled ones are
// chosen.
const recentMax = 400

func newLedger(f *fleet, pollPath string, failed func(string, ...any)) (*ledger, error) {
	polls, err := history.Create(pollPath)
	if err != nil {
		return nil, err
	}
	l := &ledger{
		fleet: f, failed: failed, polls: polls,
		phases: make(map[history.Phase]int), open: make(map[[2]int]string), unsure: make(map[[2]int]string), begun: make(map[int]bool), begins: make(map[string]int),
		told: make(map[string]history.Answer), finals: make(map[string]history.Answer),
	}
	for _, s := range f.slots {
		l.tails = append(l.tails, &tail{path: s.history})
	}
	l.tails = append(l.tails, &tail{path: pollPath})
	return l, nil
}

// read takes in what was written since the last call.
func (l *ledger) read() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.tails {
		events, err := t.next()
		if err != nil {
			l.failed("harness: %v", err)
			continue
		}
		for _, e := range events {
			l.note(e)
		}
	}
}

func (l *ledger) note(e history.Event) {
	l.events = append(l.events, e)
	if e.Kind == history.Lookup || e.Kind == history.Decide {
		if e.Phase == history.OK {
			l.concludeLocked(e.GID, e.Answer, fmt.Sprintf("client %d", e.Process))
		}
		return
	}
	id := [2]int{e.Process, e.Op}
	if e.Phase == history.Invoke {
		l.open[id] = e.GID
		l.begun[numberOf(e.Process)] = true
		l.begins[e.GID] = e.Process
		if e.Kind == history.Transfer {
			if len(l.recent) >= recentMax {
				l.recent = l.recent[recentMax/2:]
			}
			l.recent = append(l.recent, asked{e.GID, e.Process})
		}
		return
	}
	l.phases[e.Phase]++
	delete(l.open, id)
	switch e.Phase {
	case history.OK, history.Pending:
		l.told[e.GID] = history.Committed
		l.look(e)
	case history.RolledBack:
		l.told[e.GID] = history.Aborted
	case history.Unknown:
		l.unsure[id] = e.GID
	case history.Invoke:
	}
}

// look checks I10: both halves of a pot, locked, always make up the same sum.
func (l *ledger) look(e history.Event) {
	if e.Kind != history.Read {
		return
	}
	var sum int64
	for _, b := range e.Balances {
		sum += b.Balance
	}
	if want := int64(startBalance * len(e.Balances)); sum != want || len(e.Balances) != 2 {
		l.failed("I10: %s locked both halves of a pot and saw %v, which makes %d instead of %d", e.GID, e.Balances, sum, want)
	}
}

// conclude takes note of an outcome that somebody was told.
func (l *ledger) concludeLocked(gid string, a history.Answer, who string) {
	if a != history.Committed && a != history.Aborted {
		return
	}
	if before, ok := l.finals[gid]; ok && before != a {
		l.failed("I13: %s was %s, and now %s says %s", gid, before, who, a)
	}
	l.finals[gid] = a
}

// pollers is how many questions for outcomes are under way at once.
const pollers = 3

// pollEvery is the pause of one poller.
const pollEvery = 50 * time.Millisecond

// poll asks random managers about random transactions, again and again.
func (l *ledger) poll(ctx context.Context, process int, rng *rand.Rand) {
	for n := 1; sleep(ctx, pollEvery); n++ {
		l.mu.Lock()
		var one asked
		if len(l.recent) > 0 {
			one = l.recent[rng.IntN(len(l.recent))]
		}
		l.mu.Unlock()
		if one.gid == "" {
			continue
		}
		up := l.fleet.knowing(one.process)
		if len(up) == 0 {
			continue
		}
		e := history.Event{Process: process, Op: n, GID: one.gid, Kind: history.Lookup, Phase: history.Invoke}
		l.record(e)
		e.Phase, e.Answer = l.ask(up[rng.IntN(len(up))], one.gid)
		l.record(e)
	}
}

func (l *ledger) record(e history.Event) {
	if err := l.polls.Write(e); err != nil {
		l.failed("harness: %v", err)
	}
}

// ask turns a manager's answer into a history's.
func (l *ledger) ask(p *process, gid string) (history.Phase, history.Answer) {
	said, err := p.outcome(gid)
	switch a := history.Answer(said); {
	case err != nil:
		return history.Unknown, ""
	case a == history.Committed, a == history.Aborted, a == history.Undecided:
		return history.OK, a
	case said == noRecord:
		return history.OK, history.Undecided
	}
	return history.Unknown, "" // an error is no answer
}

// unanswered lists the transactions whose clients were told neither.
func (l *ledger) unanswered() []asked {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []asked
	for _, some := range []map[[2]int]string{l.open, l.unsure} {
		for id, gid := range some {
			out = append(out, asked{gid, id[0]})
		}
	}
	return out
}

// cluster tells whose managers recover a transaction that no database decides, if there
// is but one cluster, or the transaction's begin was read.
func (l *ledger) cluster(gid string) (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	process, ok := l.begins[gid]
	return l.fleet.clusterOf(process), ok || len(l.fleet.clusters()) == 1
}

// midway counts those of the dead processes that had begun a transaction, and those
// that had one under way when they died.
func (l *ledger) midway(dead []int) (begun, underway int) {
	l.read()
	l.mu.Lock()
	defer l.mu.Unlock()
	open := make(map[int]bool)
	for id := range l.open {
		open[numberOf(id[0])] = true
	}
	for _, number := range dead {
		if l.begun[number] {
			begun++
		}
		if open[number] {
			underway++
		}
	}
	return begun, underway
}

// A count is how many transactions ended how.
type count struct{ ok, pending, rolledBack, unknown int }

func (c count) committed() int { return c.ok + c.pending }
func (c count) all() int       { return c.ok + c.pending + c.rolledBack + c.unknown }

func (l *ledger) count() count {
	l.read()
	l.mu.Lock()
	defer l.mu.Unlock()
	return count{l.phases[history.OK], l.phases[history.Pending], l.phases[history.RolledBack], l.phases[history.Unknown]}
}
