package torture

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// An epochSample is what is remembered of an epoch.
type epochSample struct {
	epoch                int
	register             string
	kinds                []faultKind
	count                count
	before, under, after float64 // committed transactions a second
	settled              time.Duration
	oldest               time.Duration
	kills                int
	begun, underway      int // of the killed: had begun a transaction, had one under way
	mines                int // of the killed: died at their mine
	skipped              int64
	freezes, servers     int64
	statements, broken   int64
	cuts                 int64
	blackholes, sessions int64
	readies              []time.Duration

	starting, calm, faulted, healing, checking time.Duration // the phases
}

// cycles counts the kills of processes that had begun a transaction, whether or not
// one was under way when they died, and the kills of databases. After each, a process
// opened its Manager, or the database was restarted, and nothing was left in doubt: the
// epoch would have failed otherwise.
func (s *epochSample) cycles() int { return s.begun + int(s.servers) }

func (s *epochSample) note(e *epochRun, before, under, after float64, settled time.Duration) {
	s.epoch, s.register, s.kinds = e.plan.Epoch, e.plan.Register, e.plan.Kinds
	s.count = e.ledger.count()
	s.before, s.under, s.after, s.settled = before, under, after, settled
	_, s.oldest = e.health.numbers()
	killed := e.fleet.killed()
	s.kills = len(killed)
	s.begun, s.underway = e.ledger.midway(killed)
	s.skipped = e.tally.skipped.Load()
	s.freezes, s.servers = e.tally.freezes.Load(), e.tally.serverKills.Load()
	s.statements, s.broken, s.cuts = e.tally.statements.Load(), e.tally.broken.Load(), e.tally.cuts.Load()
	s.blackholes, s.sessions = e.tally.blackholes.Load(), e.tally.sessions.Load()
	for _, slot := range e.fleet.slots {
		slot.mu.Lock()
		s.readies = append(s.readies, slot.readies...)
		s.mines += slot.fired
		slot.mu.Unlock()
	}
}

// A report prints how a run goes and what it came to.
type report struct {
	mu       sync.Mutex
	out      io.Writer
	versions []string
	samples  []epochSample
}

func newReport(out io.Writer) *report { return &report{out: out} }

func (r *report) printf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintf(r.out, format+"\n", args...) // a screen that is gone ends no run
}

func (r *report) add(s epochSample) {
	kinds := make([]string, len(s.kinds))
	for i, k := range s.kinds {
		kinds[i] = string(k)
	}
	r.printf("epoch %d %s [%s]: %.0f tx/s before, %.0f under faults, %.0f after; final %v after the heal; oldest in doubt %v; %d kills, %d cycles (%.1f/s under faults); Open took %v (median); started %v, calm %v, faults %v, healed %v, checked %v",
		s.epoch, s.register, strings.Join(kinds, " "), s.before, s.under, s.after,
		s.settled.Round(10*time.Millisecond), s.oldest.Round(10*time.Millisecond), s.kills, s.cycles(), float64(s.cycles())/s.faulted.Seconds(), median(s.readies).Round(time.Millisecond),
		tenth(s.starting), tenth(s.calm), tenth(s.faulted), tenth(s.healing), tenth(s.checking))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = append(r.samples, s)
}

func tenth(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// sum adds up all epochs. Rates are averages.
func (r *report) sum() epochSample {
	r.mu.Lock()
	defer r.mu.Unlock()
	var t epochSample
	for _, s := range r.samples {
		t.count.ok += s.count.ok
		t.count.pending += s.count.pending
		t.count.rolledBack += s.count.rolledBack
		t.count.unknown += s.count.unknown
		t.starting += s.starting
		t.calm += s.calm
		t.faulted += s.faulted
		t.healing += s.healing
		t.checking += s.checking
		t.kills += s.kills
		t.begun += s.begun
		t.underway += s.underway
		t.mines += s.mines
		t.skipped += s.skipped
		t.freezes += s.freezes
		t.servers += s.servers
		t.statements += s.statements
		t.broken += s.broken
		t.cuts += s.cuts
		t.blackholes += s.blackholes
		t.sessions += s.sessions
		t.readies = append(t.readies, s.readies...)
		t.settled = max(t.settled, s.settled)
		t.oldest = max(t.oldest, s.oldest)
		n := float64(len(r.samples))
		t.before += s.before / n
		t.under += s.under / n
		t.after += s.after / n
	}
	return t
}

// table prints the end of a run.
func (r *report) table(took time.Duration) {
	t := r.sum()
	perSecond := func(n int64) string {
		return fmt.Sprintf("%d (%.2f/s under faults)", n, float64(n)/max(t.faulted.Seconds(), 1))
	}
	for _, row := range [][2]string{
		{"duration", fmt.Sprintf("%v, %d epochs", took.Round(time.Second), len(r.samples))},
		{"  of which", fmt.Sprintf("under faults %v, starts %v, calm %v, heals %v, checks %v",
			tenth(t.faulted), tenth(t.starting), tenth(t.calm), tenth(t.healing), tenth(t.checking))},
		{"transactions", fmt.Sprint(t.count.all())},
		{"committed", fmt.Sprint(t.count.committed())},
		{"  of which pending", fmt.Sprint(t.count.pending)},
		{"rolled back", fmt.Sprint(t.count.rolledBack)},
		{"unknown", fmt.Sprint(t.count.unknown)},
		{"process kills", perSecond(int64(t.kills))},
		{"  with a tx begun", fmt.Sprintf("%d, of which %d with one under way", t.begun, t.underway)},
		{"  at their mine", perSecond(int64(t.mines))},
		{"server kills", perSecond(t.servers)},
		{"freezes", perSecond(t.freezes)},
		{"statements hit", perSecond(t.statements)},
		{"  of which cut off", perSecond(t.broken)},
		{"connections cut", perSecond(t.cuts)},
		{"black holes", perSecond(t.blackholes)},
		{"sessions ended", perSecond(t.sessions)},
		{"kills, freezes skipped", perSecond(t.skipped)},
		{"kill-and-recover cycles", fmt.Sprintf("%d (%.2f/s over all, %.2f/s under faults)",
			t.cycles(), float64(t.cycles())/took.Seconds(), float64(t.cycles())/max(t.faulted.Seconds(), 1))},
		{"load", fmt.Sprintf("%.0f commits/s before, %.0f (%.0f %%) under faults, %.0f (%.0f %%) after",
			t.before, t.under, percent(t.under, t.before), t.after, percent(t.after, t.before))},
		{"final after heal", fmt.Sprintf("%v at most", t.settled.Round(10*time.Millisecond))},
		{"oldest in doubt", t.oldest.Round(10 * time.Millisecond).String()},
		{"start of a manager", fmt.Sprintf("%v (median of %d)", median(t.readies).Round(time.Millisecond), len(t.readies))},
		{"versions", strings.Join(r.versions, ", ") + ", " + runtime.Version()},
	} {
		r.printf("%-24s %s", row[0], row[1])
	}
}

func percent(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * part / whole
}

// epochsMin is how many epochs tell how often databases are killed.
const epochsMin = 4

// enough says whether the run did so much that finding nothing means something.
func (r *report) enough(o Options, took time.Duration) error {
	t := r.sum()
	if rate := float64(t.cycles()) / took.Seconds(); rate < o.MinCycles {
		return fmt.Errorf("%w: %.1f kill-and-recover cycles a second over the whole run (want %.1f)", ErrTooLittle, rate, o.MinCycles)
	}
	if want := o.MinServerKills * t.faulted.Minutes(); len(r.samples) >= epochsMin && float64(t.servers) < want {
		return fmt.Errorf("%w: %d kills of databases in %v under faults (want %.0f)", ErrTooLittle, t.servers, tenth(t.faulted), want)
	}
	if t.before < o.MinLoad || t.under < o.LoadUnder*t.before {
		return fmt.Errorf("%w: %.0f commits/s before the faults (want %.0f), %.0f under them (want %.0f)", ErrTooLittle, t.before, o.MinLoad, t.under, o.LoadUnder*t.before)
	}
	return nil
}

// clip shortens a violation for the screen; the whole is in the run's directory.
func clip(s string) string {
	s = strings.ReplaceAll(s, "\n", "; ")
	if len(s) > 600 {
		return s[:600] + "..."
	}
	return s
}
