package sqlstore

import "github.com/troth-tx/troth/store"

// A place is where a transaction is, and its version; of one that is not there
// version is 0. created tells it from an earlier one of the same gid, which was purged:
// their versions are alike.
type place struct {
	seq, version, created int64

	// What is indexed of one that has not finished, if it is known: then state is not 0.
	// due is a column's value.
	state store.State
	due   any
}

// A batch is what the changes of several callers come to. It is made from what the
// database says under the lock of the transaction that will write it.
type batch struct {
	places map[string]place
	rows   []*row // in the order in which their transactions were first named
	byGID  map[string]*row
	errs   []error // one for each op, or nil
	after  []int64 // the version that each op leads to
}

// decide says for each op, in their order, what comes of it: of two that are based on
// the same version the first wins. nextSeq gives a new transaction its place.
func decide(ops []*op, places map[string]place, nextSeq func() int64) *batch {
	b := &batch{
		places: places, byGID: make(map[string]*row, len(ops)),
		errs: make([]error, len(ops)), after: make([]int64, len(ops)),
	}
	for i, o := range ops {
		at := b.places[o.gid]
		switch {
		case o.create && at.version != 0:
			b.errs[i] = store.ErrExists
		case o.create:
			b.insert(o, nextSeq())
			b.after[i] = 1
		case at.version == 0:
			b.errs[i] = store.ErrNotFound
		case at.version != o.version, at.created != o.created:
			b.errs[i] = store.ErrConflict
		default:
			b.update(o, at)
			b.after[i] = at.version + 1
		}
	}
	return b
}

func (b *batch) insert(o *op, seq int64) {
	r := &row{columns: o.columns, seq: seq, insert: true}
	r.version = 1
	r.addParts(1, o.more)
	b.rows = append(b.rows, r)
	b.byGID[o.gid] = r
	b.places[o.gid] = r.place()
}

func (b *batch) update(o *op, at place) {
	r := b.byGID[o.gid]
	if r == nil {
		r = &row{columns: o.columns, seq: at.seq, before: at}
		b.rows = append(b.rows, r)
		b.byGID[o.gid] = r
	} else { // written once, as the later one wants it
		definition := r.definition
		r.columns = o.columns
		r.definition = definition
	}
	r.version = at.version + 1
	r.addParts(r.version, o.more)
	b.places[o.gid] = r.place()
}
