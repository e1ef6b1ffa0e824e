package filelog

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/troth-tx/troth"
)

// A header that describes no segment is refused, whatever its checksum says; at its
// limits it is one.
func TestHeaderLimits(t *testing.T) {
	t.Parallel()
	const size = 1024
	good := header{identity: "0123abcd", number: 7, size: size, written: headerSize, inode: 9}
	for name, c := range map[string]struct {
		change func(*header, []byte)
		ok     bool
	}{
		"as we write it":         {func(*header, []byte) {}, true},
		"written to its end":     {func(h *header, _ []byte) { h.written = size }, true},
		"highest number":         {func(h *header, _ []byte) { h.number = 1<<32 - 1 }, true},
		"no identity":            {func(h *header, _ []byte) { h.identity = "0123ABCD" }, false},
		"number 0":               {func(h *header, _ []byte) { h.number = 0 }, false},
		"number of 33 bits":      {func(_ *header, b []byte) { b[24+4] = 1 }, false},
		"written less than this": {func(h *header, _ []byte) { h.written = headerSize - 1 }, false},
		"written beyond its end": {func(h *header, _ []byte) { h.written = size + 1 }, false},
	} {
		h := good
		c.change(&h, make([]byte, headerSize))
		b := append(h.encode(), make([]byte, size-headerSize)...)
		c.change(&h, b)
		binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
		got, err := decodeHeader(b)
		if c.ok && (err != nil || got != h) || !c.ok && (err == nil || !strings.Contains(err.Error(), "makes no sense")) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	good.size = headerSize // nothing but a header
	if got, err := decodeHeader(good.encode()); err != nil || got != good {
		t.Errorf("%+v, %v", got, err)
	}
}

// A frame is one only as a whole, and what has the right checksum but not the mark is
// something else.
func TestFrameLimits(t *testing.T) {
	t.Parallel()
	const seed = 7
	b := finishFrame(appendForget(newFrame(), gidNo(1)), seed, 1, 1)
	for n := range len(b) {
		if f, ok := decodeFrame(b[:n:n], seed); ok {
			t.Errorf("its first %d of %d bytes are the frame %+v", n, len(b), f)
		}
		if n < frameHeaderSize && hasFrameHeader(b[:n:n], seed) {
			t.Errorf("its first %d bytes are a header", n)
		}
	}
	if !hasFrameHeader(b[:frameHeaderSize:frameHeaderSize], seed) {
		t.Error("a torn frame of which nothing but the header is there is not seen")
	}
	for _, i := range []int{6, 7} {
		other := slices.Clone(b)
		other[i] ^= 1
		binary.LittleEndian.PutUint32(other[20:], crc32.Update(seed, castagnoli, other[:20]))
		if f, ok := decodeFrame(other, seed); ok {
			t.Errorf("with another mark it is the frame %+v", f)
		}
	}
	odd := slices.Clone(b)
	body := odd[frameHeaderSize : len(odd)-1]
	binary.LittleEndian.PutUint32(odd[8:], uint32(len(body)))
	binary.LittleEndian.PutUint32(odd[12:], crc32.Update(seed, castagnoli, body))
	binary.LittleEndian.PutUint32(odd[20:], crc32.Update(seed, castagnoli, odd[:20]))
	if f, ok := decodeFrame(odd, seed); ok {
		t.Errorf("of %d bytes, which are no words, it is the frame %+v", len(body), f)
	}
}

// The checksum of a frame says that its bytes are those written. What they say is
// checked all the same.
func TestEntryLimits(t *testing.T) {
	t.Parallel()
	const branches = "athos.1=7"
	commit, forget := appendCommit(nil, gidNo(1), 7, branches), appendForget(nil, gidNo(1))
	for _, whole := range [][]byte{commit, forget} {
		for n := 1; n <= len(whole); n++ {
			if got, err := decodeEntries(whole[:n:n]); (err == nil) != (n == len(whole)) {
				t.Errorf("%d of %d bytes of an entry: %+v, %v", n, len(whole), got, err)
			}
		}
	}
	seal := appendSeal(nil)
	for name, c := range map[string]struct {
		body []byte
		ok   bool
	}{
		"nothing":                   {nil, true},
		"zeros up to a word":        {slices.Concat(seal, make([]byte, wordSize-1)), true},
		"a word of zeros":           {slices.Concat(seal, make([]byte, wordSize)), false},
		"more than zeros behind it": {slices.Concat(seal, []byte{0, kindSeal}), false},
		"an unknown kind":           {[]byte{kindSeal + 1}, false},
		"a commit of no id":         {appendCommit(nil, "bank", 7, branches), false},
		"a forget of no id":         {appendForget(nil, "bank"), false},
		"branches that are none":    {appendCommit(nil, gidNo(1), 7, "athos"), false},
	} {
		if got, err := decodeEntries(c.body); (err == nil) != c.ok {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// However full a segment is, its seal has room: no segment outgrows the size that its
// header tells, and the log goes on.
func TestSealsHaveRoom(t *testing.T) {
	t.Parallel()
	for n := range 41 { // so that every number of words is left at the end for once
		fs := newMemFiles()
		l := openMem(t, fs, small())
		var want []troth.GID
		for i := range 12 {
			d := commitNo(i)
			if i < 2 {
				d.Branches[0].Evidence = strings.Repeat("x", n)
			}
			decide(t, l, d, troth.Committed)
			want = append(want, d.GID)
		}
		closeLog(t, l)
		if len(must(fs.List())) < 2 {
			t.Fatal("one segment held them all")
		}
		for _, name := range must(fs.List()) {
			if size := len(fs.get(name)); name != markName && size != 1024 {
				t.Errorf("evidence of %d bytes: %s has %d bytes", n, name, size)
			}
		}
		var got []troth.GID
		for _, d := range committed(t, openMem(t, fs, small())) {
			got = append(got, d.GID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("evidence of %d bytes: %v, want %v", n, got, want)
		}
	}
}
