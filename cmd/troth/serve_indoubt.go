package main

import (
	"context"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/server/api"
)

// inDoubtFunc looks at the configured databases as "troth indoubt" does: each time
// anew, and one look at a time, so that no number of questions costs the databases
// more connections than one.
func (a *app) inDoubtFunc(s settings) api.InDoubtFunc {
	one := make(chan struct{}, 1)
	return func(ctx context.Context) (api.InDoubt, error) {
		ctx, cancel := limited(ctx, s.timeout)
		defer cancel()
		select {
		case one <- struct{}{}:
			defer func() { <-one }()
		case <-ctx.Done():
			return api.InDoubt{}, context.Cause(ctx)
		}
		w, err := a.openWorld(ctx, s, 0)
		if err != nil {
			return api.InDoubt{}, err
		}
		defer w.close()
		list, _ := w.mgr.InDoubt(ctx) // who did not answer is in trouble
		found := api.InDoubt{Branches: []api.InDoubtBranch{}, Unreachable: []api.Unreachable{}}
		for _, b := range list {
			found.Branches = append(found.Branches, a.inDoubtBranch(b))
		}
		for _, t := range a.trouble(w) {
			found.Unreachable = append(found.Unreachable, api.Unreachable(t))
		}
		return found, nil
	}
}

func (a *app) inDoubtBranch(b troth.InDoubt) api.InDoubtBranch {
	v := api.InDoubtBranch{
		Resource: b.Resource, Ours: b.Ours, Name: b.Native, Age: b.Age.Seconds(), Owner: b.Owner,
		Decision: decisionWord(b.Evidence), Verdict: a.secrets.hide(b.Verdict), Blocked: len(b.Blocked),
	}
	if b.Ours {
		v.Transaction, v.Domain = string(b.XID.GID), b.XID.GID.Domain()
	}
	return v
}
