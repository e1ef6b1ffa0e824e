package filelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/troth-tx/troth"
)

// A log is a directory of segments, "<number, 10 digits>.log". A segment is a
// header, frames, and zeros up to its size. Integers are little-endian.
//
//	header   0 magic "TROTHLOG"   8 version u32   12 zero u32
//	        16 identity, 8 bytes of text         24 number u64
//	        32 size u64: of the file             40 written u64: see below
//	        48 inode u64: see below              56 zero u32
//	        60 crc32c u32 of bytes 0-59
//	frame    0 sequence u48   6 mark "tr"
//	         8 length u32: of the body           12 crc32c u32 of the body
//	        16 first u32                         20 crc32c u32 of bytes 0-19
//	        24 body: entries, zeros up to a multiple of 8
//	entry    0 kind u8, then
//	  commit   1 n u8   2 m u16   4 at i64   12 gid, n bytes   branches, m bytes
//	  forget   1 n u8   2 gid, n bytes
//	  seal     nothing: the log goes on in the next segment
//
// identity is the log's own, the same in every segment. at is the time of the
// decision in nanoseconds since 1970; branches is the text of
// troth.EncodeBranches. first is the number of the oldest segment that still
// holds a live record; those before it may be gone. written is how much of the
// segment was on disk before it got its name, under which it is never seen
// unfinished. inode is the file's own, so that a copy is known for one; it is 0
// where inodes do not last, and in segments from before it was introduced. The
// checksums of frames are seeded with identity and number, so that a frame of
// another log or segment is not a frame.
//
// A frame is written only after the frame before it is on disk. So a frame with
// sequence n is also the proof that every frame up to n-1 was synced, and at most
// one frame, the last, can be torn. Sequences go up by one across segments.
//
// Valid are the segments from the newest frame's first up to the highest number,
// without a gap; each but the last that holds frames ends with a seal, and a
// segment behind a seal exists. The newest entry about a gid counts.
//
// Bytes behind the last valid frame that are not zero are a torn write, and are
// ignored, if all of these hold; otherwise the log is damaged and Open fails with
// *CorruptError:
//   - they begin at or after written;
//   - no frame header follows, neither in the segment nor in a later one;
//   - an aligned word of 8 bytes in them is zero where a frame has none: in the
//     frame's header or, if that is whole, in its body. The file was zero before, a
//     disk writes whole sectors, and no word of a whole frame is zero; so a
//     write that was torn left one, and a bit that rotted did not;
//   - if the frame's header is whole, all behind its body is zero.
const (
	magic      = "TROTHLOG"
	version    = 1
	headerSize = 64

	frameMark       = 'r'<<8 | 't'
	frameHeaderSize = 24
	sequenceMax     = 1<<48 - 1
	wordSize        = 8

	// Kinds of entries are on disk: never renumber, never reuse.
	kindCommit = 1
	kindForget = 2
	kindSeal   = 3

	commitHeaderSize = 12
	forgetHeaderSize = 2

	sealSize = frameHeaderSize + wordSize // a frame that holds only a seal
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A header describes a segment.
type header struct {
	identity string
	number   uint32
	size     int64
	written  int64
	inode    uint64
}

func (h header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], version)
	copy(b[16:24], h.identity)
	binary.LittleEndian.PutUint64(b[24:], uint64(h.number))
	binary.LittleEndian.PutUint64(b[32:], uint64(h.size))
	binary.LittleEndian.PutUint64(b[40:], uint64(h.written))
	binary.LittleEndian.PutUint64(b[48:], h.inode)
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

func decodeHeader(b []byte) (header, error) {
	if len(b) < headerSize {
		return header{}, errors.New("the file is shorter than a segment's header")
	}
	if string(b[:8]) != magic {
		return header{}, errors.New("this is not a segment of a troth log")
	}
	if crc32.Checksum(b[:60], castagnoli) != binary.LittleEndian.Uint32(b[60:]) {
		return header{}, errors.New("the segment's header does not match its checksum")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return header{}, fmt.Errorf("the segment has format version %d and this program reads %d: use the program that wrote it", v, version)
	}
	number := binary.LittleEndian.Uint64(b[24:])
	h := header{
		identity: string(b[16:24]),
		number:   uint32(number),
		size:     int64(binary.LittleEndian.Uint64(b[32:])),
		written:  int64(binary.LittleEndian.Uint64(b[40:])),
		inode:    binary.LittleEndian.Uint64(b[48:]),
	}
	switch {
	case !troth.ValidIdentity(h.identity) || number == 0 || uint64(h.number) != number || h.written < headerSize || h.written > h.size:
		return header{}, errors.New("the segment's header makes no sense")
	case int64(len(b)) != h.size:
		return header{}, fmt.Errorf("the segment has %d bytes and not the %d that it was made with", len(b), h.size)
	}
	return h, nil
}

// seed begins the checksums of a segment's frames.
func (h header) seed() uint32 {
	var b [16]byte
	copy(b[:8], h.identity)
	binary.LittleEndian.PutUint64(b[8:], uint64(h.number))
	return crc32.Checksum(b[:], castagnoli)
}

// A frame is one batch of entries.
type frame struct {
	sequence uint64
	first    uint32
	body     []byte // entries, with the zeros behind them
}

// newFrame returns a buffer to append entries to.
func newFrame() []byte { return make([]byte, frameHeaderSize, 512) }

// frameSize is how long a frame will be once it is finished.
func frameSize(buf []byte) int { return (len(buf) + wordSize - 1) &^ (wordSize - 1) }

// finishFrame pads a buffer begun by newFrame and fills in its header.
func finishFrame(b []byte, seed uint32, sequence uint64, first uint32) []byte {
	for len(b)%wordSize != 0 {
		b = append(b, 0)
	}
	body := b[frameHeaderSize:]
	binary.LittleEndian.PutUint64(b, sequence|frameMark<<48)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b[12:], crc32.Update(seed, castagnoli, body))
	binary.LittleEndian.PutUint32(b[16:], first)
	binary.LittleEndian.PutUint32(b[20:], crc32.Update(seed, castagnoli, b[:20]))
	return b
}

// hasFrameHeader reports whether b begins with the header of a frame.
func hasFrameHeader(b []byte, seed uint32) bool {
	return len(b) >= frameHeaderSize &&
		b[6] == frameMark&0xff && b[7] == frameMark>>8 &&
		crc32.Update(seed, castagnoli, b[:20]) == binary.LittleEndian.Uint32(b[20:])
}

// bodyOf returns the body that a frame header announces, as far as b has it.
func bodyOf(b []byte) (body []byte, whole bool) {
	n := int64(binary.LittleEndian.Uint32(b[8:]))
	rest := b[frameHeaderSize:]
	if n > int64(len(rest)) || n%wordSize != 0 {
		return rest, false
	}
	return rest[:n], true
}

// decodeFrame reads the frame at the beginning of b. ok is false if there is none.
func decodeFrame(b []byte, seed uint32) (f frame, ok bool) {
	if !hasFrameHeader(b, seed) {
		return frame{}, false
	}
	body, whole := bodyOf(b)
	if !whole || crc32.Update(seed, castagnoli, body) != binary.LittleEndian.Uint32(b[12:]) {
		return frame{}, false
	}
	return frame{
		sequence: binary.LittleEndian.Uint64(b) & sequenceMax,
		first:    binary.LittleEndian.Uint32(b[16:]),
		body:     body,
	}, true
}

// An entry is one line of the log.
type entry struct {
	kind     byte
	gid      troth.GID
	at       int64  // commit only
	branches string // commit only, as troth.EncodeBranches wrote it
}

func appendCommit(b []byte, gid troth.GID, at int64, branches string) []byte {
	b = append(b, kindCommit, byte(len(gid)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(branches)))
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = append(b, gid...)
	return append(b, branches...)
}

func appendForget(b []byte, gid troth.GID) []byte {
	b = append(b, kindForget, byte(len(gid)))
	return append(b, gid...)
}

func appendSeal(b []byte) []byte { return append(b, kindSeal) }

func commitSize(gid troth.GID, branches string) int {
	return commitHeaderSize + len(gid) + len(branches)
}

// decodeEntries reads a frame's body. It checks all that it returns: the checksum
// says that the bytes are those written, not that they were written by a program
// without faults.
func decodeEntries(body []byte) ([]entry, error) {
	var out []entry
	for b := body; len(b) > 0; {
		var e entry
		var size int
		switch e.kind = b[0]; e.kind {
		case 0:
			if len(b) >= wordSize || !allZero(b) {
				return nil, errors.New("an entry has no kind")
			}
			return out, nil
		case kindCommit:
			if len(b) < commitHeaderSize {
				return nil, errors.New("a commit entry is cut short")
			}
			n, m := int(b[1]), int(binary.LittleEndian.Uint16(b[2:]))
			size = commitHeaderSize + n + m
			if size > len(b) {
				return nil, errors.New("a commit entry is cut short")
			}
			e.at = int64(binary.LittleEndian.Uint64(b[4:]))
			e.gid = troth.GID(b[commitHeaderSize : commitHeaderSize+n])
			e.branches = string(b[commitHeaderSize+n : size])
			if _, err := troth.ParseBranches(e.branches); err != nil {
				return nil, err
			}
		case kindForget:
			if len(b) < forgetHeaderSize || forgetHeaderSize+int(b[1]) > len(b) {
				return nil, errors.New("a forget entry is cut short")
			}
			size = forgetHeaderSize + int(b[1])
			e.gid = troth.GID(b[forgetHeaderSize:size])
		case kindSeal:
			size = 1
		default:
			return nil, fmt.Errorf("an entry has the unknown kind %d", e.kind)
		}
		if e.kind != kindSeal {
			if _, err := troth.ParseGID(string(e.gid)); err != nil {
				return nil, err
			}
		}
		out = append(out, e)
		b = b[size:]
	}
	return out, nil
}

// encodable checks a decision and returns its branches as text.
func encodable(d troth.Decision) (branches string, err error) {
	if _, err := troth.ParseGID(string(d.GID)); err != nil {
		return "", err
	}
	branches = troth.EncodeBranches(d.Branches)
	if _, err := troth.ParseBranches(branches); err != nil {
		return "", fmt.Errorf("Decision.Branches: %w", err)
	}
	return branches, nil
}

func decodeDecision(r *record) (troth.Decision, error) {
	branches, err := troth.ParseBranches(r.branches)
	return troth.Decision{GID: r.gid, Outcome: troth.Committed, Branches: branches, At: time.Unix(0, r.at)}, err
}

func allZero(b []byte) bool {
	for len(b) >= wordSize {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[wordSize:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func newIdentity() string { return troth.NewIdentity() }
