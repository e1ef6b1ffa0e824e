package filelog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
)

// Conditions that callers may want to tell apart.
var (
	// ErrLocked: another process owns the directory, or this one opened it twice.
	ErrLocked = errors.New("filelog: another process owns the log")

	// ErrFailed: a write or sync failed, and what reached the disk is not known.
	// Close the Manager and open the log again.
	ErrFailed = errors.New("filelog: the log failed and must be opened again")
)

// A Log is a decision register in a directory. Its methods are safe for
// concurrent use.
type Log struct {
	cfg      settings // immutable
	files    files
	identity string
	release  func() error // unlocks the directory
	logger   atomic.Pointer[slog.Logger]

	// The writer goroutine owns these. It alone appends to the log.
	seg       *segment
	sequence  uint64 // of the newest frame
	confirmed bool   // the newest frame holds no commit that another frame must confirm

	mark   *marker       // the keeper owns it
	synced atomic.Uint64 // the sequence of the newest frame on disk

	wake     chan struct{} // to the writer: there is something to do. Capacity 1
	gathered chan struct{} // to the writer: enough callers have come. Capacity 1
	done     chan struct{} // closed when everything is released

	needNext chan uint32   // to the keeper: prepare the segment of that number. Capacity 1
	next     chan prepared // from the keeper: the answer. Capacity 1
	trim     chan struct{} // to the keeper: segments before first may go. Capacity 1
	first    atomic.Uint32

	mu       sync.Mutex // guards what follows; never held across I/O
	index    *index
	queue    []*group    // batches to write; callers join the last
	waiting  int         // callers in queue
	gatherAt int         // how many of them the writer waits for; 0: it does not wait
	forgets  []troth.GID // to be written along with some later batch
	spare    []byte      // a buffer for the next batch
	inUse    bool        // a Manager has opened it
	closing  bool
	closed   error // the result of Close, once done is closed
	failed   error // wraps ErrFailed
	notes    []string

	syncs atomic.Int64 // syncs of frames
}

var _ troth.Register = (*Log)(nil)

// Open opens the log in directory dir, and makes it if there is none; the parent
// directory must exist. It locks the directory for this process until
// [Log.Close] or the end of the process, reads the log, and writes what is live
// into a new segment. It needs space for one more segment.
//
// Errors: [ErrLocked] if another process owns the directory; a [*CorruptError] if
// decisions may be missing.
func Open(dir string, opts ...Option) (*Log, error) {
	cfg, err := newSettings(opts)
	if err != nil {
		return nil, err
	}
	faultpoint.Hit("start.before-lock")
	d, notes, err := openDirectory(dir, cfg)
	if err != nil {
		return nil, err
	}
	faultpoint.Hit("start.locked")
	release := func() error { return errors.Join(d.root.Close(), d.dir.Close()) }
	l, err := openFiles(d, cfg, release)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	l.notes = append(notes, l.notes...)
	return l, nil
}

// openFiles opens the log in a directory that is locked already.
func openFiles(fs files, cfg settings, release func() error) (*Log, error) {
	if cfg.syncDelay > 0 {
		fs = slowFiles{fs, cfg.syncDelay}
	}
	s, err := load(fs)
	if err != nil {
		return nil, err
	}
	faultpoint.Hit("log.loaded")
	if s.identity == "" {
		s.identity = cfg.identity()
	}
	seg, err := rebuild(fs, s, cfg)
	if err != nil {
		return nil, err
	}
	mark, err := createMark(fs, s.identity, s.sequence)
	if err != nil {
		return nil, errors.Join(err, seg.file.Close())
	}
	l := &Log{
		cfg:       cfg,
		files:     fs,
		identity:  s.identity,
		release:   release,
		seg:       seg,
		sequence:  s.sequence,
		confirmed: true,
		mark:      mark,
		wake:      make(chan struct{}, 1),
		gathered:  make(chan struct{}, 1),
		done:      make(chan struct{}),
		needNext:  make(chan uint32, 1),
		next:      make(chan prepared, 1),
		trim:      make(chan struct{}, 1),
		index:     newIndex(),
	}
	l.logger.Store(slog.New(slog.DiscardHandler))
	for _, r := range s.live {
		l.index.add(r, seg.number)
	}
	if s.torn != nil {
		l.notes = append(l.notes, fmt.Sprintf("the decision log ended in a torn write, as after a power cut: cut %s at byte %d and kept a copy in %s",
			s.torn.name, s.torn.offset, tornName))
	}
	if s.markDamaged {
		l.notes = append(l.notes, "the decision log's mark, "+markName+", was damaged: damage to the log's last frames would not have been noticed; it is made anew")
	}
	l.synced.Store(s.sequence)
	l.first.Store(seg.number)
	l.needNext <- seg.number + 1
	keeperDone := make(chan struct{})
	go func() {
		defer close(keeperDone)
		l.keep(seg.number)
	}()
	go func() {
		l.write()
		l.shutDown(keeperDone)
	}()
	return l, nil
}

// Open hands the log over to a Manager: to one only.
func (l *Log) Open(ctx context.Context, cfg troth.RegisterConfig) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(ctx); err != nil {
		return err
	}
	if l.inUse {
		return errors.New("filelog: this log serves another Manager already: give each Manager a log of its own")
	}
	l.inUse = true
	if cfg.Logger != nil {
		l.logger.Store(cfg.Logger)
		for _, note := range l.notes {
			cfg.Logger.WarnContext(ctx, "decision log needs a look", "note", note)
		}
	}
	return nil
}

// Identity is made with the log, stored in it, and never changes.
func (l *Log) Identity() string { return l.identity }

// Decide records a decision unless there is one, and returns the one there is.
//
// A commit is on disk when Decide returns. If ctx ends before that, or the log
// fails, Decide returns an error and the commit may still become, or be, durable
// (R3).
//
// An abort is kept in memory only. That is enough, because this log has one owner:
// a commit of the same transaction can only be asked of this Log, where the
// first writer wins; and once this Log is closed or the process dead, nobody is
// left to ask. After a restart the transaction has no record, its owner no longer
// exists, and its recoverer decides abort again: presumed abort (Mohan et al.
// 1986), with the lock on the directory as the fence that R2 demands.
func (l *Log) Decide(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	switch d.Outcome {
	case troth.Committed:
		return l.decideCommit(ctx, d)
	case troth.Aborted:
		return l.decideAbort(ctx, d.GID)
	case troth.Undecided:
	}
	return troth.Undecided, fmt.Errorf("filelog: decide %s: Decision.Outcome is %v: use Committed or Aborted", d.GID, d.Outcome)
}

func (l *Log) decideCommit(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	branches, err := encodable(d)
	if err == nil && commitSize(d.GID, branches) > l.cfg.frameSizeMax()-frameHeaderSize {
		err = errors.New("the record does not fit into a segment: see WithSegmentSize")
	}
	if err != nil {
		return troth.Undecided, fmt.Errorf("filelog: decide %s: %w", d.GID, err)
	}
	r := &record{gid: d.GID, branches: branches, at: l.cfg.now().UnixNano()}
	l.mu.Lock()
	if err := l.usableLocked(ctx); err != nil {
		l.mu.Unlock()
		return troth.Undecided, fmt.Errorf("filelog: decide %s: %w", d.GID, err)
	}
	outcome, g := l.findLocked(d.GID)
	if outcome == troth.Undecided && g == nil {
		g = l.joinLocked(r)
	}
	l.mu.Unlock()
	if mistake.On("log-answers-before-write") {
		return troth.Committed, nil
	}
	if g == nil {
		return outcome, nil
	}
	return l.await(ctx, d.GID, g)
}

func (l *Log) decideAbort(ctx context.Context, gid troth.GID) (troth.Outcome, error) {
	if _, err := troth.ParseGID(string(gid)); err != nil {
		return troth.Undecided, fmt.Errorf("filelog: decide %s: %w", gid, err)
	}
	l.mu.Lock()
	if err := l.usableLocked(ctx); err != nil {
		l.mu.Unlock()
		return troth.Undecided, fmt.Errorf("filelog: decide %s: %w", gid, err)
	}
	outcome, g := l.findLocked(gid)
	if outcome == troth.Undecided && g == nil {
		outcome = troth.Aborted
		l.index.addAbort(gid, time.Now())
	}
	l.mu.Unlock()
	if g == nil {
		return outcome, nil
	}
	return l.await(ctx, gid, g) // a commit was asked for first
}

// findLocked returns what is decided about gid, or the batch that is to write a
// commit about it.
func (l *Log) findLocked(gid troth.GID) (troth.Outcome, *group) {
	if r := l.index.commits[gid]; r != nil {
		if r.group != nil {
			return troth.Undecided, r.group
		}
		return troth.Committed, nil
	}
	if _, ok := l.index.aborts[gid]; ok {
		return troth.Aborted, nil
	}
	return troth.Undecided, nil
}

// await waits until a batch is on disk, and with it the commit about gid.
func (l *Log) await(ctx context.Context, gid troth.GID, g *group) (troth.Outcome, error) {
	select {
	case <-g.done:
		if g.err != nil {
			return troth.Undecided, fmt.Errorf("filelog: decide %s: %w", gid, g.err)
		}
		return troth.Committed, nil
	case <-ctx.Done():
		return troth.Undecided, fmt.Errorf("filelog: decide %s: the commit may still reach the disk: %w", gid, context.Cause(ctx))
	}
}

// Lookup returns the recorded outcome. Aborts are known until the log is closed.
func (l *Log) Lookup(ctx context.Context, gid troth.GID) (troth.Outcome, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(ctx); err != nil {
		return troth.Undecided, fmt.Errorf("filelog: look up %s: %w", gid, err)
	}
	outcome, _ := l.findLocked(gid)
	return outcome, nil
}

// Committed lists commit records from memory.
func (l *Log) Committed(ctx context.Context, minAge time.Duration, after troth.GID, limit int) ([]troth.Decision, error) {
	until := int64(math.MaxInt64)
	if minAge > 0 {
		until = l.cfg.now().Add(-minAge).UnixNano()
	}
	l.mu.Lock()
	if err := l.usableLocked(ctx); err != nil {
		l.mu.Unlock()
		return nil, fmt.Errorf("filelog: list commit records: %w", err)
	}
	records := l.index.sorted.scan(after, until, limit)
	l.mu.Unlock()

	out := make([]troth.Decision, len(records))
	for i, r := range records { // gid, branches and at never change
		var err error
		if out[i], err = decodeDecision(r); err != nil {
			return nil, fmt.Errorf("filelog: record about %s: %w", r.gid, err)
		}
	}
	return out, nil
}

// Forget drops commit records from memory at once, from the disk along with a
// later decision or within about a second. A crash may bring them back.
func (l *Log) Forget(ctx context.Context, gids []troth.GID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(ctx); err != nil {
		return fmt.Errorf("filelog: forget: %w", err)
	}
	before := len(l.forgets)
	for _, gid := range gids {
		if r := l.index.live(gid); r != nil {
			l.index.remove(r)
			l.forgets = append(l.forgets, gid)
		}
	}
	if (before == 0 && len(l.forgets) > 0) || len(l.forgets) >= forgetsMax {
		l.wakeWriter()
	}
	return nil
}

// expireMax is how many aborts one Expire drops.
const expireMax = 10_000

// Expire drops aborts from memory. Their age is the process's own, so that a
// clock that is set does not matter.
func (l *Log) Expire(ctx context.Context, age time.Duration) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(ctx); err != nil {
		return 0, fmt.Errorf("filelog: expire: %w", err)
	}
	return l.index.expireAborts(time.Now().Add(-age), expireMax), nil
}

// usableLocked returns why the log cannot be used, if so. A log that failed does
// not answer questions either: a commit that was on its way may be durable or not.
// Nor does one whose caller has left, for its answer would not be heard.
func (l *Log) usableLocked(ctx context.Context) error {
	if l.failed != nil {
		return l.failed
	}
	if l.closing {
		return fmt.Errorf("the log is closed: call filelog.Open again: %w", troth.ErrClosed)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Close writes what is waiting, stops the log's goroutines, and gives the
// directory free. Later calls of other methods fail with [troth.ErrClosed]. If ctx
// ends first, Close goes on in the background and can be called again to wait.
//
// Its error is about files; it takes no decision back.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.wakeWriter()
	select {
	case <-l.done:
		return l.closed
	case <-ctx.Done():
		return fmt.Errorf("filelog: close: %w", context.Cause(ctx))
	}
}

// shutDown releases everything, after the writer has ended.
func (l *Log) shutDown(keeperDone <-chan struct{}) {
	close(l.needNext)
	<-keeperDone
	errs := []error{l.seg.file.Close(), l.mark.file.Close()}
	select {
	case p := <-l.next: // prepared for nothing; the next Open drops it
		if p.segment != nil {
			errs = append(errs, p.segment.file.Close())
		}
	default:
	}
	errs = append(errs, l.release())
	l.closed = errors.Join(errs...)
	close(l.done)
}
