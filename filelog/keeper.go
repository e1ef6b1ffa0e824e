package filelog

import (
	"errors"
	"fmt"
	iofs "io/fs"

	"github.com/troth-tx/troth/internal/faultpoint"
)

// prepared is a segment that is ready to be written to, or why there is none.
type prepared struct {
	segment *segment
	err     error
}

// A noSegmentError says that the log has no room and nothing was written.
type noSegmentError struct{ err error }

func (e *noSegmentError) Error() string {
	return fmt.Sprintf("no room in the log, nothing was written: make space on its disk: %v", e.err)
}

func (e *noSegmentError) Unwrap() error { return e.err }

// keep is the keeper goroutine: it prepares the next segment before it is needed,
// so that no decision waits for a file to grow, removes the oldest ones, and lets
// the mark follow the log, to the end. oldest is the number of the first segment
// there is.
func (l *Log) keep(oldest uint32) {
	failing := false
	marks, stop := l.markTicks()
	defer stop()
	defer l.advanceMark()
	for {
		select {
		case number, ok := <-l.needNext:
			if !ok {
				return
			}
			seg, err := createSegment(l.files, header{identity: l.identity, number: number}, l.cfg.segmentSize, nil)
			if err != nil && !failing {
				l.logger.Load().Warn("cannot prepare the decision log's next segment", "err", err)
			}
			failing = err != nil
			l.next <- prepared{seg, err} // the capacity is 1, and one is asked for at a time
		case <-marks:
			l.advanceMark()
		case <-l.trim:
			oldest = l.removeBefore(oldest, l.first.Load())
		}
	}
}

// takeNext returns the segment that the keeper has prepared. Unless it returns
// one, a segment is being prepared or is ready.
func (l *Log) takeNext() (*segment, error) {
	number := l.seg.number + 1
	p := <-l.next
	if p.err != nil { // that may be long ago
		l.needNext <- number
		p = <-l.next
	}
	if p.err != nil {
		l.needNext <- number
		return nil, &noSegmentError{p.err}
	}
	return p.segment, nil
}

// removeBefore removes the segments from oldest up to, but not with, first: the
// newest frame on disk says that the log begins there. It returns the oldest
// segment left; what it could not remove is tried again, at the latest by Open.
func (l *Log) removeBefore(oldest, first uint32) uint32 {
	for ; oldest < first; oldest++ {
		err := l.files.Remove(segmentName(oldest))
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			l.logger.Load().Warn("cannot remove an old segment of the decision log", "err", err)
			return oldest
		}
		faultpoint.Hit("trim.after-unlink")
	}
	if err := l.files.SyncDir(); err != nil {
		l.logger.Load().Warn("cannot sync the decision log's directory", "err", err)
	}
	faultpoint.Hit("trim.after-dirsync")
	return oldest
}
