package filelog

import (
	"slices"
	"time"

	"github.com/troth-tx/troth"
)

// A record is a commit that is in the log, or on its way.
type record struct {
	gid      troth.GID
	branches string // as troth.EncodeBranches wrote it
	at       int64  // nanoseconds since 1970
	group    *group // the batch that will write it; nil: it is on disk

	// Of a record on disk:
	segment    uint32 // the segment that holds its newest copy
	prev, next *record
}

func (r *record) size() int64 { return int64(commitSize(r.gid, r.branches)) }

// An index is what the log knows, in memory: the live commits, those that are
// being written, and the aborts. Its owner locks it.
type index struct {
	commits map[troth.GID]*record // live or being written
	list    record                // ring of the live ones in the order of their segments; list.next is the oldest
	sorted  sortedRecords         // the live ones in the order of their GIDs
	bytes   int64                 // that the live ones take in the log

	aborts     map[troth.GID]struct{}
	abortQueue []abort // in the order of their times
}

type abort struct {
	gid troth.GID
	at  time.Time // with the monotonic clock: an abort does not outlive the process
}

func newIndex() *index {
	x := &index{commits: make(map[troth.GID]*record), aborts: make(map[troth.GID]struct{})}
	x.list.prev, x.list.next = &x.list, &x.list
	return x
}

// add makes a record live: it is on disk in that segment, the newest one.
func (x *index) add(r *record, segment uint32) {
	r.group, r.segment = nil, segment
	x.commits[r.gid] = r
	x.link(r)
	x.sorted.insert(r)
	x.bytes += r.size()
}

// move notes that a live record was copied to that segment, the newest one.
func (x *index) move(r *record, segment uint32) {
	x.unlink(r)
	r.segment = segment
	x.link(r)
}

// remove drops a live record.
func (x *index) remove(r *record) {
	delete(x.commits, r.gid)
	x.unlink(r)
	x.sorted.remove(r)
	x.bytes -= r.size()
}

// live returns the live commit record about gid, or nil.
func (x *index) live(gid troth.GID) *record {
	if r := x.commits[gid]; r != nil && r.group == nil {
		return r
	}
	return nil
}

// oldest returns the live record in the oldest segment, or nil.
func (x *index) oldest() *record { return x.after(&x.list) }

// after returns the live record that follows r in the order of segments, or nil.
func (x *index) after(r *record) *record {
	if r.next == &x.list {
		return nil
	}
	return r.next
}

func (x *index) link(r *record) {
	last := x.list.prev
	r.prev, r.next = last, &x.list
	last.next, x.list.prev = r, r
}

func (x *index) unlink(r *record) {
	r.prev.next, r.next.prev = r.next, r.prev
	r.prev, r.next = nil, nil
}

func (x *index) addAbort(gid troth.GID, now time.Time) {
	if _, ok := x.aborts[gid]; ok {
		return
	}
	x.aborts[gid] = struct{}{}
	x.abortQueue = append(x.abortQueue, abort{gid, now})
}

// expireAborts drops up to limit aborts from before then and returns how many.
func (x *index) expireAborts(then time.Time, limit int) int {
	n := 0
	for n < min(limit, len(x.abortQueue)) && x.abortQueue[n].at.Before(then) {
		delete(x.aborts, x.abortQueue[n].gid)
		n++
	}
	x.abortQueue = x.abortQueue[n:]
	if len(x.abortQueue) == 0 {
		x.abortQueue = nil
	}
	return n
}

// chunkSizeMax is how many records a chunk holds before it is split.
const chunkSizeMax = 512

// sortedRecords are records in the order of their GIDs, in chunks, so that none
// of its operations is longer than one chunk and the list of chunks.
type sortedRecords struct{ chunks []*chunk }

type chunk struct {
	records []*record // never empty
	oldest  int64     // no record here is older
}

func newChunk(records ...*record) *chunk {
	c := &chunk{records: slices.Clone(records), oldest: records[0].at}
	for _, r := range records {
		c.oldest = min(c.oldest, r.at)
	}
	return c
}

// find returns where gid is, or would be inserted.
func (s *sortedRecords) find(gid troth.GID) (ci, ri int, found bool) {
	ci, found = slices.BinarySearchFunc(s.chunks, gid, func(c *chunk, gid troth.GID) int { return compare(c.records[0].gid, gid) })
	if found {
		return ci, 0, true
	}
	if ci == 0 {
		return 0, 0, false
	}
	ci-- // the last chunk that begins before gid
	ri, found = slices.BinarySearchFunc(s.chunks[ci].records, gid, func(r *record, gid troth.GID) int { return compare(r.gid, gid) })
	return ci, ri, found
}

func (s *sortedRecords) insert(r *record) {
	if len(s.chunks) == 0 {
		s.chunks = []*chunk{newChunk(r)}
		return
	}
	ci, ri, _ := s.find(r.gid)
	c := s.chunks[ci]
	c.records = slices.Insert(c.records, ri, r)
	c.oldest = min(c.oldest, r.at)
	if len(c.records) <= chunkSizeMax {
		return
	}
	at := len(c.records) / 2
	if ri == len(c.records)-1 {
		at = ri // GIDs mostly come in order: leave full chunks behind
	}
	tail := newChunk(c.records[at:]...)
	clear(c.records[at:])
	c.records = c.records[:at]
	s.chunks = slices.Insert(s.chunks, ci+1, tail)
}

func (s *sortedRecords) remove(r *record) {
	ci, ri, found := s.find(r.gid)
	if !found {
		return
	}
	c := s.chunks[ci]
	c.records = slices.Delete(c.records, ri, ri+1)
	if len(c.records) == 0 {
		s.chunks = slices.Delete(s.chunks, ci, ci+1)
	}
}

// scan returns up to limit records behind after, none written later than until.
func (s *sortedRecords) scan(after troth.GID, until int64, limit int) []*record {
	var out []*record
	ci, ri, found := s.find(after)
	if found {
		ri++
	}
	for ; ci < len(s.chunks); ci, ri = ci+1, 0 {
		if s.chunks[ci].oldest > until {
			continue
		}
		for _, r := range s.chunks[ci].records[ri:] {
			if len(out) >= limit {
				return out
			}
			if r.at <= until {
				out = append(out, r)
			}
		}
	}
	return out
}

func compare(a, b troth.GID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
