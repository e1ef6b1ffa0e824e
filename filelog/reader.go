package filelog

import (
	"encoding/binary"
	"fmt"

	"github.com/troth-tx/troth/internal/mistake"
)

// A CorruptError says that the log is damaged in a way that no crash explains, so
// decisions that were confirmed may be missing. Nothing was changed.
//
// Restore the file from a copy of the disk; [ErrCopied] says what to do then. If
// there is none, the branches in doubt must be ended by hand (troth indoubt shows
// them) before the directory is moved away: a new log knows nothing of the old
// decisions.
type CorruptError struct {
	File   string
	Offset int64
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("filelog: %s is damaged at byte %d: %s: restore the file; do not remove it, it holds decisions that branches in doubt depend on",
		e.File, e.Offset, e.Reason)
}

// A segmentContent is what a segment holds.
type segmentContent struct {
	header
	frames []frame
	sealed bool  // the last frame holds a seal
	torn   int64 // the offset of a torn write behind the last frame; 0: there is none
}

// readSegment reads the bytes b of a segment. isLast says that no later segment
// holds frames, so that a torn write is possible. Of b it keeps no copy.
func readSegment(name string, b []byte, isLast bool) (*segmentContent, error) {
	corrupt := func(off int, format string, args ...any) error {
		return &CorruptError{File: name, Offset: int64(off), Reason: fmt.Sprintf(format, args...)}
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, corrupt(0, "%v", err)
	}
	c, seed, off := &segmentContent{header: h}, h.seed(), headerSize
	for off < len(b) && !c.sealed {
		f, ok := decodeFrame(b[off:], seed)
		if !ok {
			break
		}
		if n := len(c.frames); n > 0 && f.sequence != c.frames[n-1].sequence+1 {
			return nil, corrupt(off, "frame %d follows frame %d", f.sequence, c.frames[n-1].sequence)
		}
		if f.first == 0 || f.first > h.number {
			return nil, corrupt(off, "frame %d of segment %d says that the log begins with segment %d", f.sequence, h.number, f.first)
		}
		entries, err := decodeEntries(f.body)
		if err != nil {
			return nil, corrupt(off, "frame %d has the right checksum, but %v", f.sequence, err)
		}
		c.sealed = len(entries) > 0 && entries[len(entries)-1].kind == kindSeal
		c.frames = append(c.frames, f)
		off += frameHeaderSize + len(f.body)
	}
	switch {
	case int64(off) < h.written:
		return nil, corrupt(off, "no frame is here, but the segment had %d bytes of them from the beginning", h.written)
	case c.sealed:
		return c, nil
	case !isLast:
		return nil, corrupt(off, "no frame is here, but later segments hold some")
	case allZero(b[off:]):
		return c, nil
	}
	if mistake.On("log-damage-is-torn") {
		c.torn = int64(off)
		return c, nil
	}
	// A torn write, or damage: the rule is above, at the format.
	if at := findFrameHeader(b, off+wordSize, seed); at >= 0 {
		return nil, corrupt(off, "no frame is here, but one begins at byte %d, and it was written after this one was on disk", at)
	}
	if !tornFrame(b[off:], seed) {
		return nil, corrupt(off, "a frame does not match its checksum, and not because a part of it was never written")
	}
	c.torn = int64(off)
	return c, nil
}

// findFrameHeader returns the offset of the first frame header at or after off,
// or -1.
func findFrameHeader(b []byte, off int, seed uint32) int {
	for ; off+frameHeaderSize <= len(b); off += wordSize {
		if hasFrameHeader(b[off:], seed) {
			return off
		}
	}
	return -1
}

// tornFrame reports whether b, which does not begin with a whole frame, may begin
// with one that was only written in part.
func tornFrame(b []byte, seed uint32) bool {
	if hasFrameHeader(b, seed) {
		body, whole := bodyOf(b)
		return whole && hasZeroWord(body) && allZero(b[frameHeaderSize+len(body):])
	}
	return hasZeroWord(b[:min(len(b), frameHeaderSize)])
}

func hasZeroWord(b []byte) bool {
	for ; len(b) >= wordSize; b = b[wordSize:] {
		if binary.LittleEndian.Uint64(b) == 0 {
			return true
		}
	}
	return false
}
