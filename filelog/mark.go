package filelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	iofs "io/fs"
	"time"

	"github.com/troth-tx/troth"
)

// A mark says how far the log was synced, outside of the log: so an end of the
// log that rotted to zeros is found, which looks as if it had never been written.
// It is written now and then, after the frames that it tells of and never in the
// way of a decision, so it is a lower bound.
//
// It is a file of two slots in sectors of their own, written by turns, so that a
// torn write leaves the other. Integers are little-endian.
//
//	slot     0 magic "TROTHMRK"   8 identity, 8 bytes of text
//	        16 sequence u64: of a frame on disk
//	        24 zero u32          28 crc32c u32 of bytes 0-27
//
// A log without a mark is a log of an earlier version. A mark of which no slot is
// valid is none: it guards the decisions and holds none.
const (
	markName     = "synced.mark"
	markTempName = "synced" + tempSuffix
	markMagic    = "TROTHMRK"
	slotSize     = 32
	slotDistance = 512
	markSize     = slotDistance + slotSize
)

func encodeSlot(identity string, sequence uint64) []byte {
	b := make([]byte, slotSize)
	copy(b, markMagic)
	copy(b[8:16], identity)
	binary.LittleEndian.PutUint64(b[16:], sequence)
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b
}

// decodeMark returns the newer of the valid slots. ok is false if there is none.
func decodeMark(b []byte) (identity string, sequence uint64, ok bool) {
	for _, off := range []int{0, slotDistance} {
		if len(b) < off+slotSize {
			break
		}
		slot := b[off : off+slotSize]
		if string(slot[:8]) != markMagic || crc32.Checksum(slot[:28], castagnoli) != binary.LittleEndian.Uint32(slot[28:]) ||
			!troth.ValidIdentity(string(slot[8:16])) {
			continue
		}
		if n := binary.LittleEndian.Uint64(slot[16:]); !ok || n > sequence {
			identity, sequence, ok = string(slot[8:16]), n, true
		}
	}
	return identity, sequence, ok
}

// checkMark holds what was read of the log against its mark.
func checkMark(fs files, s *snapshot) error {
	b, err := fs.ReadFile(markName)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("filelog: read: %w", err)
	}
	identity, sequence, ok := decodeMark(b)
	switch {
	case !ok:
		s.markDamaged = true
		return nil
	case s.identity == "":
		return &CorruptError{File: markName, Reason: fmt.Sprintf("all segments are missing: the log %s had written %d frames", identity, sequence)}
	case identity != s.identity:
		return &CorruptError{File: markName, Reason: fmt.Sprintf("the mark belongs to the log %s and the segments to %s", identity, s.identity)}
	case s.sequence < sequence:
		return &CorruptError{File: segmentName(s.highest), Reason: fmt.Sprintf("the log ends with frame %d, but frame %d was on disk", s.sequence, sequence)}
	}
	return nil
}

// A marker writes the mark. The keeper owns it.
type marker struct {
	file     file
	identity string
	sequence uint64 // that the mark tells
	slot     int64  // to be written next
	failed   bool   // it is not written any more
}

// createMark replaces the mark by one that tells of the whole log.
func createMark(fs files, identity string, sequence uint64) (*marker, error) {
	f, err := fs.Create(markTempName)
	if err != nil {
		return nil, fmt.Errorf("filelog: make the mark: %w", err)
	}
	b := make([]byte, markSize)
	copy(b, encodeSlot(identity, sequence))
	copy(b[slotDistance:], encodeSlot(identity, sequence))
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fs.Rename(markTempName, markName)
	}
	if err == nil {
		err = fs.SyncDir()
	}
	if err != nil {
		return nil, fmt.Errorf("filelog: make the mark: %w", errors.Join(err, f.Close()))
	}
	return &marker{file: f, identity: identity, sequence: sequence}, nil
}

// advance makes the mark tell that the frame of that sequence is on disk.
func (m *marker) advance(sequence uint64) error {
	if m.failed || sequence <= m.sequence {
		return nil
	}
	if _, err := m.file.WriteAt(encodeSlot(m.identity, sequence), m.slot*slotDistance); err != nil {
		m.failed = true
		return err
	}
	if err := m.file.Sync(); err != nil {
		m.failed = true
		return err
	}
	m.sequence, m.slot = sequence, 1-m.slot
	return nil
}

// advanceMark lets the mark catch up with the log. A mark that cannot be written
// costs its protection and nothing else.
func (l *Log) advanceMark() {
	if err := l.mark.advance(l.synced.Load()); err != nil {
		l.logger.Load().Warn("cannot write the decision log's mark: damage to the end of the log may not be noticed", "err", err)
	}
}

// markTicks ticks when the mark is to be written.
func (l *Log) markTicks() (ticks <-chan time.Time, stop func()) {
	t := time.NewTicker(l.cfg.markDelay)
	return t.C, t.Stop
}
