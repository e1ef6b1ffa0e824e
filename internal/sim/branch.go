package sim

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/troth-tx/troth"
)

// conn is a session and what is open on it. Only calls that are carried out touch
// the transaction.
type conn struct {
	*session
	txn *txn
}

// branch is a branch of the plain resource manager.
type branch struct {
	r        *resource
	cfg      troth.BranchConfig
	plan     *plan
	conn     *conn
	foretold troth.Place
	xid      troth.XID
	evidence string

	stage stage

	mu     sync.Mutex // guards what follows: statements may still run while the driver ends the branch
	wrote  bool
	failed error
}

type stage uint8

const (
	stageWork  stage = iota
	stageAsked       // to prepare, and the answer is lost
	stagePrepared
	stageEnded
)

// ask is a call on the branch's session.
func (b *branch) ask(ctx context.Context, op string, do func(m *model, c *conn) (any, error)) (any, error) {
	return b.askUntil(ctx, nil, op, do)
}

// askUntil is a call that also ends with the second of two contexts.
func (b *branch) askUntil(ctx context.Context, also context.Context, op string, do func(m *model, c *conn) (any, error)) (any, error) {
	p, c := b.r.p, b.conn
	return p.ask(ctx, &call{
		to: b.r.s, sess: c.session, also: also, key: key{op: op, tx: b.plan.no, branch: b.cfg.Branch},
		do: func() (any, error) {
			c.open(p)
			if c.ended {
				return nil, errLost
			}
			return do(b.r.m, c)
		},
	})
}

// work is what a program does through a handle.
func (b *branch) work(ctx context.Context, l leg) error {
	b.mu.Lock()
	b.wrote = true
	b.mu.Unlock()
	_, err := b.askUntil(ctx, b.cfg.Context, "work", func(m *model, c *conn) (any, error) { return nil, m.work(c, b.plan, l) })
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil && b.failed == nil {
		b.failed = err // R9
	}
	return err
}

func (b *branch) Wrote(context.Context) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wrote, b.failed
}

func (b *branch) Prepare(ctx context.Context, xid troth.XID) (troth.Vote, error) {
	if b.foretold != (troth.Place{}) && b.foretold != xid.Place {
		b.r.p.w.book.violate("R2", xid.GID, "%s began with its decision at %s and prepares with %s", xid, b.foretold, xid.Place)
	}
	b.xid = xid
	b.stage = stageAsked
	got, err := b.ask(ctx, "prepare", func(m *model, c *conn) (any, error) {
		t := c.txn
		ok, err := m.prepare(c, xid)
		if !ok || err != nil {
			return nil, err
		}
		return strconv.FormatUint(t.id, 10), nil
	})
	switch {
	case err == nil && got == nil:
		b.stage = stageEnded
		return troth.VoteRollback, errAborted // the command tag says ROLLBACK (R9)
	case err == nil:
		b.evidence, b.stage = got.(string), stagePrepared
		return troth.VoteCommit, nil
	case errors.Is(err, errUnknown):
		b.stage = stageWork
		return troth.VoteRollback, err
	}
	return troth.VoteUnknown, err // R10
}

func (b *branch) Evidence() string { return b.evidence }

func (b *branch) Commit(ctx context.Context) error {
	xid := b.xid
	_, err := b.ask(ctx, "commit", func(m *model, c *conn) (any, error) {
		return nil, m.resolve(c.session, xid, troth.Committed)
	})
	if err == nil {
		b.stage = stageEnded
		b.Close()
	}
	return err
}

func (b *branch) Rollback(ctx context.Context) error {
	xid, stage := b.xid, b.stage
	if stage == stageEnded {
		return nil
	}
	if wrote, _ := b.Wrote(ctx); !wrote && stage == stageWork {
		b.Close()
		return nil
	}
	_, err := b.ask(ctx, "rollback", func(m *model, c *conn) (any, error) {
		if stage == stagePrepared {
			return nil, m.resolve(c.session, xid, troth.Aborted)
		}
		if t := c.txn; t != nil && m.find(t.xid) == nil {
			m.rollback(t)
			c.txn = nil
		}
		return nil, nil
	})
	switch {
	case err == nil && stage != stageAsked:
		b.stage = stageEnded
	case stage == stageWork:
		err = nil // the session goes, and its work with it
	case stage == stageAsked && err == nil:
		err = errLost // it may have been prepared all the same
	}
	b.Close()
	return err
}

// CommitDeciding commits in one phase, the decision with it if the store keeps
// decisions: in one message, or in two.
func (b *branch) CommitDeciding(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	decides := b.r.Can()&troth.CanDecide != 0
	insert := func(m *model, c *conn) error {
		if !decides {
			return nil
		}
		return m.insert(m.begin(c, b.plan), d)
	}
	commit := func(m *model, c *conn) (any, error) {
		t := c.txn
		if t == nil {
			return nil, errUnknown
		}
		if t.failed {
			m.rollback(t)
			c.txn = nil
			return nil, errAborted
		}
		if !decides {
			m.s.w.book.decided(d.GID, troth.Committed) // its commit is all there is
		}
		m.commit(t)
		m.committedInOnePhase(t, troth.XID{GID: d.GID, Place: b.foretold, Branch: b.cfg.Branch})
		c.txn = nil
		if m.s.w.killCommitting(m.s) {
			return nil, errLost
		}
		return nil, nil
	}
	var err error
	if b.r.p.w.cfg.twoMessages {
		if _, err = b.ask(ctx, "insert decision", func(m *model, c *conn) (any, error) { return nil, insert(m, c) }); err == nil {
			_, err = b.ask(ctx, "commit deciding", commit)
		}
	} else {
		_, err = b.ask(ctx, "commit deciding", func(m *model, c *conn) (any, error) {
			if err := insert(m, c); err != nil {
				return nil, err
			}
			return commit(m, c)
		})
	}
	switch {
	case err == nil:
		b.stage = stageEnded
		return troth.Committed, nil
	case errors.Is(err, errDuplicate), errors.Is(err, errAborted), errors.Is(err, errUnknown):
		return troth.Aborted, err
	}
	return troth.Undecided, err
}

// Settle is as [troth.Settler] says: when the session is gone, its work is there
// or not.
func (b *branch) Settle(ctx context.Context) (troth.Outcome, error) {
	c, plan := b.conn, b.plan
	got, err := b.r.ask(ctx, "settle", subject{plan.no, b.cfg.Branch}, func() (any, error) {
		if !c.ended {
			if c.opened {
				return nil, errWait
			}
			c.end() // what is still on its way finds nobody
		}
		if b.r.m.count(plan.no) > 0 {
			return troth.Committed, nil
		}
		return troth.Aborted, nil
	})
	if err != nil {
		return troth.Undecided, err
	}
	return got.(troth.Outcome), nil
}

// Release ends a branch that has nothing to commit. Its database may refuse it then:
// what was read does not hold together.
func (b *branch) Release(ctx context.Context) (err error) {
	w := b.r.p.w
	if w.cfg.refusesReaders {
		_, err = b.ask(ctx, "release", func(*model, *conn) (any, error) {
			if w.rough() && w.rng.IntN(2) == 0 {
				return nil, errAborted
			}
			return nil, nil
		})
	}
	b.stage = stageEnded
	b.Close()
	return err
}

func (b *branch) Failed() error {
	_, err := b.Wrote(context.Background())
	return err
}

// Close hangs up.
func (b *branch) Close() {
	p, c := b.r.p, b.conn
	if p.dead.Load() {
		return
	}
	p.w.handIn(&call{by: p, to: b.r.s, key: key{slot: p.slot, incarnation: p.incarnation, store: b.r.s.no, op: "close", tx: b.plan.no, branch: b.cfg.Branch}, do: func() (any, error) {
		p.w.hangUp(c.session)
		return nil, nil
	}})
}
