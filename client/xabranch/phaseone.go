package xabranch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

const cleanupTimeout = 5 * time.Second

// prepare is phase one: register, work, vote. The server knows the branch before the
// database does, so none is ever prepared that nobody would end.
func (s *Service) prepare(ctx context.Context, name troth.XID, call *client.Call, f Func) (reply any, err error) {
	address := s.cfg.URL
	if address == "" {
		address = call.Phase2URL
	}
	if address == "" {
		return nil, invalid(call, "neither Config.URL nor the caller's phase2_url say where the server sends its word")
	}
	err = s.cfg.Client.RegisterXA(ctx, call.GID, call.Branch, address)
	if err != nil && !errors.Is(err, client.ErrExists) { // of an earlier attempt: the barrier tells what it did
		return nil, err
	}
	ctx, done, err := s.begin(ctx, name, call)
	if err != nil {
		return nil, err
	}
	defer done()
	b, err := s.cfg.Resource.Begin(ctx, troth.BranchConfig{
		GID: name.GID, Branch: name.Branch, Context: ctx, XID: func() (troth.XID, error) { return name, nil },
	})
	if err != nil {
		return nil, unknown(call, err)
	}
	prepared := false
	defer func() {
		if !prepared { // also after a panic of f
			s.undo(ctx, b, call)
		}
	}()
	if reply, err = s.run(ctx, b, call, f); err != nil {
		return nil, err
	}
	switch vote, err := b.Prepare(ctx, name); vote {
	case troth.VoteCommit:
	case troth.VoteRollback:
		return nil, &client.Error{Op: "prepare", GID: call.GID, Kind: client.ErrFailed, Err: err}
	case troth.VoteUnknown:
		return nil, unknown(call, err) // the caller gives up, and the server rolls back
	}
	prepared = true
	s.hold(name, b)
	return reply, nil
}

// run enters the barrier and does the work.
func (s *Service) run(ctx context.Context, b troth.Branch, call *client.Call, f Func) (any, error) {
	db, err := handleOf(b)
	if err != nil {
		return nil, err
	}
	step, err := barrier.NewStep(string(client.PatternXA), call.GID, call.Branch, barrier.Action)
	if err != nil {
		return nil, invalid(call, err.Error())
	}
	switch v, err := s.cfg.Barrier.Enter(ctx, db, step); {
	case err != nil:
		return nil, unknown(call, err)
	case v != barrier.Proceed: // it was rolled back before it came, or is a repetition
		return nil, &client.Error{Op: "prepare", GID: call.GID, Kind: client.ErrFailed, Err: fmt.Errorf("the branch has ended before: %v", v)}
	}
	reply, err := f(ctx, db, call)
	if err != nil {
		return nil, err
	}
	if cause := context.Cause(ctx); cause != nil {
		return nil, unknown(call, cause)
	}
	return reply, nil
}

// begin notes that a branch is at work, so that a rollback can end it.
func (s *Service) begin(ctx context.Context, name troth.XID, call *client.Call) (context.Context, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.work[name] != nil || s.held[name] != nil {
		cancel(nil)
		return nil, nil, unknown(call, errors.New("the service is closed, or the branch at work already"))
	}
	s.work[name] = cancel
	return ctx, func() {
		s.mu.Lock()
		delete(s.work, name)
		s.mu.Unlock()
		cancel(nil)
	}, nil
}

// undo ends a branch that did not vote for commit. If that fails, so does its session:
// what is not prepared ends with it.
func (s *Service) undo(ctx context.Context, b troth.Branch, call *client.Call) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), cleanupTimeout, errors.New("the rollback takes too long"))
	defer cancel()
	if err := b.Rollback(ctx); err != nil {
		s.cfg.Logger.WarnContext(ctx, "branch not rolled back, its session is given up", "gid", call.GID, "branch", call.Branch, "err", err)
		b.Close()
	}
}

// hold keeps a prepared branch for its server's word, for a while.
func (s *Service) hold(name troth.XID, b troth.Branch) {
	if s.cfg.HoldMax < 0 {
		b.Close()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		b.Close()
		return
	}
	s.held[name] = &hold{branch: b, timer: time.AfterFunc(s.cfg.HoldMax, func() {
		if b := s.take(name); b != nil {
			b.Close()
		}
	})}
}

// take gives a held branch to whoever ends it; nil if it is not held here.
func (s *Service) take(name troth.XID) troth.Branch {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[name]
	if h == nil {
		return nil
	}
	delete(s.held, name)
	h.timer.Stop()
	return h.branch
}

func unknown(call *client.Call, err error) error {
	return &client.Error{Op: string(call.Op), GID: call.GID, Kind: client.ErrUnknown, Err: err}
}

func invalid(call *client.Call, text string) error {
	return &client.Error{Op: string(call.Op), GID: call.GID, Kind: client.ErrInvalid, Err: errors.New(text)}
}
