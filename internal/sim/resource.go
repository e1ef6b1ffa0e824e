package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/troth-tx/troth"
)

// resource is the plain resource manager of one process over one store. It keeps
// the contract of [troth.Resource] as the real ones do, in as few steps as they.
type resource struct {
	p         *process
	s         *store
	m         *model
	decisions *register // in the store
}

func (p *process) resource(s *store) *resource {
	r := &resource{p: p, s: s, m: s.backend.(*model)}
	r.decisions = &register{r: r}
	return r
}

var (
	_ troth.Resource  = (*resource)(nil)
	_ troth.Forgetter = (*resource)(nil)
	_ troth.Sweeper   = (*resource)(nil)
)

func (r *resource) manager() troth.Resource { return r }

// work does a leg, as a program would.
func (r *resource) work(ctx context.Context, tx *troth.Tx, _ *plan, l leg) error {
	b, err := tx.Enlist(ctx, r)
	if err != nil {
		return &enlistError{err}
	}
	if l.reads {
		return nil
	}
	return b.(*branch).work(ctx, l)
}

func (r *resource) Name() string { return r.s.name }

func (r *resource) Can() troth.Capability {
	var can troth.Capability
	if r.s.kind != kindSQLite {
		can = troth.CanPrepare
	}
	if r.p.w.register == nil || can == 0 {
		can |= troth.CanDecide
	}
	if r.s.binlog {
		can |= troth.OnePhaseReturns
	}
	return can
}

func (r *resource) Open(ctx context.Context, _ troth.ResourceConfig) error {
	return r.tell(ctx, "open", nothing, func() error { return nil })
}

func (r *resource) Close(context.Context) error { return nil }

func (r *resource) Decisions() troth.Register {
	if r.Can()&troth.CanDecide == 0 {
		return nil
	}
	return r.decisions
}

func (r *resource) Begin(_ context.Context, cfg troth.BranchConfig) (troth.Branch, error) {
	b := &branch{r: r, cfg: cfg, plan: r.p.w.plan(cfg.GID)}
	b.conn = &conn{session: &session{store: r.s, slot: r.p.slot, incarnation: r.p.incarnation}}
	if r.s.kind == kindMariaDB { // XA START names the branch before its first statement
		xid, err := cfg.XID()
		if err != nil {
			return nil, err
		}
		b.foretold = xid.Place
	}
	return b, nil
}

func (r *resource) Recover(ctx context.Context) ([]troth.Prepared, error) {
	got, err := r.ask(ctx, "list prepared", nothing, func() (any, error) { return r.m.list(), nil })
	if err != nil {
		return nil, err
	}
	return got.([]troth.Prepared), nil
}

// list is what the database shows of its prepared branches.
func (m *model) list() []troth.Prepared {
	out := make([]troth.Prepared, 0, len(m.prepared))
	for _, t := range m.prepared {
		p := troth.Prepared{XID: t.xid, Ours: t.xid.Place != (troth.Place{}), Native: t.native}
		if m.s.kind == kindPostgres {
			p.Age = max(time.Since(t.at), 1)
		}
		out = append(out, p)
	}
	return out
}

// Finish is as [troth.Resource] says. On MariaDB it ends the session that holds
// the branch first, and believes nothing but the witness (R8).
func (r *resource) Finish(ctx context.Context, xid troth.XID, outcome troth.Outcome, evidence string) error {
	if r.s.kind == kindMariaDB {
		for patient := true; ; patient = false {
			held, err := r.ask(ctx, "look for holder", about(r, xid), func() (any, error) {
				t := r.m.find(xid)
				return t != nil && t.holder != nil, nil
			})
			if err != nil {
				return err
			}
			if !held.(bool) {
				break
			}
			if patient && evidence == "" {
				if !pause(ctx, time.Second) {
					return context.Cause(ctx)
				}
				continue
			}
			if err := r.tell(ctx, "kill holder", about(r, xid), func() error {
				if t := r.m.find(xid); t != nil && t.holder != nil {
					t.holder.end()
				}
				return nil
			}); err != nil {
				return err
			}
		}
	}
	err := r.tell(ctx, "finish "+outcome.String(), about(r, xid), func() error {
		err := r.m.resolve(nil, xid, outcome)
		if err == nil && outcome == troth.Committed && r.s.kind == kindMariaDB && !r.m.witnessed(xid) {
			return troth.ErrNoEvidence // a home that came back: it has a record instead
		}
		return err
	})
	if err == nil || !errors.Is(err, errUnknown) {
		return err
	}
	return r.prove(ctx, xid, outcome, evidence)
}

// prove looks for evidence of how a branch ended that is not there.
func (r *resource) prove(ctx context.Context, xid troth.XID, outcome troth.Outcome, evidence string) error {
	got, err := r.ask(ctx, "look for evidence", about(r, xid), func() (any, error) {
		if r.m.find(xid) != nil {
			return troth.Undecided, errors.New("sim: the branch is there: try again")
		}
		if r.s.kind == kindMariaDB {
			if r.m.witnessed(xid) {
				return troth.Committed, nil
			}
			return troth.Aborted, nil
		}
		var id uint64
		if _, err := fmt.Sscan(evidence, &id); err != nil {
			return troth.Undecided, nil
		}
		return r.m.xacts[id], nil
	})
	if err != nil {
		return err
	}
	switch found := got.(troth.Outcome); {
	case found == outcome:
		return nil
	case found == troth.Undecided || (r.s.kind == kindMariaDB && evidence == ""):
		return troth.ErrNoEvidence
	default:
		return &troth.HeuristicError{GID: xid.GID, Decision: outcome, Branches: []troth.HeuristicBranch{{
			Resource: r.s.name, XID: xid.String(), Ended: found, Evidence: "the simulated database says so",
		}}}
	}
}

func (r *resource) Forget(ctx context.Context, gids []troth.GID) error {
	if r.s.kind != kindMariaDB {
		return nil
	}
	return r.tell(ctx, "drop witnesses", nothing, func() error {
		for id, w := range r.m.witness {
			if slices.Contains(gids, w.gid) {
				delete(r.m.witness, id)
				r.m.harden()
			}
		}
		return nil
	})
}

func (r *resource) Sweep(ctx context.Context, minAge time.Duration, forgotten func(context.Context, troth.Place, troth.GID) (bool, error)) (int, error) {
	if r.s.kind != kindMariaDB {
		return 0, nil
	}
	got, err := r.ask(ctx, "list witnesses", nothing, func() (any, error) {
		var old []witness
		for _, w := range r.m.witness {
			if time.Since(w.at) >= minAge {
				old = append(old, w)
			}
		}
		slices.SortFunc(old, func(a, b witness) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.gid, b.gid)) })
		return old, nil
	})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, w := range got.([]witness) {
		if gone, err := forgotten(ctx, w.place, w.gid); err != nil || !gone {
			continue
		}
		if err := r.Forget(ctx, []troth.GID{w.gid}); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// subject tells what a call is about.
type subject struct{ tx, branch int }

var nothing subject

func about(r *resource, xid troth.XID) subject {
	if p := r.p.w.plan(xid.GID); p != nil {
		return subject{p.no, xid.Branch}
	}
	return nothing
}

// ask is a call that needs no session of its own.
func (r *resource) ask(ctx context.Context, op string, on subject, do func() (any, error)) (any, error) {
	return r.p.ask(ctx, &call{to: r.s, key: key{op: op, tx: on.tx, branch: on.branch}, do: do})
}

func (r *resource) tell(ctx context.Context, op string, on subject, do func() error) error {
	_, err := r.ask(ctx, op, on, func() (any, error) { return nil, do() })
	return err
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
