package torture

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"time"
)

// An epochRun is an epoch under way.
type epochRun struct {
	run    *run
	plan   *epochPlan
	fleet  *fleet
	ledger *ledger
	health *health
	tally  tally
	dir    string
	sample epochSample

	since time.Time // when the last phase ended
}

// took is how long the phase that ends now was.
func (e *epochRun) took() time.Duration {
	d := time.Since(e.since)
	e.since = e.since.Add(d)
	return d
}

// all runs the epoch from the first process to the last check.
func (e *epochRun) all(ctx context.Context) error {
	bctx, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	e.since = time.Now()
	e.fleet.start()
	rctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := e.fleet.awaitReady(rctx); err != nil {
		return err
	}
	background.Go(func() { e.health.watch(bctx, e.fleet.managed) })
	for i := range pollers {
		background.Go(func() { e.ledger.poll(bctx, 1+i, seeded(e.plan.Run, e.plan.Epoch, purposePoller+uint64(i))) })
	}

	e.sample.starting = e.took()
	before := e.rate(ctx, e.run.opts.Calm)
	e.sample.calm = e.took()
	pctx, stopTelling := context.WithCancel(ctx)
	background.Go(func() { e.tell(pctx) })
	under := e.underFaults(ctx)
	stopTelling()
	e.sample.faulted = e.took()
	healed := time.Now()
	if err := e.heal(ctx); err != nil {
		return err
	}
	settled := e.settle(ctx, "after the heal", healed)
	e.sample.healing = e.took()
	e.fleet.resume()
	after := e.rate(ctx, e.run.opts.Calm)
	e.sample.calm += e.took()
	e.settle(ctx, "in the end", time.Now())
	stop()
	background.Wait()
	e.sample.note(e, before, under, after, settled)
	err := e.finish(ctx)
	e.sample.checking = e.took()
	e.run.report.add(e.sample)
	return err
}

// rate is how many transactions a second commit in the next d. Those that a dead
// server refuses at once are no load.
func (e *epochRun) rate(ctx context.Context, d time.Duration) float64 {
	from, begun := e.ledger.count().committed(), time.Now()
	sleep(ctx, d)
	return float64(e.ledger.count().committed()-from) / time.Since(begun).Seconds()
}

// underFaults carries out the schedule, until a violation is found. It returns the
// rate meanwhile.
func (e *epochRun) underFaults(ctx context.Context) float64 {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.run.mu.Lock()
	e.run.stop = cancel
	e.run.mu.Unlock()
	from, begun := e.ledger.count().committed(), time.Now()
	newInjector(e.run.world, e.fleet, &e.tally, e.health, e.run.fail).run(ctx, e.plan.Faults, e.plan.Length)
	return float64(e.ledger.count().committed()-from) / time.Since(begun).Seconds()
}

// heal ends all faults.
func (e *epochRun) heal(ctx context.Context) error {
	e.fleet.clear()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return e.fleet.awaitReady(ctx)
}

// settle stops the load and waits until no branch of ours is prepared any more
// (I7). It returns how long after since that was.
func (e *epochRun) settle(ctx context.Context, when string, since time.Time) time.Duration {
	if err := e.fleet.pause(inDoubtMax); err != nil {
		e.run.fail("I7: %s, %v", when, err)
	}
	for {
		n, complete := e.health.look(ctx, e.fleet.managed())
		took := time.Since(since)
		switch {
		case n == 0 && complete, ctx.Err() != nil:
			return took
		case took > inDoubtMax:
			e.run.fail("I7: %s, %d branches are in doubt after %v (all databases asked: %v)", when, n, took.Round(time.Second), complete)
			return took
		}
		sleep(ctx, 20*time.Millisecond)
	}
}

// finish does the end checks and ends the processes.
func (e *epochRun) finish(ctx context.Context) error {
	e.upkeep()
	c := &checker{world: e.run.world, fleet: e.fleet, ledger: e.ledger, failed: e.run.fail, start: e.run.start}
	balances, err := c.check(ctx)
	if err != nil {
		return err
	}
	e.run.start = balances
	if err := e.fleet.close(); err != nil {
		e.run.fail("close: %v", err)
	}
	return e.logs()
}

// logs looks for what a manager may have printed before it was killed.
func (e *epochRun) logs() error {
	for _, s := range e.fleet.slots {
		text, err := os.ReadFile(s.log.Name())
		if err != nil {
			return err
		}
		for _, bad := range []string{"panic: ", "fatal error: ", "DATA RACE"} {
			if bytes.Contains(text, []byte(bad)) {
				e.run.fail("crash: manager %d printed %q; see %s", s.no, bad, s.log.Name())
			}
		}
	}
	return nil
}

// upkeep has one manager of each cluster recover and drop what is not needed any
// more: under faults, none may have lived until its own upkeep.
func (e *epochRun) upkeep() {
	var wg sync.WaitGroup
	for _, c := range e.fleet.clusters() {
		if up := upIn(c); len(up) > 0 { // that there is none is told elsewhere
			wg.Go(func() { e.upkeepBy(up[0]) })
		}
	}
	wg.Wait()
}

// upkeepBy has the process complain of the planted branch of another cluster, and of
// nothing else.
func (e *epochRun) upkeepBy(p *process) {
	var said string
	for range 2 { // the second drops the witnesses of the records that the first dropped
		var err error
		if said, err = p.ask("recover", time.Minute); err != nil {
			e.run.fail("I7: Manager.Recover does not return: %v", err)
			return
		}
	}
	_, trouble, _ := strings.Cut(said, " ")
	for _, one := range strings.Split(trouble, "; ") {
		if one != "<nil>" && !e.run.world.aboutPlants(one) {
			e.run.fail("I7: Manager.Recover, with all databases up: %s", one)
		}
	}
}

// tell prints a line every ten seconds.
func (e *epochRun) tell(ctx context.Context) {
	for sleep(ctx, tellEvery) {
		n := e.ledger.count()
		inDoubt, _ := e.health.numbers()
		e.run.report.printf("epoch %d %s: tx %d (ok %d, rolled back %d, unknown %d), kills %d, frozen %d, servers %d, statements %d, cuts %d, in doubt %d",
			e.plan.Epoch, e.plan.Register, n.all(), n.committed(), n.rolledBack, n.unknown,
			len(e.fleet.killed()), e.tally.freezes.Load(), e.tally.serverKills.Load(), e.tally.statements.Load(), e.tally.cuts.Load(), inDoubt)
	}
}

// tellEvery is the pause between two lines of progress.
const tellEvery = 10 * time.Second
