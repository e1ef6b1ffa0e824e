package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/wireproxy"
)

// A pointAction is what happens to a program that comes to its point.
type pointAction string

const (
	// actKill is SIGKILL.
	actKill pointAction = "kill"
	// actFreeze is SIGSTOP; another process recovers, and the zombie wakes up.
	actFreeze pointAction = "freeze"
	// actCutBefore cuts all its connections to databases.
	actCutBefore pointAction = "cut-before"
	// actCutAfter has the next statement that it sends to each database carried out,
	// and the answer lost.
	actCutAfter pointAction = "cut-after"
)

var pointActions = []pointAction{actKill, actFreeze, actCutBefore, actCutAfter}

// A cycle is one program at one point, from fresh accounts to the checks.
type cycle struct {
	run      *pointsRun
	lane     *lane
	number   int
	point    faultpoint.Point
	action   pointAction
	round    int
	nth      int // which hit of the point
	variant  variant
	scenario scenario
	draw     *rand.Rand

	account int // nobody else's
	victims []*victim
	victim  *victim // the one that comes to the point
	frozen  *victim // one that scenario.before left frozen
	lost    int     // statements carried out whose answers were lost
}

func (c *cycle) String() string {
	return fmt.Sprintf("%s %s, hit %d, on %s", c.action, c.point.Name, c.nth, c.variant)
}

func (c *cycle) databases() []*database { return []*database{c.find(c.variant.a), c.find(c.variant.b)} }

func (c *cycle) find(name string) *database {
	if name == c.lane.lite.name {
		return c.lane.lite
	}
	return c.run.world.find(name)
}

// logDir is where the cycle's file log lives.
func (c *cycle) logDir() string {
	return filepath.Join(c.lane.dir, fmt.Sprintf("log-%d", c.number))
}

// torture runs the cycle. An error is a violation, or a failure of the harness.
func (c *cycle) torture(ctx context.Context) error {
	defer func() {
		for _, v := range c.victims {
			v.end()
		}
	}()
	if err := c.openAccount(ctx); err != nil {
		return err
	}
	if c.scenario.before != nil {
		if err := c.scenario.before(ctx, c); err != nil {
			return fmt.Errorf("before: %w", err)
		}
	}
	if err := c.strike(ctx); err != nil {
		return err
	}
	if c.frozen != nil {
		if err := c.takeOverThenThaw(ctx); err != nil {
			return err
		}
	}
	return c.check(ctx)
}

// strike brings the victim to its point, acts there, and waits for its end.
func (c *cycle) strike(ctx context.Context) error {
	var plan []string
	if c.scenario.lead != "" {
		plan = append(plan, c.scenario.lead+":1:freeze")
	}
	stop := "freeze"
	if c.action == actKill {
		stop = "kill"
	}
	plan = append(plan, fmt.Sprintf("%s:%d:%s", c.point.Name, c.nth, stop))
	var err error
	if c.victim, err = c.start(c.scenario, strings.Join(plan, ",")); err != nil {
		return err
	}
	if c.scenario.lead != "" {
		if err := c.lead(ctx); err != nil {
			return fmt.Errorf("at %s: %w", c.scenario.lead, err)
		}
	}
	if c.action == actKill {
		if err := c.awaitEnd(ctx, c.victim); err != nil {
			return err
		}
		if !c.victim.killed() {
			return c.victim.why(errNotReached)
		}
		return nil
	}
	if err := c.victim.awaitFrozen(ctx, c.point.Name); err != nil {
		return err
	}
	armed, err := c.whileFrozen(ctx)
	if err != nil {
		return err
	}
	if err := c.victim.thaw(); err != nil {
		return err
	}
	err = c.awaitEnd(ctx, c.victim)
	for _, a := range armed {
		c.lost += a.Answered()
	}
	return err
}

func (c *cycle) lead(ctx context.Context) error {
	if err := c.victim.awaitFrozen(ctx, c.scenario.lead); err != nil {
		return err
	}
	if err := c.scenario.meanwhile(ctx, c); err != nil {
		return err
	}
	return c.victim.thaw()
}

// whileFrozen does what the action does to a program that stands still.
func (c *cycle) whileFrozen(ctx context.Context) (armed []*wireproxy.Armed, err error) {
	switch c.action {
	case actFreeze:
		err = c.takeOver(ctx)
	case actCutBefore:
		for _, p := range c.victim.proxies {
			p.CutAll()
		}
	case actCutAfter:
		for _, p := range c.victim.proxies {
			armed = append(armed, p.Add(wireproxy.Rule{Action: wireproxy.CutAfter}))
		}
	case actKill: // it stands no more
	}
	return armed, err
}

// takeOverThenThaw wakes a program whose transactions the victim, or if that was
// killed we, recovered while it was frozen.
func (c *cycle) takeOverThenThaw(ctx context.Context) error {
	if err := c.settle(ctx, settleWithin); err != nil {
		return err
	}
	if err := c.frozen.thaw(); err != nil {
		return err
	}
	return c.awaitEnd(ctx, c.frozen)
}

// openAccount makes the cycle's account in both databases.
func (c *cycle) openAccount(ctx context.Context) error {
	c.account = 1000 + int(c.run.accounts.Add(1))
	var errs []error
	for _, d := range c.databases() {
		_, err := d.db.ExecContext(ctx, fmt.Sprintf("INSERT INTO account VALUES (%d, %d)", c.account, startBalance))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
