package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"
)

// A call is something that a process asks of the world outside.
type call struct {
	by   *process // nil once nobody waits for the answer
	to   *store
	sess *session // that carries it; nil: none, and it may be carried out twice
	key  key
	do   func() (any, error) // carries it out; errWait: not yet

	answer any // do's, as the process sees it
	err    error

	state     callState
	seen      int         // the store's changes when it last had to wait
	ready     func() bool // whether what it waits for is there; nil: look again after each change
	inKernel  bool        // sent before its process was frozen or died
	gaveUp    bool        // its context has ended
	lose      fate
	notBefore time.Time
	sent      time.Time
	until     time.Time     // a request that nobody waits for is lost after that; zero: it stays
	done      chan struct{} // the answer, or the lack of one, is in err. Capacity 1

	ctx, also context.Context //nolint:containedctx // the caller waits until one of them ends; also may be nil
}

type callState uint8

const (
	callSent callState = iota
	callWaiting
	callAnswered
)

// key orders calls that came in at the same time, and names them in the trace.
type key struct {
	slot, incarnation int
	store             int
	op                string
	tx                int // the plan's number, 0 if it is not about one transaction
	branch            int
	n                 uint64
}

func (k key) compare(o key) int {
	return cmp.Or(
		cmp.Compare(k.slot, o.slot), cmp.Compare(k.incarnation, o.incarnation), cmp.Compare(k.store, o.store),
		cmp.Compare(k.n, o.n), cmp.Compare(k.op, o.op), cmp.Compare(k.tx, o.tx), cmp.Compare(k.branch, o.branch))
}

func (k key) String() string {
	s := fmt.Sprintf("p%d.%d s%d %s", k.slot, k.incarnation, k.store, k.op)
	if k.n > 0 { // SQL: on one line, and not all of it
		s = fmt.Sprintf("p%d.%d s%d #%d %.160s", k.slot, k.incarnation, k.store, k.n, strings.Join(strings.Fields(k.op), " "))
	}
	if k.tx > 0 {
		s += fmt.Sprintf(" t%d.%d", k.tx, k.branch)
	}
	return s
}

// What a call may end with besides the database's own errors.
var (
	errWait = errors.New("sim: waits for a lock")
	errLost = errors.New("sim: connection lost")
	errDead = errors.New("sim: this process is dead")
)

// ask hands a call in and waits for its end. If ctx ends first, the call may or
// may not have been carried out, or be carried out later.
//
// What do finds out it returns: it may run when nobody waits for it any more.
//
// The scheduler watches ctx, and decides what the process sees of its end: it may be
// frozen, and then find its answer there after all.
func (p *process) ask(ctx context.Context, asked *call) (any, error) {
	if p.dead.Load() {
		return nil, errDead
	}
	c := p.w.newCall(asked)
	c.by, c.ctx = p, ctx
	c.key.slot, c.key.incarnation, c.key.store = p.slot, p.incarnation, c.to.no
	p.w.handIn(c)
	if p.w.opt.Deep {
		select {
		case <-c.done:
		case <-ctx.Done():
			// database/sql holds a mutex meanwhile, for which the end of the same context
			// makes another goroutine wait: so the bubble would never come to rest.
			p.w.handIn(&call{by: p, to: c.to, key: c.key, state: callAnswered, do: func() (any, error) { c.gaveUp = true; return nil, nil }})
			return nil, errLost
		}
	} else {
		<-c.done
	}
	answer, err := c.answer, c.err
	p.w.reuse(c)
	return answer, err
}

// newCall makes a call as asked for that is waited for, of one that has ended if
// there is one.
func (w *world) newCall(asked *call) *call {
	var c *call
	w.inbox.Lock()
	if n := len(w.inbox.ended); n > 0 {
		c, w.inbox.ended = w.inbox.ended[n-1], w.inbox.ended[:n-1]
	}
	w.inbox.Unlock()
	if c == nil {
		c = &call{done: make(chan struct{}, 1)}
	}
	done := c.done
	*c = *asked
	c.done = done
	return c
}

// reuse takes back a call that was answered: nobody refers to it any more.
func (w *world) reuse(c *call) {
	w.inbox.Lock()
	defer w.inbox.Unlock()
	w.inbox.ended = append(w.inbox.ended, c)
}

func (w *world) handIn(c *call) {
	w.inbox.Lock()
	w.inbox.calls = append(w.inbox.calls, c)
	w.inbox.Unlock()
	w.wakeUp()
}

// step makes one thing happen, once all wait: see settle.
func (w *world) step() {
	w.settle() // what was asked before this step may have started somebody
	if w.rough() && w.maybeFault() {
		return
	}
	if w.rng.IntN(w.cfg.timeOdds) == 0 {
		w.stirred = true
		time.Sleep(time.Duration(w.rng.Int64N(int64(w.cfg.timeStep))))
		for _, s := range w.stores {
			s.endIdle()
		}
		return
	}
	if c := w.choose(); c != nil {
		w.carryOut(c)
		return
	}
	w.passTime()
}

// rough reports whether faults happen now: not while a deep world starts, which
// takes most of its steps, and not while it heals.
func (w *world) rough() bool {
	if w.opt.Deep && !w.started {
		w.started = !slices.ContainsFunc(w.processes, func(p *process) bool { return !p.ready.Load() })
	}
	return !w.healing && (w.started || !w.opt.Deep)
}

// settle lets everybody run until all wait, and takes in what they ask for.
func (w *world) settle() {
	for w.stirred { // else all have been waiting ever since
		w.stirred = false
		synctest.Wait()
		w.takeIn()
	}
}

// takeIn takes in what the processes have asked for while they ran.
func (w *world) takeIn() {
	if w.idle.CompareAndSwap(true, false) {
		select {
		case <-w.kick:
		default:
		}
	}
	w.inbox.Lock()
	w.taken, w.inbox.calls = w.inbox.calls, w.taken[:0]
	w.inbox.Unlock()
	if len(w.taken) > 1 {
		slices.SortStableFunc(w.taken, func(a, b *call) int { return a.key.compare(b.key) })
	}
	for _, c := range w.taken {
		if c.done == nil { // news about a call that came in earlier
			_, _ = c.do()
			continue
		}
		if c.by.dead.Load() {
			w.reply(c, nil, errDead)
			continue
		}
		c.lose, c.sent = w.drawFate(c), time.Now()
		w.calls = append(w.calls, c)
	}
	if !w.opt.Deep { // there the callers do it themselves, see ask
		w.giveUp()
	}
}

// giveUp takes note of the contexts that have ended: their callers wait no longer.
// passTime wakes up for a deadline; what is cancelled otherwise is noticed with the
// next thing that happens.
func (w *world) giveUp() {
	for _, c := range w.calls {
		if c.waitedFor() {
			c.gaveUp = c.ctx.Err() != nil || c.also != nil && c.also.Err() != nil
		}
	}
}

// waitedFor reports whether the end of a context can still make the caller give up.
func (c *call) waitedFor() bool { return c.by != nil && !c.gaveUp }

// choose picks one of the calls that can go on, nil if there is none.
func (w *world) choose() *call {
	n := len(w.calls)
	if n == 0 {
		return nil
	}
	first := w.rng.IntN(n)
	for i := range n {
		if c := w.calls[(first+i)%n]; w.canGoOn(c) {
			return c
		}
	}
	return nil
}

func (w *world) canGoOn(c *call) bool {
	if !c.notBefore.IsZero() && c.notBefore.After(time.Now()) {
		return false
	}
	if c.by != nil && c.by.frozen && (!c.inKernel || c.state == callAnswered) {
		return false
	}
	if c.gaveUp || c.state == callAnswered {
		return true
	}
	if c.key.op == opEnd {
		return !w.underWay(c.sess)
	}
	if w.cut[link{c.key.slot, c.key.store}] {
		return false
	}
	if c.state == callWaiting {
		if c.ready != nil {
			return c.ready() || c.sess.ended
		}
		return c.to.changed != c.seen
	}
	return true
}

// underWay reports whether a request is on its way to the server on s, before the
// news that its client is gone.
func (w *world) underWay(s *session) bool {
	return slices.ContainsFunc(w.calls, func(c *call) bool { return c.sess == s && c.key.op != opEnd && c.state == callSent })
}

// passTime waits for whatever comes first: a timer of the Manager's, the end of a
// context, or a second.
func (w *world) passTime() {
	w.stirred = true
	w.idle.Store(true)
	pause := time.Second
	if !w.opt.Deep {
		pause = w.nextEnd()
	}
	w.alarm.Reset(pause)
	select {
	case <-w.kick:
	case <-w.alarm.C:
	}
}

// nextEnd is how long it takes until a context that is waited with ends by itself,
// and at most a second.
func (w *world) nextEnd() time.Duration {
	next := time.Second
	for _, c := range w.calls {
		if !c.waitedFor() {
			continue
		}
		for _, ctx := range [...]context.Context{c.ctx, c.also} {
			if ctx == nil {
				continue
			}
			if t, ok := ctx.Deadline(); ok {
				next = min(next, time.Until(t))
			}
		}
	}
	return next
}

// carryOut takes a call one step on.
func (w *world) carryOut(c *call) {
	w.trace.steps++
	w.trace.add(uint64(w.since()), uint64(c.key.slot), uint64(c.key.store), uint64(len(c.key.op)), uint64(c.key.tx), uint64(c.state))
	switch {
	case c.state == callAnswered:
		w.finish(c, c.answer, c.err)
	case c.gaveUp && c.by != nil:
		w.abandon(c)
	case !c.to.up, !c.until.IsZero() && time.Now().After(c.until):
		w.finish(c, nil, errLost)
	case c.sess != nil && c.sess.ended:
		w.finish(c, nil, errLost)
	case c.state == callSent && c.lose == loseRequest:
		w.finish(c, nil, errLost)
	case c.state == callSent && c.lose == loseTouch:
		w.abandon(c)
	default:
		w.execute(c)
	}
}

// execute lets the store do it.
func (w *world) execute(c *call) {
	answer, err := c.do()
	if errors.Is(err, errWait) {
		c.state, c.seen = callWaiting, c.to.changed
		w.tell(c, "waits")
		return
	}
	c.to.changed++
	if conn, ok := answer.(*wire); ok && (c.by == nil || c.lose == loseAnswer) {
		w.hangUp(conn.sess) // nobody will ever use it
	}
	switch {
	case c.by == nil:
		w.remove(c)
		w.tell(c, "late: "+says(err))
	case c.lose == loseAnswer:
		w.tell(c, says(err)+", and the answer is lost")
		w.finish(c, nil, errLost)
	case c.lose == twice && c.sess == nil && c.key.op != opConnect:
		w.calls = append(w.calls, c.orphan())
		w.tell(c, says(err)+", and once more later")
		w.finish(c, answer, err)
	case c.lose == lateAnswer:
		w.tell(c, says(err)+", the answer takes its time")
		c.state, c.answer, c.err = callAnswered, answer, err
		c.notBefore = time.Now().Add(time.Duration(w.rng.Int64N(int64(3 * time.Second))))
	default:
		w.tell(c, says(err))
		w.finish(c, answer, err)
	}
}

// abandon gives the caller the news that nothing is known, while the request goes
// its way: it may be carried out any time later, or never.
func (w *world) abandon(c *call) {
	w.tell(c, "is given up")
	if w.rng.IntN(2) == 0 {
		w.calls = append(w.calls, c.orphan())
	}
	w.finish(c, nil, errLost)
}

// orphan is the request alone, on its way with nobody to wait for it. One that needs
// no session of its own is not carried out any later than records are kept: that no
// request travels for so long is what the protocol takes for granted.
func (c *call) orphan() *call {
	o := *c
	o.by, o.done, o.gaveUp, o.lose = nil, nil, false, keep
	if o.sess == nil {
		o.until = o.sent.Add(keepDecisions / 2)
	}
	return &o
}

// finish gives the answer.
func (w *world) finish(c *call, answer any, err error) {
	w.remove(c)
	if errors.Is(err, errLost) && c.sess != nil {
		w.hangUp(c.sess)
	}
	w.reply(c, answer, err)
}

func (w *world) reply(c *call, answer any, err error) {
	c.answer, c.err = answer, err
	if c.done != nil {
		w.stirred = true
		c.done <- struct{}{}
	}
}

func (w *world) remove(c *call) {
	if i := slices.Index(w.calls, c); i >= 0 {
		w.calls = slices.Delete(w.calls, i, i+1)
	}
}

// hangUp ends a session on the server's side, once what is under way on it is
// through: the server notices when it notices.
func (w *world) hangUp(s *session) {
	if s.ended || s.hungUp {
		return
	}
	s.hungUp = true
	end := &call{to: s.store, sess: s, key: key{slot: s.slot, store: s.store.no, op: opEnd}}
	if w.rng.IntN(8) == 0 {
		end.notBefore = time.Now().Add(time.Duration(w.rng.Int64N(int64(10 * time.Second))))
	}
	end.do = func() (any, error) {
		s.end()
		return nil, nil
	}
	w.calls = append(w.calls, end)
}

const opEnd = "end session"

func (w *world) tell(c *call, what string) {
	if w.trace.out != nil {
		w.say("%v: %s", c.key, what)
	}
}

func says(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}
