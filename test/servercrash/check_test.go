//go:build linux

package servercrash

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/troth-tx/troth/client"
)

// A tally is what came of the transactions of a world.
type tally struct{ succeeded, failed, never int }

// effects are what happened to one transaction, by branch and operation, and in order.
type effects struct {
	count map[string]int // "01 action"
	order []entry
}

// check looks at the money when nothing moves any more: every transaction is over, or was
// never known to a server, and no call is on its way.
func (w *world) check(ctx context.Context) (sum tally, err error) {
	w.late.Wait()
	found := make(map[string]*effects)
	w.inAll = 0
	every := slices.Concat(w.banks[:], w.xa.banks[:])
	for i, b := range every {
		all, held, err := b.total(ctx)
		if err != nil {
			return sum, err
		}
		if held != 0 {
			w.violate("I5", w.name, "%d is still held in bank %d", held, i)
		}
		w.inAll += all
		entries, err := b.journal(ctx)
		if err != nil {
			return sum, err
		}
		for _, e := range entries {
			if found[e.gid] == nil {
				found[e.gid] = &effects{count: make(map[string]int)}
			}
			found[e.gid].count[e.branch+" "+e.op]++
			found[e.gid].order = append(found[e.gid].order, e)
		}
	}
	if want := int64(len(every) * accounts * startBalance); w.inAll != want {
		w.violate("I5", w.name, "%d in all accounts, want %d", w.inAll, want)
	}
	if err := w.xa.check(ctx, w); err != nil {
		return sum, err
	}
	for _, p := range w.made() {
		p.settled.Store(true)
		e := found[p.gid]
		delete(found, p.gid)
		if e == nil {
			e = &effects{}
		}
		slices.SortFunc(e.order, func(a, b entry) int { return cmp.Compare(a.seq, b.seq) })
		switch state := w.seen(p); state {
		case client.Succeeded:
			sum.succeeded++
		case client.Failed:
			sum.failed++
		default:
			sum.never++
		}
		w.checkOne(p, e)
	}
	for gid := range found {
		w.violate("I6", gid, "the banks have effects of a transaction that nobody made")
	}
	return sum, nil
}

// forth are the effects that a transaction has when it succeeded, by pattern; their
// undoing is the other operation.
var forth = map[client.Pattern]struct {
	all          []string
	action, undo string
}{
	client.PatternMessage:  {[]string{"00 msg", "01 action"}, "action", ""},
	client.PatternSaga:     {[]string{"01 action", "02 action", "03 action"}, "action", "compensate"},
	client.PatternTCC:      {[]string{"01 try", "02 try", "01 confirm", "02 confirm"}, "try", "cancel"},
	client.PatternWorkflow: {[]string{"01-give action", "02-get action"}, "action", "rollback"},
	client.PatternXA:       {[]string{"01 action", "02 action"}, "action", ""}, // its databases undo, without a trace
}

func (w *world) checkOne(p *plan, e *effects) {
	state, want := w.seen(p), forth[p.kind.pattern]
	if told := p.told(); told != "" && told != state && (told != client.Failed || state != "") {
		w.violate("I3", p.gid, "its program was told %s (%v), and it is %q", told, p.err, state)
	}
	if p.err == nil && state == "" {
		w.violate("I3", p.gid, "its program was told that it is stored, and it is unknown")
	}
	if errors.Is(p.err, client.ErrMixed) {
		w.violate("I3", p.gid, "its program was told of a mixed outcome: %v", p.err)
	}
	for what, n := range e.count {
		if n > 1 {
			w.violate("I6", p.gid, "%s took effect %d times", what, n)
		}
	}
	if p.kind.pattern == client.PatternMessage && (e.count["00 msg"] > 0) != (state == client.Succeeded) {
		w.violate("I15", p.gid, "its sender committed: %v, and it is %q", e.count["00 msg"] > 0, state)
	}
	switch state {
	case client.Succeeded:
		if got := e.names(); !slices.Equal(got, slices.Sorted(slices.Values(want.all))) {
			w.violate("I1", p.gid, "it succeeded, and its effects are %q", got)
		}
	case client.Failed:
		w.checkUndone(p, e)
	default: // no server ever knew of it
		if len(e.count) > 0 {
			w.violate("I1", p.gid, "it is unknown, and its effects are %q", e.names())
		}
	}
}

func (e *effects) names() (all []string) {
	for what := range e.count {
		all = append(all, what)
	}
	slices.Sort(all)
	return all
}

// checkUndone is I1 and I14 of a transaction that failed: what was done is undone, and
// nothing else; by sagas and workflows in the opposite order.
func (w *world) checkUndone(p *plan, e *effects) {
	want := forth[p.kind.pattern]
	var done, undone []string
	for _, each := range e.order {
		switch each.op {
		case want.action:
			done = append(done, each.branch)
		case want.undo:
			undone = append(undone, each.branch)
		default:
			w.violate("I1", p.gid, "it failed, and its effects are %q", e.names())
			return
		}
	}
	slices.Reverse(undone)
	ordered := p.kind.pattern != client.PatternTCC // a server cancels all at once
	if !ordered {
		slices.Sort(undone)
		slices.Sort(done)
	}
	if slices.Equal(done, undone) {
		return
	}
	slices.Sort(undone)
	slices.Sort(done)
	if slices.Equal(done, undone) {
		w.violate("I14", p.gid, "undone out of order: %v", e.order)
	} else {
		w.violate("I1", p.gid, "it failed, and its effects are %q", e.names())
	}
}

// report fails the test with the violations that it has not told yet, and what servers
// said.
func (w *world) report(t *testing.T, replay string, servers ...*process) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = slices.DeleteFunc(w.violations, func(v string) bool { return w.reported[v] })
	if len(w.violations) == 0 {
		return
	}
	for _, v := range w.violations {
		w.reported[v] = true
	}
	t.Errorf("%d violations (%s):\n%s", len(w.violations), replay, strings.Join(w.violations[:min(20, len(w.violations))], "\n"))
	w.violations = nil
	for i, p := range slices.Compact(servers) {
		t.Logf("the end of what server %d said:\n%s", i+1, p.said())
	}
}
