package server

import (
	"context"
	"slices"
	"sync"
	"time"
)

// turns bound how many requests of one principal are worked on at a time; the others wait
// for their turn. Without them, a principal with a thousand requests has a thousand times
// the share of one with one. To refuse them would not help: clients that do not stop would
// come again at once, and a refusal costs a good part of what it refuses.
//
// A request that takes long does not compute but waits, for a result or for its body, and
// its turn ends.
type turns struct {
	each int           // of one principal, at a time
	long time.Duration // after which a turn ends

	mu     sync.Mutex // guards what follows
	byName map[string]*queue
}

type queue struct {
	active  int
	waiting []chan struct{} // each is closed when its turn has come
}

const (
	// turnsEach keeps the store's group commit busy. Fewer would make one principal alone
	// slower; more make the others wait longer.
	turnsEach = 64
	turnLong  = 20 * time.Millisecond
)

func newTurns(each int, long time.Duration) *turns {
	return &turns{each: each, long: long, byName: make(map[string]*queue)}
}

// take waits for a turn of who, and says whether it came before ctx ended. How many wait is
// bounded by their places. end gives the turn back, once.
func (t *turns) take(ctx context.Context, who string) (end func(), ok bool) {
	t.mu.Lock()
	q := t.byName[who]
	if q == nil {
		q = new(queue)
		t.byName[who] = q
	}
	if q.active < t.each {
		q.active++
		t.mu.Unlock()
		return t.begin(who, q), true
	}
	turn := make(chan struct{})
	q.waiting = append(q.waiting, turn)
	t.mu.Unlock()
	select {
	case <-turn:
		return t.begin(who, q), true
	case <-ctx.Done():
	}
	t.mu.Lock()
	i := slices.Index(q.waiting, turn)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	t.mu.Unlock()
	if i < 0 { // it came at the same moment
		t.end(who, q)
	}
	return nil, false
}

func (t *turns) begin(who string, q *queue) (end func()) {
	long := time.AfterFunc(t.long, func() { t.end(who, q) })
	return func() {
		if long.Stop() {
			t.end(who, q)
		}
	}
}

// end gives a turn to the one that has waited longest.
func (t *turns) end(who string, q *queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(q.waiting) > 0 {
		close(q.waiting[0])
		q.waiting = q.waiting[1:]
		return
	}
	if q.active--; q.active == 0 {
		delete(t.byName, who)
	}
}
