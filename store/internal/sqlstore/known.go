package sqlstore

// knownMax is how many places a generation of a known has.
const knownMax = 32 << 10

// A known remembers where the transactions are that were written last, for a store
// that nobody else can change: a Save then needs no question. A nil known remembers
// nothing.
//
// There are two generations: what is used moves to the young one, and when that is
// full the old one is forgotten.
type known struct{ young, old map[string]place }

func newKnown() *known { return &known{young: make(map[string]place)} }

func (k *known) get(gid string) (place, bool) {
	if k == nil {
		return place{}, false
	}
	at, ok := k.young[gid]
	if !ok {
		at, ok = k.old[gid]
	}
	return at, ok
}

func (k *known) put(gid string, at place) {
	if k == nil {
		return
	}
	if len(k.young) >= knownMax {
		k.young, k.old = make(map[string]place, knownMax), k.young
	}
	k.young[gid] = at
	delete(k.old, gid)
}

func (k *known) clear() {
	if k != nil {
		k.young, k.old = make(map[string]place), nil
	}
}

func (k *known) remove(gid string) {
	if k != nil {
		delete(k.young, gid)
		delete(k.old, gid)
	}
}
