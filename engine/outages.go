package engine

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// outages remembers which transactions wait for an address that gave no answer. When one
// gets through, the others need not sit their pauses out: an hour's pile of messages is
// gone in a moment, instead of trickling out as their pauses end.
//
// One of several that wait is the canary: its pause does not grow, so that the end of an
// outage is noticed soon, at the cost of one call per pause. If nothing is heard of it any
// more, because its transaction ended otherwise, another takes its place.
//
// All this is for speed only, in memory, and bounded. Whoever is not remembered waits for
// the end of its pause.
type outages struct {
	mu   sync.Mutex
	all  share // transactions
	byTo map[string]*outage
}

type outage struct {
	waiting map[string]int // the size of each, by gid
	canary  string
	until   time.Time // when it is given up unless it was heard of
}

// outagesMax is how many transactions are remembered.
const outagesMax = 100_000

func newOutages() outages {
	return outages{all: share{max: outagesMax, eachMax: outagesMax}, byTo: make(map[string]*outage)}
}

// failed notes that a transaction waits for an address, and reports whether it is the
// canary, which has to be heard of again within patience.
func (o *outages) failed(url, gid string, size int, now time.Time, patience time.Duration) (canary bool) {
	to := withoutQuery(url)
	o.mu.Lock()
	defer o.mu.Unlock()
	at := o.byTo[to]
	if at == nil {
		at = &outage{waiting: make(map[string]int)}
	}
	if _, known := at.waiting[gid]; !known {
		if !o.all.admits(len(at.waiting), 1) {
			return false
		}
		o.byTo[to] = at
		at.waiting[gid] = size
		o.all.taken++
	}
	if len(at.waiting) > 1 && (at.canary == "" || now.After(at.until)) {
		at.canary = gid
	}
	if at.canary == gid {
		at.until = now.Add(patience)
	}
	return at.canary == gid
}

// over returns who waited for an address that has answered, but the one that got through.
func (o *outages) over(url, gid string) (waiting []putOff) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all.taken == 0 {
		return nil
	}
	to := withoutQuery(url)
	at := o.byTo[to]
	if at == nil {
		return nil
	}
	delete(o.byTo, to)
	o.all.taken -= len(at.waiting)
	delete(at.waiting, gid)
	for _, other := range slices.Sorted(maps.Keys(at.waiting)) { // a simulated engine does the same each time
		waiting = append(waiting, putOff{gid: other, size: at.waiting[other], hurry: true})
	}
	return waiting
}

func withoutQuery(url string) string {
	before, _, _ := strings.Cut(url, "?")
	return before
}
