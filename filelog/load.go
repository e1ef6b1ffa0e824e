package filelog

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
)

// A snapshot is what a directory holds.
type snapshot struct {
	identity string // empty: there is no log yet
	sequence uint64 // of the newest frame
	highest  uint32 // the highest number of a segment
	live     []*record
	stale    []string // files that the log no longer needs once its live records are in a newer segment
	torn     *tornWrite

	adopted     bool // an operator has said that this is a copy, and that it is meant
	markDamaged bool // there is a mark, and nothing can be read from it
}

// A tornWrite is the end of a segment that a crash left unfinished. Nobody was
// told that what it holds is decided.
type tornWrite struct {
	name   string
	offset int64
}

// load reads the directory, and changes nothing.
func load(fs files) (*snapshot, error) {
	names, err := fs.List()
	if err != nil {
		return nil, fmt.Errorf("filelog: list the directory: %w", err)
	}
	s := &snapshot{}
	var numbers []uint32
	for _, name := range names {
		if n, ok := parseSegmentName(name); ok {
			numbers = append(numbers, n)
		}
		if strings.HasSuffix(name, tempSuffix) {
			s.stale = append(s.stale, name)
		}
		if name == adoptName {
			s.adopted = true
		}
	}
	if len(numbers) == 0 {
		if err := checkMark(fs, s); err != nil {
			return nil, err
		}
		return s, nil
	}
	slices.Sort(numbers)
	slices.Reverse(numbers) // the newest first: its entries count, and it says how far back to read
	s.highest = numbers[0]
	for _, n := range numbers {
		s.stale = append(s.stale, segmentName(n))
	}
	l := loader{fs: fs, snapshot: s, seen: make(map[troth.GID]struct{})}
	for next := s.highest; ; next-- {
		if len(numbers) == 0 || numbers[0] != next {
			return nil, &CorruptError{File: segmentName(next), Reason: "the segment is missing"}
		}
		numbers = numbers[1:]
		if err := l.segment(next); err != nil {
			return nil, err
		}
		if next == l.first {
			break
		}
	}
	// What is left is older than the oldest live record. It is dropped, but only
	// if it is ours.
	for _, n := range numbers {
		if err := l.obsolete(n); err != nil {
			return nil, err
		}
	}
	if err := checkMark(fs, s); err != nil {
		return nil, err
	}
	return s, nil
}

// A loader reads segments from the newest to the oldest.
type loader struct {
	*snapshot
	fs    files
	seen  map[troth.GID]struct{} // there is a newer entry about it
	first uint32                 // where the log begins; 0: no frame seen yet

	above     *segmentContent // the segment read before
	aboveSeen bool            // a segment above holds frames
}

func (l *loader) segment(number uint32) error {
	name := segmentName(number)
	b, err := l.fs.ReadFile(name)
	if err != nil {
		return fmt.Errorf("filelog: read: %w", err)
	}
	c, err := readSegment(name, b, !l.aboveSeen)
	if err != nil {
		return err
	}
	if err := l.fits(c, name, number); err != nil {
		return err
	}
	if c.torn != 0 {
		l.torn = &tornWrite{name: name, offset: c.torn}
	}
	if n := len(c.frames); n > 0 && !l.aboveSeen {
		l.aboveSeen = true
		l.first, l.sequence = c.frames[n-1].first, c.frames[n-1].sequence
	}
	for _, f := range slices.Backward(c.frames) {
		if err := l.apply(f, number); err != nil {
			return err
		}
	}
	c.frames = slices.Delete(c.frames, min(1, len(c.frames)), len(c.frames)) // the first is still needed, for its sequence
	l.above = c
	return nil
}

// fits checks what a segment cannot know alone.
func (l *loader) fits(c *segmentContent, name string, number uint32) error {
	corrupt := func(format string, args ...any) error {
		return &CorruptError{File: name, Reason: fmt.Sprintf(format, args...)}
	}
	if c.number != number {
		return corrupt("the file says that it is segment %d", c.number)
	}
	if err := l.checkCopied(name, c.header); err != nil {
		return err
	}
	if l.identity == "" {
		l.identity = c.identity
	}
	if c.identity != l.identity {
		return corrupt("the segment belongs to the log %s and others here to %s", c.identity, l.identity)
	}
	above := l.above
	switch {
	case above == nil && c.sealed:
		return &CorruptError{File: segmentName(number + 1), Reason: "the segment is missing: the one before it is sealed"}
	case above == nil:
		return nil
	case len(c.frames) == 0:
		return corrupt("the segment is empty, but it is not the last")
	case len(above.frames) == 0:
		return nil
	// Here c is sealed: readSegment has seen to it.
	case c.frames[len(c.frames)-1].sequence+1 != above.frames[0].sequence:
		return corrupt("the segment ends with frame %d and the next begins with %d", c.frames[len(c.frames)-1].sequence, above.frames[0].sequence)
	}
	return nil
}

// apply takes over a frame's entries, the newest first.
func (l *loader) apply(f frame, segment uint32) error {
	entries, err := decodeEntries(f.body)
	if err != nil {
		return err // readSegment has read them before
	}
	for _, e := range slices.Backward(entries) {
		if e.kind == kindSeal {
			continue
		}
		if _, ok := l.seen[e.gid]; ok {
			continue
		}
		l.seen[e.gid] = struct{}{}
		if e.kind == kindCommit {
			l.live = append(l.live, &record{gid: e.gid, branches: e.branches, at: e.at, segment: segment})
		}
	}
	return nil
}

func (l *loader) obsolete(number uint32) error {
	name := segmentName(number)
	b, err := l.fs.ReadFile(name)
	if err != nil {
		return fmt.Errorf("filelog: read: %w", err)
	}
	h, err := decodeHeader(b)
	if err != nil {
		return &CorruptError{File: name, Reason: err.Error()}
	}
	if h.identity != l.identity || h.number != number {
		return &CorruptError{File: name, Reason: fmt.Sprintf("the segment belongs to the log %s and others here to %s, or has another number", h.identity, l.identity)}
	}
	return nil
}

// A segment is a file being written.
type segment struct {
	header
	file file
	off  int64 // where the next frame goes
}

// rebuild writes the live records into a new segment, on disk before it gets its
// name, and then drops all others. So a crash at any point leaves the old log or
// the new one; whatever the kernel still holds of the old files, and may lose,
// does not matter; and a log is never continued behind a torn write.
func rebuild(fs files, s *snapshot, cfg settings) (*segment, error) {
	for _, name := range s.stale {
		if strings.HasSuffix(name, tempSuffix) {
			if err := fs.Remove(name); err != nil {
				return nil, fmt.Errorf("filelog: remove an unfinished segment: %w", err)
			}
		}
	}
	number := s.highest + 1
	if number == 0 {
		return nil, errors.New("filelog: the log has used up its segment numbers")
	}
	frames := func(seed uint32, write func(frame []byte) error) error {
		return writeFrames(s, number, seed, cfg.frameSizeMax(), write)
	}
	seg, err := createSegment(fs, header{identity: s.identity, number: number}, cfg.segmentSize, frames)
	if err != nil {
		return nil, err
	}
	for _, r := range s.live {
		r.segment = number
	}
	if err := dropStale(fs, s); err != nil {
		return nil, errors.Join(err, seg.file.Close())
	}
	return seg, nil
}

// writeFrames passes the live records on as frames, at least one.
func writeFrames(s *snapshot, number, seed uint32, sizeMax int, write func([]byte) error) error {
	buf := newFrame()
	flush := func() error {
		s.sequence++
		return write(finishFrame(buf, seed, s.sequence, number))
	}
	for _, r := range s.live {
		if len(buf)+int(r.size()) > sizeMax {
			if err := flush(); err != nil {
				return err
			}
			buf = newFrame()
		}
		buf = appendCommit(buf, r.gid, r.at, r.branches)
	}
	return flush()
}

// createSegment makes a segment of at least size bytes that begins with the
// given frames (nil: none), and returns it when the file, its content and its name
// are on disk.
func createSegment(fs files, h header, size int64, frames func(seed uint32, write func([]byte) error) error) (_ *segment, err error) {
	name := segmentName(h.number)
	temp := strings.TrimSuffix(name, segmentSuffix) + tempSuffix
	faultpoint.Hit("segment.before-create")
	f, err := fs.Create(temp)
	if err != nil {
		return nil, fmt.Errorf("filelog: make a segment: %w", err)
	}
	defer func() {
		if err != nil {
			// Whoever tries again begins with a new file; this one is of no use.
			err = errors.Join(fmt.Errorf("filelog: make segment %s: %w", name, err), f.Close())
			_ = fs.Remove(temp)
		}
	}()
	seg := &segment{header: h, file: f, off: headerSize}
	if frames != nil {
		err = frames(h.seed(), func(b []byte) error {
			_, err := f.WriteAt(b, seg.off)
			seg.off += int64(len(b))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if seg.inode, err = fs.Inode(temp); err != nil {
		return nil, err
	}
	seg.size, seg.written = max(size, seg.off+sealSize), seg.off
	if err = zeroFill(f, seg.off, seg.size); err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(seg.encode(), 0); err != nil {
		return nil, err
	}
	faultpoint.Hit("segment.before-sync")
	if err = f.Sync(); err != nil {
		return nil, err
	}
	faultpoint.Hit("segment.after-sync")
	if err = fs.Rename(temp, name); err != nil {
		return nil, err
	}
	faultpoint.Hit("segment.after-rename")
	if mistake.On("log-directory-not-synced") {
		return seg, nil
	}
	if err = fs.SyncDir(); err != nil {
		return nil, err
	}
	faultpoint.Hit("segment.after-dirsync")
	return seg, nil
}

// dropStale removes the old segments, but keeps one that ended in a torn write
// under another name.
func dropStale(fs files, s *snapshot) error {
	for _, name := range s.stale {
		if strings.HasSuffix(name, tempSuffix) {
			continue
		}
		drop := func() error { return fs.Remove(name) }
		if s.torn != nil && s.torn.name == name {
			drop = func() error { return fs.Rename(name, tornName) }
		}
		if err := drop(); err != nil {
			return fmt.Errorf("filelog: remove an old segment: %w", err)
		}
		faultpoint.Hit("compact.after-unlink")
	}
	if s.adopted { // last: until then the old segments may be read again
		if err := fs.Remove(adoptName); err != nil {
			return fmt.Errorf("filelog: remove %s: %w", adoptName, err)
		}
	}
	if err := fs.SyncDir(); err != nil {
		return fmt.Errorf("filelog: sync the directory: %w", err)
	}
	faultpoint.Hit("compact.after-dirsync")
	return nil
}
