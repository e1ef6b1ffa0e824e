package torture

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/troth-tx/troth/internal/wireproxy"
)

// actionNames are what a rule may do with a statement. "hold" is two: before the
// server gets it, and after it answered.
var actionNames = []string{"cut-before", "cut-after", "hold-before", "hold-after", "reset", "strand-before", "strand-after", "delay"}

var actions = map[string]wireproxy.Action{
	"cut-before": wireproxy.CutBefore, "cut-after": wireproxy.CutAfter,
	"hold-before": wireproxy.HoldBefore, "hold-after": wireproxy.HoldAfter,
	"reset":         wireproxy.Reset,
	"strand-before": wireproxy.StrandBefore, "strand-after": wireproxy.StrandAfter,
	"delay": wireproxy.Delay,
}

// tally counts the faults that really happened. Statements are those that a rule
// acted on; broken are those of them that lost their connection. Skipped are those of
// the schedule that would have struck a manager or a database, and found none to strike:
// another fault lasted, or no process began a transaction before the epoch's end.
type tally struct {
	skipped, freezes, serverKills, statements, broken, cuts, blackholes, sessions atomic.Int64
}

// An injector carries out the schedule of an epoch.
type injector struct {
	world  *world
	fleet  *fleet
	tally  *tally
	health *health
	failed func(format string, args ...any)

	wg      sync.WaitGroup
	servers map[string]*sync.Mutex // one kill of a server at a time
}

func newInjector(w *world, f *fleet, t *tally, h *health, failed func(string, ...any)) *injector {
	in := &injector{world: w, fleet: f, tally: t, health: h, failed: failed, servers: make(map[string]*sync.Mutex)}
	for _, d := range w.databases {
		in.servers[d.name] = new(sync.Mutex)
	}
	return in
}

// run carries out the schedule, and returns when the last fault has ended.
func (in *injector) run(ctx context.Context, faults []fault, length time.Duration) {
	begun := time.Now()
	ctx, cancel := context.WithDeadline(ctx, begun.Add(length)) // also ends what lasts
	defer cancel()
	for _, f := range faults {
		if !sleepUntil(ctx, begun.Add(f.At)) {
			break
		}
		in.wg.Go(func() { in.carryOut(ctx, f) })
	}
	sleepUntil(ctx, begun.Add(length))
	in.wg.Wait()
}

func sleepUntil(ctx context.Context, t time.Time) bool { return sleep(ctx, time.Until(t)) }

// sleep reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (in *injector) carryOut(ctx context.Context, f fault) {
	s := in.fleet.slots[f.Manager]
	switch f.Kind {
	case faultKill, faultMine:
		in.kill(ctx, f)
	case faultFreeze:
		in.freeze(ctx, f)
	case faultServer:
		in.killServer(ctx, f)
	case faultStatement:
		in.statement(ctx, s, f)
	case faultCutAll:
		if p := s.proxies[f.DB]; p != nil {
			in.tally.cuts.Add(int64(p.Stats().Open))
			p.CutAll()
		}
	case faultBlackhole:
		if p := s.proxies[f.DB]; p != nil {
			in.tally.blackholes.Add(1)
			p.Blackhole(true)
			sleep(ctx, f.For)
			p.Blackhole(false)
		}
	case faultSession:
		if err := in.world.find(f.DB).endSessions(ctx, f.Nth); err == nil { // a server that is down has none
			in.tally.sessions.Add(1)
		}
	}
}

// kill ends a process that has begun a transaction, if the kill is not a blind one, or
// the process has not come so far in a while. Where another fault lasts, it goes to the
// next manager.
func (in *injector) kill(ctx context.Context, f fault) {
	s := in.unhit(f.Manager, in.fleet.plan.mortal())
	if s == nil {
		in.tally.skipped.Add(1)
		return
	}
	defer s.hit.Unlock()
	if !f.Blind {
		within, cancel := context.WithTimeout(ctx, begunTime)
		defer cancel()
		if s.await(within, func(p *process) <-chan struct{} { return p.begun }) {
			sleep(ctx, f.For)
		}
	}
	if ctx.Err() != nil {
		in.tally.skipped.Add(1)
		return
	}
	p := s.process()
	s.kill(mine(f))
	if p != nil {
		<-p.ended
	}
}

// begunTime is how long a kill waits for a process to begin a transaction: while its
// databases are down, it may not.
const begunTime = 3 * time.Second

// unhit finds one of the first n managers of which no fault lasts, and locks its hit.
func (in *injector) unhit(first, n int) *slot {
	for i := range n {
		if s := in.fleet.slots[(first+i)%n]; s.hit.TryLock() {
			return s
		}
	}
	return nil
}

func (in *injector) freeze(ctx context.Context, f fault) {
	s := in.unhit(f.Manager, len(in.fleet.slots))
	if s == nil {
		in.tally.skipped.Add(1)
		return
	}
	defer s.hit.Unlock()
	p := s.process() // there is one: every manager was ready before the faults
	in.tally.freezes.Add(1)
	p.signal(syscall.SIGSTOP)
	sleep(ctx, f.For)
	p.signal(syscall.SIGCONT)
}

func (in *injector) killServer(ctx context.Context, f fault) {
	lock := in.servers[f.DB]
	if !lock.TryLock() { // it is down already
		in.tally.skipped.Add(1)
		return
	}
	defer lock.Unlock()
	d := in.world.find(f.DB)
	in.health.down(d.name)
	defer in.health.up(d.name)
	if err := d.server.Kill(); err != nil {
		in.failed("harness: kill %s: %v", d.name, err)
		return
	}
	in.tally.serverKills.Add(1)
	sleep(ctx, f.For)
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restartTime)
	defer cancel()
	if err := d.server.Restart(rctx); err != nil {
		in.failed("harness: restart %s: %v", d.name, err)
	}
}

// restartTime is how long a database server may need to recover from a crash.
const restartTime = time.Minute

// statement arms a rule, and disarms it in the end.
func (in *injector) statement(ctx context.Context, s *slot, f fault) {
	p := s.proxies[f.DB]
	if p == nil {
		return
	}
	armed := p.Add(wireproxy.Rule{Match: f.Match, Nth: f.Nth, Action: actions[f.Action], Delay: f.For})
	defer armed.Release()
	defer armed.Remove()
	select {
	case <-armed.Done():
		in.tally.statements.Add(1)
		if a := actions[f.Action]; a != wireproxy.HoldBefore && a != wireproxy.HoldAfter && a != wireproxy.Delay {
			in.tally.broken.Add(1)
		}
		sleep(ctx, f.For)
	case <-time.After(ruleTime):
	case <-ctx.Done():
	}
}

// ruleTime is how long a rule waits for its statement.
const ruleTime = 3 * time.Second

// mine is the environment's way to say where a process kills itself; empty of a plain
// kill.
func mine(f fault) string {
	if f.Kind != faultMine {
		return ""
	}
	return fmt.Sprintf("%s:%d:kill", f.Point, f.Nth)
}
