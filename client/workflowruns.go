package client

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// runs are the runs of workflows in this process: one at a time of each workflow. One
// that [Workflows.Execute] makes belongs to its caller. One that the server asks for goes
// on by itself, in a goroutine: the server waits for seconds, and a step may take minutes.
type runs struct {
	timeout time.Duration // of a resumed run
	max     int           // resumed runs at a time

	mu      sync.Mutex // guards what follows, and run.over
	byGID   map[string]*run
	going   int // resumed runs that are
	unheard int // of byGID, runs that are over
	closed  bool
}

// A run is under way, or it was resumed and has ended with an error that no resume call
// has heard yet.
type run struct {
	stop context.CancelCauseFunc // nil unless it was resumed
	over bool
	done chan struct{} // closed at its end

	// After done: the error, and what a resumed run panicked with.
	err      error
	panicked string
}

// unheardMax bounds the errors that are kept for the next resume call, which may never
// come, or reach another process. One that is dropped is found out again.
const unheardMax = 1024

var (
	errResumeTimeout = errors.New("the run takes longer than Config.ResumeTimeout")
	errClosed        = errors.New("the workflows of this process are being closed")
	errNoReturn      = errors.New("the function did not return")
)

func newRuns(timeout time.Duration, resumesMax int) *runs {
	return &runs{timeout: timeout, max: resumesMax, byGID: make(map[string]*run)}
}

// enter begins a run of the caller's, when no other of the workflow is under way here.
// leave ends it. ErrOngoing: ctx ended first.
func (rs *runs) enter(ctx context.Context, gid string) (leave func(error), err error) {
	for {
		r, mine := rs.claim(gid)
		if mine {
			return func(err error) {
				r.err = err
				rs.mu.Lock()
				defer rs.mu.Unlock()
				delete(rs.byGID, gid)
				close(r.done)
			}, nil
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, goesOn(gid, fmt.Errorf("another run of it is under way in this process: %w", context.Cause(ctx)))
		}
	}
}

// claim returns the run that is under way, or a new one of the caller's.
func (rs *runs) claim(gid string) (r *run, mine bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r := rs.byGID[gid]; r != nil && !r.over {
		return r, false
	}
	rs.forgetLocked(gid)
	r = &run{done: make(chan struct{})}
	rs.byGID[gid] = r
	return r, true
}

// resume returns the run of a workflow, which it begins if there is none. f gets ctx's
// values and a time of its own.
func (rs *runs) resume(ctx context.Context, gid string, f func(ctx context.Context) error) (*run, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r := rs.byGID[gid]; r != nil {
		return r, nil
	}
	switch {
	case rs.closed:
		return nil, goesOn(gid, errClosed)
	case rs.going >= rs.max:
		return nil, goesOn(gid, fmt.Errorf("%d workflows are being resumed here, which is the limit (Config.ResumesMax)", rs.max))
	}
	ctx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	r := &run{stop: stop, done: make(chan struct{}), err: errNoReturn}
	rs.byGID[gid] = r
	rs.going++
	go func() {
		defer rs.end(gid, r)
		defer func() {
			if p := recover(); p != nil {
				r.panicked = fmt.Sprintf("client: workflow %s: %v\n\n%s", gid, p, debug.Stack())
			}
		}()
		ctx, cancel := context.WithTimeoutCause(ctx, rs.timeout, errResumeTimeout)
		defer cancel()
		r.err = f(ctx)
	}()
	return r, nil
}

// end ends a resumed run. What the server does not know yet is kept for its next call: it
// was told of success and failure, and ErrOngoing is what it believes anyway.
func (rs *runs) end(gid string, r *run) {
	r.stop(nil)
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.going--
	r.over = true
	rs.unheard++
	if r.panicked == "" && (r.err == nil || errors.Is(r.err, ErrFailed) || errors.Is(r.err, ErrOngoing)) {
		rs.forgetLocked(gid)
	}
	if rs.unheard > unheardMax {
		for other, o := range rs.byGID {
			if o.over && o != r {
				rs.forgetLocked(other)
				break
			}
		}
	}
	close(r.done)
}

// heard returns what came of a run that has ended, after which another may begin. A panic
// goes on here: whoever calls can report it, as net/http does.
func (rs *runs) heard(gid string, r *run) error {
	rs.mu.Lock()
	if rs.byGID[gid] == r {
		rs.forgetLocked(gid)
	}
	rs.mu.Unlock()
	if r.panicked != "" {
		panic(r.panicked)
	}
	return r.err
}

// forgetLocked forgets a run that is over, if there is one.
func (rs *runs) forgetLocked(gid string) {
	if r := rs.byGID[gid]; r != nil && r.over {
		delete(rs.byGID, gid)
		rs.unheard--
	}
}

// close lets no more runs be resumed, and waits for those that are. When ctx ends it
// stops them first.
func (rs *runs) close(ctx context.Context) error {
	rs.mu.Lock()
	rs.closed = true
	var going []*run
	for _, r := range rs.byGID {
		if r.stop != nil && !r.over {
			going = append(going, r)
		}
	}
	rs.mu.Unlock()
	stopped := 0
	for _, r := range going {
		select {
		case <-r.done:
			continue
		default:
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			r.stop(errClosed)
			stopped++
		}
	}
	for _, r := range going {
		<-r.done
	}
	if stopped > 0 {
		return fmt.Errorf("client: %d runs of workflows were given up: %w", stopped, context.Cause(ctx))
	}
	return nil
}

// goesOn is the error of a workflow that is not over, and that the server asks for again.
func goesOn(gid string, why error) error {
	return &Error{Op: "workflow", GID: gid, Kind: ErrOngoing, Err: why}
}

// resumeWait is how long a resume call whose context has no end waits for the run. HTTP
// does not say how long the server does: a second at least.
const resumeWait = 500 * time.Millisecond

// withPatience ends a context when its caller's time is nearly up.
func withPatience(ctx context.Context) (context.Context, context.CancelFunc) {
	wait := resumeWait
	if end, ok := ctx.Deadline(); ok {
		wait = time.Until(end) * 3 / 4
	}
	return context.WithTimeout(ctx, wait)
}
