package xabranch

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

// commit ends a branch as its server decided. nil is positive evidence that it is
// committed (R8).
func (s *Service) commit(ctx context.Context, name troth.XID, call *client.Call) error {
	if b := s.take(name); b != nil {
		err := b.Commit(ctx)
		if err == nil {
			s.forget(ctx, name)
			return nil
		}
		b.Close()
	}
	err := s.cfg.Resource.Finish(ctx, name, troth.Committed, "")
	if errors.Is(err, troth.ErrNoEvidence) {
		err = s.proveCommitted(ctx, call, err)
	}
	if err != nil {
		return unknown(call, err)
	}
	s.forget(ctx, name)
	return nil
}

// forget drops what the resource keeps of a committed branch: from here on the barrier's
// row is the evidence.
func (s *Service) forget(ctx context.Context, name troth.XID) {
	if r, ok := s.cfg.Resource.(troth.Forgetter); ok {
		if err := r.Forget(ctx, []troth.GID{name.GID}); err != nil {
			s.cfg.Logger.DebugContext(ctx, "witness row not deleted", "gid", name.GID, "err", err)
		}
	}
}

// proveCommitted looks for the row that the branch has written itself.
func (s *Service) proveCommitted(ctx context.Context, call *client.Call, none error) error {
	return s.enter(ctx, call, barrier.Action, func(_ context.Context, _ *sql.Conn, v barrier.Verdict) error {
		switch v {
		case barrier.Repeat:
			return nil
		case barrier.Late:
			return fmt.Errorf("the branch was rolled back before, and the transaction is to be committed: a person must look at it: %w", none)
		case barrier.Proceed, barrier.Empty:
		}
		return fmt.Errorf("the branch is not prepared, and nothing shows that it committed: a person must look at it: %w", none)
	})
}

// rollback ends a branch as its server decided, and fences it: one that is still on its
// way cannot prepare any more.
func (s *Service) rollback(ctx context.Context, name troth.XID, call *client.Call) error {
	s.mu.Lock()
	if cancel := s.work[name]; cancel != nil {
		cancel(errors.New("the transaction is being rolled back"))
	}
	s.mu.Unlock()
	if b := s.take(name); b != nil {
		if err := b.Rollback(ctx); err != nil {
			b.Close()
		}
	}
	if err := s.cfg.Resource.Finish(ctx, name, troth.Aborted, ""); err != nil {
		return unknown(call, err)
	}
	err := s.enter(ctx, call, barrier.Rollback, func(ctx context.Context, c *sql.Conn, v barrier.Verdict) error {
		switch v {
		case barrier.Empty:
			_, err := c.ExecContext(ctx, "COMMIT")
			return err
		case barrier.Repeat, barrier.Late:
			return nil
		case barrier.Proceed: // its row is committed
		}
		return errors.New("the branch is committed, and the transaction is to be rolled back: a person must look at it")
	})
	if errors.Is(err, errAtWork) {
		return &client.Error{Op: string(call.Op), GID: call.GID, Kind: client.ErrOngoing, Err: err}
	}
	if err != nil {
		return unknown(call, err)
	}
	return nil
}

var errAtWork = errors.New("the branch is at work, or prepared meanwhile")

// enter enters the barrier in a transaction of its own and hands the verdict to f, which
// may commit. What it does not commit is rolled back.
func (s *Service) enter(ctx context.Context, call *client.Call, op barrier.Op, f func(ctx context.Context, c *sql.Conn, v barrier.Verdict) error) error {
	step, err := barrier.NewStep(string(client.PatternXA), call.GID, call.Branch, op)
	if err != nil {
		return err
	}
	c, err := s.cfg.DB.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { // its settings are not the pool's
		_ = c.Raw(func(any) error { return driver.ErrBadConn })
		_ = c.Close()
	}()
	for _, statement := range s.patience() {
		if _, err := c.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	began := time.Now()
	v, err := s.cfg.Barrier.Enter(ctx, c, step)
	if err != nil {
		if time.Since(began) >= s.cfg.WaitMax*9/10 {
			return errors.Join(errAtWork, err)
		}
		return err
	}
	return f(ctx, c, v)
}

// patience begins a transaction that waits for locks no longer than WaitMax.
func (s *Service) patience() []string {
	ms := max(s.cfg.WaitMax.Milliseconds(), 1)
	if s.cfg.Barrier.Dialect() == barrier.MySQL {
		return []string{fmt.Sprintf("SET SESSION innodb_lock_wait_timeout = %d", max(ms/1000, 1)), "BEGIN"}
	}
	return []string{"BEGIN", fmt.Sprintf("SET LOCAL lock_timeout = %d", ms)}
}
