package troth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// memRM is a resource manager in memory, for what real databases cannot show at
// will: which calls the Manager makes, in which order, and what it makes of every
// answer. What databases do with the calls is tested with databases.
type memRM struct {
	name string
	can  Capability
	tab  *memRegister
	log  *callLog

	mu       sync.Mutex
	prepared map[string]XID
	done     map[string]Outcome // how prepared branches ended
	fail     map[string]failure // by operation
	wrote    bool               // what new branches say
}

// failure is how an operation fails.
type failure struct {
	err   error
	after bool            // the database did it, only the answer is lost
	times int             // 0: always
	until <-chan struct{} // the call takes until it is closed; nil: no time
}

// callLog records the calls of all resources in one order.
type callLog struct {
	mu    sync.Mutex
	calls []string
}

func (l *callLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, fmt.Sprintf(format, args...))
}

func (l *callLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.calls, ", ")
}

func newMemRM(name string, log *callLog) *memRM {
	return &memRM{
		name: name, can: CanPrepare | CanDecide, log: log, tab: newMemRegister(), wrote: true,
		prepared: make(map[string]XID), done: make(map[string]Outcome), fail: make(map[string]failure),
	}
}

func (r *memRM) failOn(op string, f failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail[op] = f
}

// broken is the failure planned for an operation, if there is one.
func (r *memRM) broken(op string) (failure, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.fail[op]
	if ok && f.times > 0 {
		if f.times--; f.times == 0 {
			delete(r.fail, op)
		} else {
			r.fail[op] = f
		}
	}
	return f, ok
}

// call runs do as an operation that may fail before or after it.
func (r *memRM) call(op string, do func() error) error {
	r.log.add("%s %s", r.name, op)
	f, bad := r.broken(op)
	if f.until != nil {
		<-f.until
	}
	if bad && !f.after {
		return f.err
	}
	err := do()
	if bad {
		return f.err
	}
	return err
}

func (r *memRM) Name() string { return r.name }
func (r *memRM) Open(context.Context, ResourceConfig) error {
	f, bad := r.broken("open")
	if bad {
		return f.err
	}
	return nil
}
func (r *memRM) Can() Capability { return r.can }
func (r *memRM) Decisions() Register {
	if r.can&CanDecide == 0 {
		return nil
	}
	return r.tab
}
func (r *memRM) Close(context.Context) error { return nil }

func (r *memRM) Begin(_ context.Context, cfg BranchConfig) (Branch, error) {
	f, bad := r.broken("begin")
	if bad {
		return nil, f.err
	}
	return &memBranch{rm: r, cfg: cfg}, nil
}

func (r *memRM) Recover(context.Context) ([]Prepared, error) {
	if f, bad := r.broken("recover"); bad {
		return nil, f.err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Prepared
	for name, x := range r.prepared {
		out = append(out, Prepared{XID: x, Ours: true, Native: name})
	}
	return out, nil
}

func (r *memRM) Finish(_ context.Context, x XID, o Outcome, _ string) error {
	return r.call("finish "+o.verb(), func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if _, ok := r.prepared[x.String()]; ok {
			delete(r.prepared, x.String())
			r.done[x.String()] = o
			return nil
		}
		switch ended := r.done[x.String()]; ended {
		case o:
			return nil
		case Undecided:
			if o == Aborted {
				return nil
			}
			return ErrNoEvidence
		default:
			return &HeuristicError{GID: x.GID, Decision: o, Branches: []HeuristicBranch{{Resource: r.name, XID: x.String(), Ended: ended, Evidence: "done"}}}
		}
	})
}

// work enlists the resource as a program's statement would.
func (r *memRM) work(ctx context.Context, tx *Tx) error {
	_, err := tx.Enlist(ctx, r)
	return err
}

type memBranch struct {
	rm    *memRM
	cfg   BranchConfig
	xid   XID
	ended bool
}

func (b *memBranch) Wrote(context.Context) (bool, error) {
	if f, bad := b.rm.broken("wrote"); bad {
		return true, f.err
	}
	return b.rm.wrote, nil
}

func (b *memBranch) Prepare(ctx context.Context, x XID) (Vote, error) {
	b.xid = x
	err := b.rm.call("prepare", func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.rm.mu.Lock()
		defer b.rm.mu.Unlock()
		b.rm.prepared[x.String()] = x
		return nil
	})
	switch {
	case err == nil:
		return VoteCommit, nil
	case errors.Is(err, errVoteNo):
		return VoteRollback, err
	}
	return VoteUnknown, err
}

var errVoteNo = errors.New("deferred constraint")

func (b *memBranch) Evidence() string { return "731" }

func (b *memBranch) Commit(context.Context) error {
	return b.rm.call("commit", func() error { return b.end(Committed) })
}

func (b *memBranch) Rollback(context.Context) error {
	if b.ended {
		return nil
	}
	return b.rm.call("rollback", func() error { return b.end(Aborted) })
}

func (b *memBranch) end(o Outcome) error {
	b.rm.mu.Lock()
	defer b.rm.mu.Unlock()
	b.ended = true
	if _, ok := b.rm.prepared[b.xid.String()]; ok {
		delete(b.rm.prepared, b.xid.String())
		b.rm.done[b.xid.String()] = o
	}
	return nil
}

func (b *memBranch) CommitDeciding(ctx context.Context, d Decision) (Outcome, error) {
	outcome := Undecided
	err := b.rm.call("decide", func() (err error) {
		outcome, err = b.rm.tab.Decide(ctx, d)
		b.ended = true
		return err
	})
	if err != nil {
		return Undecided, err
	}
	return outcome, nil
}

func (b *memBranch) Release(context.Context) error {
	return b.rm.call("release", func() error { b.ended = true; return nil })
}

func (b *memBranch) Close() {}

// memRegister is a register in memory.
type memRegister struct {
	id   string
	mu   sync.Mutex
	recs map[GID]Decision
	err  error
	lose int // how many answers of Decide to lose
}

func newMemRegister() *memRegister {
	return &memRegister{id: NewIdentity(), recs: make(map[GID]Decision)}
}

func (r *memRegister) Open(context.Context, RegisterConfig) error { return nil }
func (r *memRegister) Identity() string                           { return r.id }
func (r *memRegister) Close(context.Context) error                { return nil }

func (r *memRegister) Decide(ctx context.Context, d Decision) (Outcome, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return Undecided, err // as every driver does before it sends anything
	}
	if r.err != nil {
		return Undecided, r.err
	}
	if _, ok := r.recs[d.GID]; !ok {
		d.At = time.Now()
		r.recs[d.GID] = d
	}
	if r.lose > 0 {
		r.lose--
		return Aborted, errors.New("connection reset") // whatever comes with an error must not matter
	}
	return r.recs[d.GID].Outcome, nil
}

func (r *memRegister) Lookup(_ context.Context, gid GID) (Outcome, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recs[gid].Outcome, r.err
}

func (r *memRegister) Committed(_ context.Context, minAge time.Duration, after GID, limit int) ([]Decision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Decision
	for _, d := range r.recs {
		if d.Outcome == Committed && d.GID > after && time.Since(d.At) >= minAge {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Decision) int { return cmp.Compare(a.GID, b.GID) })
	return out[:min(limit, len(out))], r.err
}

func (r *memRegister) Forget(_ context.Context, gids []GID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	for _, g := range gids {
		delete(r.recs, g)
	}
	return nil
}

func (r *memRegister) Expire(_ context.Context, age time.Duration) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for g, d := range r.recs {
		if d.Outcome == Aborted && time.Since(d.At) >= age {
			delete(r.recs, g)
			n++
		}
	}
	return n, r.err
}

func (r *memRegister) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.recs)
}

func (r *memRegister) setErr(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}
