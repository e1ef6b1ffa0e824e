package simdriver

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/simdb"
)

// A Direct connects to a server without anything in between: nothing is lost, and
// statements that wait are resumed when they can be, by whichever goroutine waits
// for the answer. It makes a server safe for concurrent use, by tests that do not
// simulate time: lock timeouts are those of the real clock.
type Direct struct {
	mu      sync.Mutex // guards the server
	changed *sync.Cond // a statement has ended
	srv     *simdb.Server
}

// NewDirect makes a Direct. The server must not be used but through it.
func NewDirect(srv *simdb.Server) *Direct {
	d := &Direct{srv: srv}
	d.changed = sync.NewCond(&d.mu)
	return d
}

// With calls f with the server, which nobody else uses meanwhile.
func (d *Direct) With(f func(*simdb.Server)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.srv)
	d.changed.Broadcast()
}

// Dial connects; it is for Connector.
func (d *Direct) Dial(context.Context) (Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.srv.Connect()
	if err != nil {
		return nil, err
	}
	return &directConn{d: d, s: s}, nil
}

type directConn struct {
	d *Direct
	s *simdb.Session
}

func (c *directConn) Exec(ctx context.Context, text string, args []any) ([]simdb.Result, error) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	defer c.d.changed.Broadcast()
	results, err := c.s.ExecArgs(text, args)
	if !errors.Is(err, simdb.ErrWait) {
		return results, err
	}
	wake := func(f func()) func() {
		return func() {
			c.d.mu.Lock()
			defer c.d.mu.Unlock()
			f()
			c.d.changed.Broadcast()
		}
	}
	stop := context.AfterFunc(ctx, wake(c.s.Cancel))
	defer stop()
	if limit := c.s.LockTimeout(); limit > 0 {
		defer time.AfterFunc(limit, wake(c.s.Expire)).Stop()
	}
	for errors.Is(err, simdb.ErrWait) {
		if !c.s.Ready() {
			c.d.changed.Wait()
			continue
		}
		results, err = c.s.Resume()
	}
	return results, err
}

// Lost is as Prober says.
func (c *directConn) Lost() bool {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	return !c.s.Alive()
}

func (c *directConn) Close() error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.s.Close()
	c.d.changed.Broadcast()
	return nil
}
