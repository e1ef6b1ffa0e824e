package engine

import (
	"context"
	"strings"
	"sync"
)

// A gate keeps apart what goes to different hosts. Of each thing that is scarce (calls
// under way, calls that wait for their turn, bytes of the transactions of both) a host may
// have as much as is left for all others, see share: whatever hangs, there is something
// left for those that do not.
//
// A call that finds no place is put off: its transaction goes back to the store, and only
// its name stays here, in a line. When its host has room again, retry is told.
type gate struct {
	calls, queue, bytes, names share
	awaitedMax                 int
	retry                      func(host string) // begins with what next returns; must not block. nil: nobody does

	mu      sync.Mutex // guards what follows
	awaited int        // places in the queue that are not of the queue's share
	hosts   map[string]*host
	turns   []*host // those with a call that waits; who was served last is last
}

// A host is what the gate knows of one while there is anything to know.
type host struct {
	name    string
	calling int
	queue   []*place // in the order in which they came
	queued  int      // of queue: without the awaited ones
	bytes   int
	line    []putOff
	inLine  map[string]bool // by gid
	driving bool            // what waits in line is being driven
}

// putOff is a transaction that is in the store until there is room for it.
type putOff struct {
	gid   string
	size  int
	hurry bool // see current
}

// namesMax is how many of those that were put off are remembered. The others wait for the
// end of their pause.
const namesMax = 100_000

// retryMax is how many of those that were put off are driven at a time.
const retryMax = 64

func newGate(cfg *Config) *gate {
	return &gate{
		calls:      share{max: cfg.CallsMax, eachMax: cfg.CallsPerHostMax},
		queue:      share{max: cfg.WaitingMax, eachMax: waitingPerCall * cfg.CallsPerHostMax},
		bytes:      share{max: cfg.BytesMax, eachMax: cfg.BytesMax},
		names:      share{max: namesMax, eachMax: namesMax},
		awaitedMax: cfg.WaitingMax,
		hosts:      make(map[string]*host),
	}
}

// waitingPerCall is how many calls may wait behind each that is under way to the same
// host. With the defaults a call has its answer within three times the request timeout,
// which is less than the lease: nobody else begins with what still waits here, unless
// there are many that requests await beside them.
const waitingPerCall = 2

// A share is something scarce that hosts share. One may have as much as is left: of n that
// want all they can get, each ends up with the (n+1)th part, and as much is free for who
// comes next (the dynamic thresholds of Choudhury and Hahne 1998). Nothing is set aside,
// and nobody has to know how many there are.
type share struct{ max, eachMax, taken int }

// admits reports whether one that has so much may have more. The first is admitted while
// anything is left, whatever its size.
func (s *share) admits(has, more int) bool {
	return has == 0 && s.taken < s.max || has+more <= min(s.eachMax, s.max-s.taken)
}

// A load is the memory that a pass takes. It counts for the host that was called last.
type load struct {
	size int
	host *host // nil: it is not counted
}

// A place is that of one call, from when it waits for its turn until it is answered.
type place struct {
	gate    *gate
	host    *host
	awaited bool
	turn    chan struct{} // closed: its turn has come
}

// enter takes a place for a call to a host, for a pass whose load is l. Without one it
// returns how many are before it at that host. A call that a request awaits may wait here
// beyond the host's share: requests are bounded by who makes them.
func (g *gate) enter(name string, l *load, awaited bool) (p *place, before int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hostLocked(name)
	g.countLocked(l, -1)
	admitted := g.bytes.admits(h.bytes, l.size)
	p = &place{gate: g, host: h, turn: make(chan struct{})}
	switch {
	case !admitted:
	case len(h.queue) == 0 && g.calls.admits(h.calling, 1):
		g.callLocked(p)
	case g.queue.admits(h.queued, 1):
		h.queued++
		g.queue.taken++
		g.waitLocked(p)
	case awaited && g.awaited < g.awaitedMax:
		p.awaited = true
		g.awaited++
		g.waitLocked(p)
	default:
		admitted = false
	}
	if !admitted {
		g.countLocked(l, +1)
		before = len(h.line) + len(h.queue)
		g.forgetLocked(h)
		return nil, before
	}
	was := l.host
	l.host = h
	g.countLocked(l, +1)
	if was != nil && was != h {
		g.roomLocked(was)
	}
	return p, 0
}

// countLocked adds a load to what is held, or takes it out.
func (g *gate) countLocked(l *load, sign int) {
	if l.host != nil {
		l.host.bytes += sign * l.size
		g.bytes.taken += sign * l.size
	}
}

func (g *gate) waitLocked(p *place) {
	if p.host.queue = append(p.host.queue, p); len(p.host.queue) == 1 {
		g.turns = append(g.turns, p.host)
	}
}

func (g *gate) callLocked(p *place) {
	p.host.calling++
	g.calls.taken++
	close(p.turn)
}

// wait returns when the call may be made, or with false when ctx ends: then the engine is
// closed, and nobody gives the place back.
func (p *place) wait(ctx context.Context) bool {
	select {
	case <-p.turn:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// leave gives the place of a call back that was made.
func (p *place) leave() {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	p.host.calling--
	g.calls.taken--
	g.serveLocked()
	g.roomLocked(p.host)
}

// serveLocked lets those begin who wait and may. Hosts take turns.
func (g *gate) serveLocked() {
	var served []*host
	left := g.turns[:0]
	for _, h := range g.turns {
		if !g.calls.admits(h.calling, 1) {
			left = append(left, h)
			continue
		}
		p := h.queue[0]
		h.queue = h.queue[1:]
		if p.awaited {
			g.awaited--
		} else {
			h.queued--
			g.queue.taken--
		}
		g.callLocked(p)
		if len(h.queue) > 0 {
			served = append(served, h)
		}
	}
	clear(g.turns[len(left):])
	g.turns = append(left, served...)
}

// unload ends a load: its pass is over.
func (g *gate) unload(l *load) {
	if l.host == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.countLocked(l, -1)
	h := l.host
	l.host = nil
	g.roomLocked(h)
}

// full reports whether no more bytes should come into memory.
func (g *gate) full() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bytes.taken >= g.bytes.max
}

// remember puts transactions in a host's line.
func (g *gate) remember(name string, all ...putOff) {
	if g.retry == nil || len(all) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hostLocked(name)
	for _, t := range all {
		if h.inLine[t.gid] || !g.names.admits(len(h.line), 1) {
			continue
		}
		if h.inLine == nil {
			h.inLine = make(map[string]bool)
		}
		h.inLine[t.gid] = true
		h.line = append(h.line, t)
		g.names.taken++
	}
	g.roomLocked(h)
}

// next takes those out of a host's line for which there is room; none: there is no room,
// or nobody. It is called again and again by the one whom retry told.
func (g *gate) next(name string) (ready []putOff) {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hostLocked(name)
	n, bytes := 0, h.bytes
	for n < min(retryMax, len(h.line)) && g.queue.admits(h.queued+n, 1) && g.bytes.admits(bytes, h.line[n].size) {
		bytes += h.line[n].size
		delete(h.inLine, h.line[n].gid)
		n++
	}
	ready, h.line = h.line[:n:n], h.line[n:]
	if len(h.line) == 0 {
		h.line, h.inLine = nil, nil
	}
	g.names.taken -= n
	h.driving = n > 0
	g.forgetLocked(h)
	return ready
}

// roomLocked has those driven who wait in line for a host that may have room.
func (g *gate) roomLocked(h *host) {
	if len(h.line) > 0 && !h.driving && g.queue.admits(h.queued, 1) && g.bytes.admits(h.bytes, h.line[0].size) {
		h.driving = true
		g.retry(h.name)
	}
	g.forgetLocked(h)
}

func (g *gate) hostLocked(name string) *host {
	h := g.hosts[name]
	if h == nil {
		h = &host{name: name}
		g.hosts[name] = h
	}
	return h
}

// forgetLocked forgets a host of which there is nothing to know.
func (g *gate) forgetLocked(h *host) {
	if h.calling == 0 && len(h.queue) == 0 && h.bytes == 0 && len(h.line) == 0 && !h.driving {
		delete(g.hosts, h.name)
	}
}

// hostOf is the host and port of an address with or without a scheme, or the name of a
// function.
func hostOf(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	}
	if i := strings.IndexAny(url, "/?#"); i >= 0 {
		url = url[:i]
	}
	return url
}
