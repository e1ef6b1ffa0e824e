package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/troth-tx/troth/internal/wireproxy"
)

// Heuristics has an administrator end prepared branches by hand, against the
// decision: on PostgreSQL and on MariaDB, against a commit and against an abort,
// while the manager that drives the transaction lives, and after its death. Each
// time a manager must say so (I8), and a decision to commit must be kept.
func Heuristics(ctx context.Context, o Options) error {
	o.Databases = []string{"ma1", "ma2", "pg1", "pg2"}
	r, err := begin(ctx, o)
	if err != nil {
		return err
	}
	defer r.world.close()
	for i, c := range []meddling{
		{victim: "pg2", decision: "commit"},
		{victim: "ma1", decision: "commit"},
		{victim: "ma2", decision: "commit"},
		{victim: "pg2", decision: "abort"},
		{victim: "ma1", decision: "abort"},
		{victim: "pg2", decision: "commit", dead: true},
		{victim: "ma1", decision: "commit", dead: true},
	} {
		began := time.Now()
		if err := r.meddle(ctx, i, c); err != nil {
			r.fail("I8: %v: %v", c, err)
			continue
		}
		r.report.printf("%v: loud after %v", c, time.Since(began).Round(100*time.Millisecond))
	}
	if n := len(r.failures()); n > 0 {
		return fmt.Errorf("%w: %d violations", ErrViolation, n)
	}
	return nil
}

// A meddling is one act of the administrator.
type meddling struct {
	victim   string // the database; the home is pg1
	decision string // what the branch is ended against
	dead     bool   // the manager that drove the transaction is dead by then
}

func (m meddling) String() string {
	s := fmt.Sprintf("a branch of %s ended against %s", m.victim, m.decision)
	if m.dead {
		s += " after its manager's death"
	}
	return s
}

const homeOfMeddling = "pg1"

// meddle acts, and returns an error if nobody noticed.
func (r *run) meddle(ctx context.Context, n int, c meddling) error {
	plan := &epochPlan{Run: r.opts.Seed, Epoch: n, Register: "home", Databases: r.opts.Databases, Managers: 1, Accounts: accounts, Keep: time.Second}
	f, err := newFleet(r.world, plan, r.opts.Dir)
	if err != nil {
		return err
	}
	f.command, f.started, f.failed = r.opts.Command, &r.started, r.fail
	defer f.abandon()
	loud := make(chan string, 16)
	p, err := r.meddled(ctx, f, loud)
	if err != nil {
		return err
	}
	defer func() { p.signal(9) }()

	// Everything of the phase is held, so that nobody comes before the administrator.
	hold, at := f.slots[0].proxies[c.victim], "COMMIT PREPARED"
	switch {
	case c.decision == "abort":
		hold, at = f.slots[0].proxies[homeOfMeddling], "troth_decision"
	case strings.HasPrefix(c.victim, "ma"):
		at = "XA COMMIT"
	}
	armed := hold.Add(wireproxy.Rule{Match: at, Times: -1, Action: wireproxy.HoldBefore})
	defer armed.Release()
	text, err := json.Marshal(op{Kind: opTransfer, Parts: []part{
		{DB: homeOfMeddling, Moves: []move{{1, -7}}}, {DB: c.victim, Moves: []move{{1, 7}}},
	}})
	if err != nil {
		return err
	}
	p.tell("do " + string(text))
	if err := waitFor(ctx, 20*time.Second, func() bool { return armed.Acted() > 0 }); err != nil {
		return fmt.Errorf("harness: %q was never sent: %w", at, err)
	}
	if c.dead {
		p.signal(9)
		<-p.ended
	}
	gid, err := r.world.find(c.victim).endByHand(ctx, c.decision == "abort")
	if err != nil {
		return fmt.Errorf("harness: the administrator: %w", err)
	}
	armed.Remove()
	if c.decision == "abort" {
		hold.CutAll()
	}
	armed.Release()
	if c.dead {
		if p, err = r.meddled(ctx, f, loud); err != nil {
			return err
		}
		p.tell("recover")
	}
	return r.heardOf(ctx, p, gid, c, loud)
}

// meddled starts the manager's process, with time to wait for an administrator.
func (r *run) meddled(ctx context.Context, f *fleet, loud chan<- string) (*process, error) {
	number := int(r.started.Add(1))
	cfg := f.childConfig(f.slots[0], number)
	cfg.AckTimeout, cfg.Timeout, cfg.Grace, cfg.LifeMax = 20*time.Second, 30*time.Second, -1, time.Minute
	p, err := startProcess(f.command, nil, f.slots[0].log, cfg, 0, number, func(_ *process, kind, rest string) {
		if kind == "heuristic" {
			loud <- rest
		}
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-p.ready:
		return p, nil
	case <-p.ended:
		return nil, errGone
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// loudWithin is how long it may take until a manager says that a branch was ended
// by hand: after the death of the one who drove it, only upkeep can find that out,
// which looks at records no sooner than LifeMax and its margin allow.
const loudWithin = 150 * time.Second

// heardOf waits for a manager to tell of the transaction. It may tell of earlier
// ones again: nobody has repaired them.
func (r *run) heardOf(ctx context.Context, p *process, gid string, c meddling, loud <-chan string) error {
	late := time.After(loudWithin)
	for heard := false; !heard; {
		select {
		case said := <-loud:
			heard = strings.Contains(said, gid) && strings.Contains(said, c.victim)
		case <-late:
			return fmt.Errorf("nobody noticed within %v", loudWithin)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if c.decision == "abort" {
		return nil
	}
	if _, err := p.ask("recover", time.Minute); err != nil {
		return err
	}
	var n int
	d := r.world.find(homeOfMeddling)
	if err := d.db.QueryRowContext(ctx, "SELECT count(*) FROM troth_decision WHERE gid = $1 AND outcome = 'commit'", gid).Scan(&n); err != nil {
		return err
	}
	if n != 1 {
		return errors.New("the record of the commit was not kept")
	}
	return nil
}

// endByHand ends the one branch of ours that is prepared here, as an administrator
// does who believes that he must. On MariaDB that takes the end of its session.
func (d *database) endByHand(ctx context.Context, commit bool) (gid string, err error) {
	var found preparedBranch
	err = waitFor(ctx, 10*time.Second, func() bool {
		all, _ := d.listPrepared(ctx)
		for _, b := range all {
			if b.gid != "" && !d.foreign(b) {
				found = b
			}
		}
		return found.gid != ""
	})
	if err != nil {
		return "", fmt.Errorf("%s: nothing is prepared: %w", d.name, err)
	}
	word := "ROLLBACK"
	if commit {
		word = "COMMIT"
	}
	if d.engine == enginePostgres {
		_, err = d.db.ExecContext(ctx, word+" PREPARED "+found.native)
		return found.gid, err
	}
	err = waitFor(ctx, 10*time.Second, func() bool {
		if err := d.endSessions(ctx, 1000); err != nil {
			return false
		}
		_, err := d.db.ExecContext(ctx, "XA "+word+" "+found.native)
		return err == nil
	})
	return found.gid, err
}

// waitFor asks until the answer is yes.
func waitFor(ctx context.Context, within time.Duration, yes func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for !yes() {
		if !sleep(ctx, 10*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}
