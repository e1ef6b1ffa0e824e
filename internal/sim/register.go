package sim

import (
	"context"
	"time"

	"github.com/troth-tx/troth"
)

// register is a process's view of the decisions in a store: a participant's table,
// a table of its own, or a file log.
type register struct{ r *resource }

var _ troth.Register = (*register)(nil)

func (g *register) Open(ctx context.Context, _ troth.RegisterConfig) error {
	return g.r.tell(ctx, "open register", nothing, func() error {
		if g.r.s.kind == kindFile {
			g.r.m.sync() // what the log finds it writes again
		}
		return nil
	})
}

func (g *register) Identity() string { return g.r.m.identity }

func (g *register) Decide(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	op := "decide " + d.Outcome.String()
	got, err := g.r.ask(ctx, op, g.about(d.GID), func() (any, error) { return g.r.m.decide(d) })
	if err != nil {
		return troth.Undecided, err
	}
	if g.r.s.kind == kindFile { // who joined somebody else's record needs its sync all the same
		if err := g.r.tell(ctx, "sync", g.about(d.GID), func() error { g.r.m.sync(); return nil }); err != nil {
			return troth.Undecided, err
		}
	}
	return got.(troth.Outcome), nil
}

func (g *register) Lookup(ctx context.Context, gid troth.GID) (troth.Outcome, error) {
	got, err := g.r.ask(ctx, "look up", g.about(gid), func() (any, error) { return g.r.m.lookup(gid), nil })
	if err != nil {
		return troth.Undecided, err
	}
	return got.(troth.Outcome), nil
}

func (g *register) Committed(ctx context.Context, minAge time.Duration, after troth.GID, limit int) ([]troth.Decision, error) {
	got, err := g.r.ask(ctx, "list committed", nothing, func() (any, error) { return g.r.m.committed(minAge, after, limit), nil })
	if err != nil {
		return nil, err
	}
	return got.([]troth.Decision), nil
}

func (g *register) Forget(ctx context.Context, gids []troth.GID) error {
	return g.r.tell(ctx, "forget", nothing, func() error { g.r.m.forget(gids); return nil })
}

func (g *register) Expire(ctx context.Context, age time.Duration) (int, error) {
	got, err := g.r.ask(ctx, "expire", nothing, func() (any, error) { return g.r.m.expire(age), nil })
	if err != nil {
		return 0, err
	}
	return got.(int), nil
}

func (g *register) Close(context.Context) error { return nil }

func (g *register) about(gid troth.GID) subject {
	return about(g.r, troth.XID{GID: gid})
}
