package filelog

import (
	"fmt"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
)

const (
	// gatherFrom is how long a sync must take for the writer to wait for callers.
	gatherFrom = 200 * time.Microsecond

	// gatherShare of the time of the last flush is how long it waits at most.
	gatherShare = 8

	// forgetsMax is how many forgotten records may wait before they are written
	// without waiting for a decision to go with.
	forgetsMax = 4096

	// rideSizeMax bounds the forgotten records that go with a decision, and the
	// copies of old ones beyond twice what is written anyway.
	rideSizeMax = 16 << 10
)

// A group is a batch of commits that are written as one frame.
type group struct {
	buf     []byte // the frame being filled
	records []*record
	forgets []troth.GID // forgotten records written along
	copies  []*record   // live records of the oldest segment written again
	done    chan struct{}
	err     error // valid when done is closed
}

// joinLocked adds a commit to the batch that is being filled.
func (l *Log) joinLocked(r *record) *group {
	var g *group
	if n := len(l.queue); n > 0 {
		g = l.queue[n-1]
	}
	if g == nil || frameSize(g.buf)+int(r.size())+wordSize > l.cfg.frameSizeMax() {
		g = l.newGroupLocked()
		l.queue = append(l.queue, g)
	}
	g.buf = appendCommit(g.buf, r.gid, r.at, r.branches)
	g.records = append(g.records, r)
	r.group = g
	l.index.commits[r.gid] = r
	l.waiting++
	if l.waiting == 1 {
		l.wakeWriter()
	}
	if l.waiting == l.gatherAt {
		select {
		case l.gathered <- struct{}{}:
		default:
		}
	}
	return g
}

func (l *Log) newGroupLocked() *group {
	buf := l.spare
	if l.spare = nil; buf == nil {
		buf = newFrame()
	}
	return &group{buf: buf, done: make(chan struct{})}
}

func (l *Log) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// write is the writer goroutine: it writes one batch after the other until the
// log closes. While it syncs one, the next fills.
func (l *Log) write() {
	idle := time.NewTimer(time.Hour)
	defer idle.Stop()
	var last flushed
	for stuck := false; ; {
		switch l.awaitWork(idle, stuck) {
		case workCommits:
			l.gather(last)
		case workLazy:
		case workNone:
			return
		}
		var err error
		last, err = l.flush()
		stuck = err != nil
	}
}

// What the writer has to do.
type work uint8

const (
	workNone    work = iota // the log is closing and everything is written
	workCommits             // callers are waiting
	workLazy                // nobody is waiting
)

// awaitWork waits until there is something to write. stuck says that the last
// flush failed, so that what nobody waits for is not tried again at once.
func (l *Log) awaitWork(idle *time.Timer, stuck bool) work {
	waited := false
	for {
		l.mu.Lock()
		commits, closing := len(l.queue) > 0, l.closing
		lazy := (len(l.forgets) > 0 || !l.confirmed) && l.failed == nil
		urgent := waited || !stuck && (closing || len(l.forgets) >= forgetsMax)
		l.mu.Unlock()
		switch {
		case commits:
			return workCommits
		case lazy && urgent:
			return workLazy
		case closing: // what is not written now a reopened log finds out again
			return workNone
		case lazy:
			idle.Reset(l.cfg.idleDelay)
		default:
			idle.Stop()
		}
		select {
		case <-l.wake:
		case <-idle.C:
			waited = true
		}
	}
}

// flushed describes a flush that went well.
type flushed struct {
	took    time.Duration
	ended   time.Time
	callers int // under way when it ended: those that were served and those that had come
}

// gather waits a little for the callers that the last flush released to come
// back. Without it they would split into two halves that take turns, and everybody
// would wait for two syncs. It does not wait where a sync is cheap, nor for callers
// that came a while ago. It is woken by the caller that completes the batch: the
// timer may be late by a millisecond on an idle machine.
func (l *Log) gather(last flushed) {
	if last.took < gatherFrom || time.Since(last.ended) > last.took {
		return
	}
	l.mu.Lock()
	if l.waiting >= last.callers || len(l.queue) > 1 || l.closing {
		l.mu.Unlock()
		return
	}
	l.gatherAt = last.callers
	l.mu.Unlock()

	timeout := time.NewTimer(last.took / gatherShare)
	select {
	case <-l.gathered:
	case <-timeout.C:
	}
	timeout.Stop()
	l.mu.Lock()
	l.gatherAt = 0
	select { // a signal that came together with the timeout
	case <-l.gathered:
	default:
	}
	l.mu.Unlock()
}

// flush writes the oldest batch, or what is to be written without one.
func (l *Log) flush() (flushed, error) {
	l.mu.Lock()
	g, oldest := l.takeLocked()
	l.mu.Unlock()

	began := time.Now()
	first, err := l.append(g, oldest)
	took := time.Since(began)

	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.giveUpLocked(g, err)
		return flushed{}, err
	}
	l.settleLocked(g)
	if l.first.Swap(first) != first {
		select {
		case l.trim <- struct{}{}:
		default:
		}
	}
	return flushed{took: took, ended: time.Now(), callers: len(g.records) + l.waiting}, nil
}

// takeLocked takes the oldest batch, adds what may ride along, and returns the
// segment of the oldest live record that is not written again with this batch;
// 0 if there is none.
func (l *Log) takeLocked() (g *group, oldest uint32) {
	if len(l.queue) > 0 {
		g, l.queue = l.queue[0], l.queue[1:]
		l.waiting -= len(g.records)
	} else {
		g = l.newGroupLocked()
	}
	room := l.cfg.frameSizeMax() - wordSize
	limit := room
	if len(g.records) > 0 {
		limit = min(room, len(g.buf)+rideSizeMax)
	}
	n := 0
	for n < len(l.forgets) && len(g.buf)+forgetHeaderSize+len(l.forgets[n]) <= limit {
		g.buf = appendForget(g.buf, l.forgets[n])
		n++
	}
	g.forgets, l.forgets = l.forgets[:n:n], l.forgets[n:]
	if len(l.forgets) == 0 {
		l.forgets = nil
	}
	return g, l.copyLocked(g, room)
}

// copyLocked writes live records of the oldest segment again if the log takes
// much more space than they do. A segment whose last live record was copied or
// forgotten is dropped, always the oldest: so an entry that says "forget" is never
// dropped before the commit that it is about.
//
// Each batch copies up to twice its own size. With at most half of the log live,
// that frees more than is written.
func (l *Log) copyLocked(g *group, room int) (oldest uint32) {
	r := l.index.oldest()
	if r == nil {
		return 0
	}
	inUse := int64(l.seg.number-r.segment) + 1
	if inUse > 3+2*l.index.bytes/l.cfg.segmentSize {
		from := r.segment
		room = min(room, 3*len(g.buf)+rideSizeMax)
		for r != nil && r.segment == from && len(g.buf)+int(r.size()) <= room {
			g.buf = appendCommit(g.buf, r.gid, r.at, r.branches)
			g.copies = append(g.copies, r)
			r = l.index.after(r)
		}
	}
	if r == nil {
		return 0
	}
	return r.segment
}

// append writes a batch as the next frame and syncs it. It returns where the log
// begins now. If the error is a *noSegmentError nothing was written.
func (l *Log) append(g *group, oldest uint32) (first uint32, err error) {
	full := l.seg.off+int64(frameSize(g.buf))+sealSize > l.seg.size
	if full {
		if err := l.roll(); err != nil {
			return 0, err
		}
	}
	if first = oldest; first == 0 || mistake.On("log-drops-live-segment") {
		first = l.seg.number
	}
	g.buf = finishFrame(g.buf, l.seg.seed(), l.sequence+1, first)
	if err := l.writeFrame(g.buf); err != nil {
		return 0, err
	}
	if full { // not before: only the last segment of a log may be empty
		l.needNext <- l.seg.number + 1
	}
	return first, nil
}

// roll seals the segment and goes on in the next. The seal is on disk before
// anything is written behind it.
func (l *Log) roll() error {
	next, err := l.takeNext()
	if err != nil {
		return err
	}
	seal := finishFrame(appendSeal(newFrame()), l.seg.seed(), l.sequence+1, l.first.Load())
	if err := l.writeFrame(seal); err != nil {
		_ = next.file.Close()
		return err
	}
	faultpoint.Hit("log.sealed")
	_ = l.seg.file.Close() // it is on disk: nothing depends on this
	l.seg = next
	return nil
}

func (l *Log) writeFrame(b []byte) error {
	faultpoint.Hit("log.before-write")
	if faultpoint.Enabled { // so that a kill can leave half a frame
		_, _ = l.seg.file.WriteAt(b[:len(b)/2], l.seg.off)
		faultpoint.Hit("log.half-written")
	}
	if _, err := l.seg.file.WriteAt(b, l.seg.off); err != nil {
		return err
	}
	faultpoint.Hit("log.before-sync")
	if mistake.On("log-not-synced") {
		// It is written, after all.
	} else if err := l.seg.file.Sync(); err != nil && !mistake.On("log-sync-error-ignored") {
		return err
	}
	faultpoint.Hit("log.after-sync")
	l.syncs.Add(1)
	l.seg.off += int64(len(b))
	l.sequence++
	l.synced.Store(l.sequence)
	return nil
}

// settleLocked takes note that a batch is on disk, and tells those who wait.
func (l *Log) settleLocked(g *group) {
	for _, r := range g.records {
		l.index.add(r, l.seg.number)
	}
	for _, r := range g.copies {
		if l.index.live(r.gid) == r { // not forgotten meanwhile
			l.index.move(r, l.seg.number)
		}
	}
	l.confirmed = len(g.records) == 0 && len(g.copies) == 0
	if cap(g.buf) <= 64<<10 {
		l.spare = g.buf[:frameHeaderSize]
	}
	g.buf, g.copies = nil, nil
	close(g.done)
}

// giveUpLocked takes note that a batch was not written, or that it is not known.
func (l *Log) giveUpLocked(g *group, err error) {
	if _, ok := err.(*noSegmentError); ok { //nolint:errorlint // made by takeNext, never wrapped
		// Nothing was written. The commits never were, and may be asked for again.
		for _, r := range g.records {
			delete(l.index.commits, r.gid)
		}
		l.forgets = append(g.forgets, l.forgets...)
		g.err = err
		close(g.done)
		return
	}
	l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	g.err = l.failed
	close(g.done)
	l.failQueueLocked()
	l.logger.Load().Error("the decision log failed: no transaction can commit until it is opened again", "err", err)
}

func (l *Log) failQueueLocked() {
	for _, g := range l.queue {
		g.err = l.failed
		close(g.done)
	}
	l.queue, l.waiting = nil, 0
}
