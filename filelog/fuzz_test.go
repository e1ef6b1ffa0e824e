package filelog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
	"testing"

	"github.com/troth-tx/troth"
)

// FuzzHeader: a header that is accepted is one that we write, and describes the
// file that it heads.
func FuzzHeader(f *testing.F) {
	h := header{identity: "0123abcd", number: 1, size: 1024, written: headerSize}
	f.Add(h.encode(), 1024-headerSize, true)
	f.Add(h.encode(), 7, true)
	h.written = 2000
	f.Add(h.encode(), 1024-headerSize, false)
	f.Fuzz(func(t *testing.T, b []byte, rest int, mend bool) {
		if len(b) < headerSize || rest < 0 || rest > 1<<16 {
			if _, err := decodeHeader(b[:min(len(b), headerSize-1)]); err == nil {
				t.Errorf("%d bytes were taken for a header", len(b))
			}
			return
		}
		b = append(slices.Clone(b[:headerSize]), make([]byte, rest)...)
		if mend { // else hardly anything gets past the checksum
			binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
		}
		h, err := decodeHeader(b)
		if err != nil {
			return
		}
		if int(h.size) != len(b) || h.number == 0 || h.written < headerSize || h.written > h.size || !troth.ValidIdentity(h.identity) {
			t.Errorf("accepted %+v for %d bytes", h, len(b))
		}
		// Bytes that we leave zero are not read; all others come back.
		clear(b[12:16])
		clear(b[56:60])
		binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
		if !bytes.Equal(h.encode(), b[:headerSize]) {
			t.Errorf("%x was read as %+v", b[:headerSize], h)
		}
	})
}

// FuzzFrame: what is framed comes out again; not for another segment, and not with
// any other byte in its place.
func FuzzFrame(f *testing.F) {
	f.Add(string(gidNo(1)), int64(7), "athos", 1, "731", uint64(1), uint32(1), uint16(0), byte(1))
	f.Add(string(gidNo(2)), int64(-1), "porthos", 999, "", uint64(sequenceMax), uint32(1<<31), uint16(23), byte(128))
	f.Fuzz(func(t *testing.T, gid string, at int64, resource string, branch int, evidence string, sequence uint64, first uint32, where uint16, flip byte) {
		d := troth.Decision{GID: troth.GID(gid), Branches: []troth.BranchRecord{{Resource: resource, Branch: branch, Evidence: evidence}}}
		branches, err := encodable(d)
		if err != nil {
			return
		}
		sequence &= sequenceMax
		want := []entry{{kind: kindCommit, gid: d.GID, at: at, branches: branches}, {kind: kindForget, gid: d.GID}, {kind: kindSeal}}
		buf := appendSeal(appendForget(appendCommit(newFrame(), d.GID, at, branches), d.GID))
		if n := commitSize(d.GID, branches); len(appendCommit(nil, d.GID, at, branches)) != n {
			t.Errorf("commitSize says %d", n)
		}
		size := frameSize(buf)
		seed := header{identity: "0123abcd", number: 1}.seed()
		b := finishFrame(buf, seed, sequence, first)
		if len(b) != size {
			t.Errorf("frameSize says %d of %d", size, len(b))
		}
		b = append(b, 0xff, 0xff) // what follows is not the frame's
		got, ok := decodeFrame(b, seed)
		if !ok || got.sequence != sequence || got.first != first {
			t.Fatalf("frame %+v, %v; want sequence %d, first %d", got, ok, sequence, first)
		}
		entries, err := decodeEntries(got.body)
		if err != nil || !reflect.DeepEqual(entries, want) {
			t.Errorf("entries %+v, %v; want %+v", entries, err, want)
		}
		if _, ok := decodeFrame(b, header{identity: "0123abcd", number: 2}.seed()); ok {
			t.Error("it is a frame of another segment, too")
		}
		if flip != 0 {
			b[int(where)%size] ^= flip
			if f, ok := decodeFrame(b, seed); ok {
				t.Errorf("with byte %d changed it is the frame %+v", int(where)%size, f)
			}
		}
	})
}

// FuzzDamage overwrites a stretch of a log. It must refuse to open or hold what was
// confirmed; where the last frame is hit it may lose that one, as a torn write.
func FuzzDamage(f *testing.F) {
	p := newPicture(f)
	f.Add(uint8(0), uint16(0), []byte("x"))
	f.Add(uint8(1), uint16(p.last), make([]byte, 24))
	f.Add(uint8(1), uint16(p.end), []byte{1})
	f.Add(uint8(2), uint16(64), []byte("tr"))
	f.Fuzz(func(t *testing.T, segment uint8, at uint16, data []byte) {
		name := segmentName(uint32(segment)%3 + 1)
		damaged := slices.Clone(p.files[name])
		from := int(at) % len(damaged)
		n := copy(damaged[from:], data)
		what := fmt.Sprintf("%d bytes of %s from %d", n, name, from)
		if !p.damageMayLose(name, from, from+n) {
			p.refusedOrAll(t, what, p.with(name, damaged))
			return
		}
		got, err := p.open(t, p.with(name, damaged))
		if err != nil {
			return
		}
		if lost := p.missing(got); len(lost) > 1 || len(lost) == 1 && lost[0] != p.want[len(p.want)-1] || len(got)+len(lost) != len(p.want) {
			t.Errorf("%s: opened with %d decisions, missing %v", what, len(got), lost)
		}
	})
}
