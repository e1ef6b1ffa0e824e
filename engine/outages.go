package engine

import (
	"strings"
	"sync"
)

// outages remembers which transactions wait for an address that gave no answer. When one
// gets through, the others need not sit their pauses out: an hour's pile of messages is
// gone in a moment, instead of trickling out as their pauses end.
//
// One of several that wait is the canary: its pause does not grow, so that the end of an
// outage is noticed soon, at the cost of one call per pause.
//
// All this is for speed only, in memory, and bounded. Whoever is not remembered waits for
// the end of its pause.
type outages struct {
	mu   sync.Mutex
	byTo map[string]*outage
	size int // transactions in all
}

type outage struct {
	waiting map[string]struct{} // gids
	canary  string
}

// outagesMax is how many transactions are remembered.
const outagesMax = 100_000

// failed notes that a transaction waits for an address, and reports whether it is the
// canary.
func (o *outages) failed(url, gid string) (canary bool) {
	to := withoutQuery(url)
	o.mu.Lock()
	defer o.mu.Unlock()
	at := o.byTo[to]
	if at == nil {
		if o.size >= outagesMax {
			return false
		}
		at = &outage{waiting: make(map[string]struct{})}
		o.byTo[to] = at
	}
	if _, known := at.waiting[gid]; !known && o.size < outagesMax {
		at.waiting[gid] = struct{}{}
		o.size++
	}
	if at.canary == "" && len(at.waiting) > 1 {
		at.canary = gid
	}
	return at.canary == gid
}

// over returns who waited for an address that has answered, but the one that got through.
func (o *outages) over(url, gid string) (waiting []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.size == 0 {
		return nil
	}
	to := withoutQuery(url)
	at := o.byTo[to]
	if at == nil {
		return nil
	}
	delete(o.byTo, to)
	o.size -= len(at.waiting)
	delete(at.waiting, gid)
	for other := range at.waiting {
		waiting = append(waiting, other)
	}
	return waiting
}

func withoutQuery(url string) string {
	before, _, _ := strings.Cut(url, "?")
	return before
}
