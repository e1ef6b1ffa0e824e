package sqlstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/troth-tx/troth/store"
)

const (
	// batchMax is how many changes share a transaction, and batchSizeMax how many bytes
	// they may have together unless it is a single one.
	batchMax     = 256
	batchSizeMax = 8 << 20

	// gatherFrom is how long a flush must take for the writer to wait for callers, and
	// gatherShare of the time of the last flush is how long it waits at most.
	gatherFrom  = 200 * time.Microsecond
	gatherShare = 8
)

// A writer owns a connection for writing and a goroutine that uses it: it writes what
// callers have brought meanwhile as one database transaction, and then tells each of
// them what came of his change. While it commits one batch, the next gathers.
//
// A transaction's changes always go to the same writer of a store, so writers of one
// store never wait for each other's rows.
type writer struct {
	store  *Store
	wake   chan struct{} // capacity 1: there is work
	enough chan struct{} // capacity 1: as many have come as were waited for
	ended  chan struct{}

	mu       sync.Mutex // guards what follows
	ops      []*op
	calls    []*call
	gatherAt int // how many ops the writer waits for; 0: it does not wait
	closing  bool

	// What follows belongs to the goroutine.
	session *session
	failed  error // the database cannot be trusted any more
	known   *known
	seq     block
	last    flushed
	gids    []string
}

// A call is other work for a writer's connection.
type call struct {
	f     func(ctx context.Context, s *session) error
	taken bool // guarded by writer.mu
	done  chan struct{}
	err   error
}

// flushed describes a batch that was committed.
type flushed struct {
	took    time.Duration
	ended   time.Time
	callers int // who were served, and who had come meanwhile
}

func (s *Store) startWriter() *writer {
	w := &writer{
		store: s, wake: make(chan struct{}, 1), enough: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	if s.cfg.Sole {
		w.known = newKnown()
	}
	go w.run()
	return w
}

// do brings a change, and waits until it is written or ctx ends.
func (w *writer) do(ctx context.Context, o *op) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: not written: %w", context.Cause(ctx))
	}
	w.mu.Lock()
	if w.closing {
		w.mu.Unlock()
		return store.ErrClosed
	}
	w.ops = append(w.ops, o)
	n := len(w.ops)
	enough := n == w.gatherAt
	w.mu.Unlock()
	if n == 1 {
		signal(w.wake)
	}
	if enough {
		signal(w.enough)
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		if o.taken.CompareAndSwap(false, true) { // the writer will pass it over
			return fmt.Errorf("store: not written: %w", context.Cause(ctx))
		}
		return fmt.Errorf("store: it is being written, and the outcome is not known: %w", context.Cause(ctx))
	}
}

// call runs f on the writer's connection, in a transaction that is committed if f
// returns nil. f may be run several times. If ctx ends before it has begun it is not
// run; otherwise its outcome is not known.
func (w *writer) call(ctx context.Context, f func(ctx context.Context, s *session) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call{f: f, done: make(chan struct{})}
	w.mu.Lock()
	if w.closing {
		w.mu.Unlock()
		return store.ErrClosed
	}
	w.calls = append(w.calls, c)
	w.mu.Unlock()
	signal(w.wake)
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	w.mu.Lock()
	taken := c.taken
	if !taken {
		w.calls = slices.DeleteFunc(w.calls, func(x *call) bool { return x == c })
	}
	w.mu.Unlock()
	if taken {
		return fmt.Errorf("store: it is being written, and the outcome is not known: %w", context.Cause(ctx))
	}
	return context.Cause(ctx)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is known
	}
}

// run is the writer's goroutine. It ends when the store closes and all is written.
func (w *writer) run() {
	defer close(w.ended)
	defer w.drop()
	for {
		w.gather()
		ops, c, closing := w.take()
		switch {
		case c == nil && len(ops) == 0 && closing:
			return
		case c == nil && len(ops) == 0:
			<-w.wake
			continue
		}
		if c != nil {
			c.err = w.runCall(c.f)
			close(c.done)
		}
		if len(ops) > 0 {
			w.write(ops)
		}
	}
}

// take takes the oldest call, and a batch.
func (w *writer) take() (ops []*op, c *call, closing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.calls) > 0 {
		c, w.calls = w.calls[0], w.calls[1:]
		c.taken = true
	}
	n, size := 0, 0
	for n < len(w.ops) && len(ops) < batchMax {
		o := w.ops[n]
		if size += o.size(); size > batchSizeMax && len(ops) > 0 {
			break
		}
		if n++; o.taken.CompareAndSwap(false, true) {
			ops = append(ops, o)
		}
	}
	if n == len(w.ops) {
		w.ops = nil
	} else {
		w.ops = w.ops[n:]
	}
	return ops, c, w.closing
}

// gather waits a little for the callers that the last flush released to come back.
// Without it they would split into two halves that take turns, and everybody would
// wait for two flushes. It does not wait where a flush is cheap, nor for callers that
// came a while ago. It is woken by the caller that completes the batch: the timer may be
// late by a millisecond on an idle machine.
func (w *writer) gather() {
	last := w.last
	if last.took < gatherFrom || time.Since(last.ended) > last.took {
		return
	}
	w.mu.Lock()
	if n := len(w.ops); n == 0 || n >= last.callers || w.closing || len(w.calls) > 0 {
		w.mu.Unlock()
		return
	}
	w.gatherAt = last.callers
	w.mu.Unlock()

	timeout := time.NewTimer(last.took / gatherShare)
	select {
	case <-w.enough:
	case <-timeout.C:
	}
	timeout.Stop()
	w.mu.Lock()
	w.gatherAt = 0
	select { // a signal that came together with the timeout
	case <-w.enough:
	default:
	}
	w.mu.Unlock()
}

func (w *writer) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ops)
}

// close lets the writer end when all is written.
func (w *writer) close() {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	signal(w.wake)
}
