package filelog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/troth-tx/troth"
)

// A picture is a small log as it is on disk while it is in use: a sealed segment,
// one with frames, and an empty one. The last frame is not confirmed.
type picture struct {
	files map[string][]byte
	want  []troth.GID // committed, each in a frame of its own
	last  int         // the offset of the last frame, in segment 2
	end   int         // where it ends
}

func newPicture(t testing.TB) picture {
	t.Helper()
	fs := newMemFiles()
	l := openMem(t, fs, small())
	p := picture{files: map[string][]byte{}}
	for n := range 13 {
		decide(t, l, commitNo(n), troth.Committed)
		p.want = append(p.want, gidNo(n))
	}
	fs.mu.Lock()
	for name, f := range fs.names {
		p.files[name] = slices.Clone(f.content)
	}
	fs.mu.Unlock()
	closeLog(t, l)
	// The keeper may or may not have made the third segment yet.
	h := header{identity: l.Identity(), number: 3, size: 1024, written: headerSize}
	p.files[segmentName(3)] = append(h.encode(), make([]byte, 1024-headerSize)...)
	if c := must(readSegment("1", p.files[segmentName(1)], false)); !c.sealed {
		t.Fatal("the first segment is not sealed")
	}
	c := must(readSegment("2", p.files[segmentName(2)], true))
	if c.sealed || len(c.frames) < 2 {
		t.Fatal("the second segment is not the one in use")
	}
	p.end = headerSize
	for _, f := range c.frames {
		p.last, p.end = p.end, p.end+frameHeaderSize+len(f.body)
	}
	p.requireAll(t, "untouched", p.files)
	return p
}

// open opens a log with those files, and returns what it holds.
func (p picture) open(t testing.TB, files map[string][]byte) (map[troth.GID]bool, error) {
	t.Helper()
	fs := newMemFiles()
	for name, b := range files {
		fs.set(name, slices.Clone(b))
	}
	l, err := openFiles(fs, small(), func() error { return nil })
	if err != nil {
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.File == "" || corrupt.Reason == "" {
			t.Fatalf("refused with %v; want a *CorruptError", err)
		}
		for name, b := range files {
			if !slices.Equal(fs.get(name), b) {
				t.Fatalf("refused to open the log, but changed %s", name)
			}
		}
		return nil, err
	}
	defer closeLog(t, l)
	got := map[troth.GID]bool{}
	for _, d := range committed(t, l) {
		got[d.GID] = true
	}
	return got, nil
}

func (p picture) requireAll(t testing.TB, what string, files map[string][]byte) {
	t.Helper()
	got, err := p.open(t, files)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if diff := p.missing(got); len(diff) > 0 || len(got) != len(p.want) {
		t.Fatalf("%s: %d decisions, missing %v", what, len(got), diff)
	}
}

// refusedOrAll fails unless the log refuses to open or holds exactly what was
// confirmed. It returns whether it opened.
func (p picture) refusedOrAll(t testing.TB, what string, files map[string][]byte) bool {
	t.Helper()
	got, err := p.open(t, files)
	if err != nil {
		return false
	}
	if diff := p.missing(got); len(diff) > 0 || len(got) != len(p.want) {
		t.Fatalf("%s: opened with %d decisions, missing %v", what, len(got), diff)
	}
	return true
}

// damageMayLose is the exception that the package comment names: a damaged range
// of a segment that hides the last frame's header, or part of its body.
func (p picture) damageMayLose(name string, from, to int) bool {
	return name == segmentName(2) && from < p.end && to > p.last
}

func (p picture) missing(got map[troth.GID]bool) (out []troth.GID) {
	for _, gid := range p.want {
		if !got[gid] {
			out = append(out, gid)
		}
	}
	return out
}

func (p picture) with(name string, b []byte) map[string][]byte {
	files := maps.Clone(p.files)
	files[name] = b
	return files
}

// No single bit that rots loses a decision, also not in the last frame.
func TestEveryBit(t *testing.T) {
	t.Parallel()
	p := newPicture(t)
	opened, refused := 0, 0
	for name, b := range p.files {
		for i := range len(b) * 8 {
			damaged := slices.Clone(b)
			damaged[i/8] ^= 1 << (i % 8)
			if p.refusedOrAll(t, fmt.Sprintf("%s, bit %d of byte %d", name, i%8, i/8), p.with(name, damaged)) {
				opened++
			} else {
				refused++
			}
		}
	}
	if opened == 0 || refused == 0 {
		t.Errorf("opened %d times, refused %d times: one of them was not tried", opened, refused)
	}
}

// The same for a log of the smallest size that users can have.
func TestEveryBitOfABigLog(t *testing.T) {
	t.Parallel()
	if !*long {
		t.Skip("skipped: takes minutes: run it with -filelog.long")
	}
	p, _ := usedLog(t, 500, func(s *settings) { s.segmentSize = segmentSizeMin }, withMark)
	name := segmentName(1)
	tried := 0
	for i := range len(p.files[name]) * 8 {
		damaged := slices.Clone(p.files[name])
		damaged[i/8] ^= 1 << (i % 8)
		p.refusedOrAll(t, fmt.Sprintf("bit %d of byte %d", i%8, i/8), p.with(name, damaged))
		tried++
	}
	t.Logf("%d bits of a log of %d decisions in %d bytes", tried, len(p.want), p.end)
}

// Blocks that are missing in the middle, with what follows moved up.
func TestBlocksCutOut(t *testing.T) {
	t.Parallel()
	p := newPicture(t)
	for name, b := range p.files {
		for from := 0; from < len(b); from += wordSize {
			for _, n := range []int{wordSize, 64, 512} {
				to := min(from+n, len(b))
				short := slices.Delete(slices.Clone(b), from, to)
				if p.refusedOrAll(t, fmt.Sprintf("%s without bytes %d to %d", name, from, to), p.with(name, short)) && name != markName {
					t.Fatalf("%s without bytes %d to %d was opened", name, from, to)
				}
				padded := append(short, make([]byte, to-from)...)
				if what := fmt.Sprintf("%s without bytes %d to %d, padded", name, from, to); !p.damageMayLose(name, from, to) {
					p.refusedOrAll(t, what, p.with(name, padded))
				}
			}
		}
	}
}

func TestTruncatedAtEveryByte(t *testing.T) {
	t.Parallel()
	p := newPicture(t)
	for name, b := range p.files {
		for n := range b {
			if p.refusedOrAll(t, fmt.Sprintf("%s cut to %d bytes", name, n), p.with(name, b[:n])) && name != markName {
				t.Fatalf("%s cut to %d bytes was opened", name, n)
			}
		}
		p.refusedOrAll(t, name+" with a byte more", p.with(name, append(slices.Clone(b), 0)))
	}
}

// Bytes that turn to zero, from any offset on and of any length.
func TestZeroedRanges(t *testing.T) {
	t.Parallel()
	p := newPicture(t)
	lost := 0
	for name, b := range p.files {
		for from := 0; from < len(b); from += 4 {
			for _, n := range []int{1, 8, 64, 512, len(b)} {
				damaged := slices.Clone(b)
				to := min(from+n, len(b))
				clear(damaged[from:to])
				what := fmt.Sprintf("%s zeroed from %d to %d", name, from, to)
				if !p.damageMayLose(name, from, to) {
					p.refusedOrAll(t, what, p.with(name, damaged))
				} else if got, err := p.open(t, p.with(name, damaged)); err == nil {
					lost += len(p.missing(got))
				}
			}
		}
	}
	if lost == 0 {
		t.Error("the documented exception was not met: the package comment promises too little")
	}
}

// Blocks that were written to a wrong place.
func TestDuplicatedBlocks(t *testing.T) {
	t.Parallel()
	p := newPicture(t)
	for name, b := range p.files {
		for other, source := range p.files {
			for from := 0; from < len(source); from += 128 {
				for to := 0; to < len(b); to += 128 {
					for _, n := range []int{128, 512} {
						damaged := slices.Clone(b)
						copy(damaged[to:], source[from:min(from+n, len(source))])
						what := fmt.Sprintf("%d bytes of %s at %d copied to %s at %d", n, other, from, name, to)
						if !p.damageMayLose(name, to, to+n) {
							p.refusedOrAll(t, what, p.with(name, damaged))
						} else if got, err := p.open(t, p.with(name, damaged)); err == nil && len(got) > len(p.want) {
							t.Fatalf("%s: opened with %d decisions", what, len(got))
						}
					}
				}
			}
		}
	}
}

func TestWrongFiles(t *testing.T) {
	t.Parallel()
	p := newPicture(t)
	without := func(names ...string) map[string][]byte {
		files := maps.Clone(p.files)
		for _, name := range names {
			delete(files, name)
		}
		return files
	}
	foreign := header{identity: "zzzzzzzz", number: 4, size: 1024, written: headerSize + 24}
	foreignBytes := append(foreign.encode(), finishFrame(newFrame(), foreign.seed(), 1, 4)...)
	foreignBytes = append(foreignBytes, make([]byte, 1024-len(foreignBytes))...)
	empty := func(identity string, number uint32) []byte {
		h := header{identity: identity, number: number, size: 1024, written: headerSize}
		return append(h.encode(), make([]byte, 1024-headerSize)...)
	}
	newer := slices.Clone(p.files[segmentName(2)])
	newer[8] = version + 1

	// Frames of one size, the second segment's first at the end of its header.
	size := p.end - p.last
	moved := func(name string, edit func(b []byte)) map[string][]byte {
		b := slices.Clone(p.files[name])
		edit(b)
		return p.with(name, b)
	}

	for name, files := range map[string]map[string][]byte{
		"two frames exchanged": moved(segmentName(2), func(b []byte) {
			first := slices.Clone(b[headerSize : headerSize+size])
			copy(b[headerSize:], b[headerSize+size:headerSize+2*size])
			copy(b[headerSize+size:], first)
		}),
		"last frame twice": moved(segmentName(2), func(b []byte) { copy(b[p.end:], b[p.last:p.end]) }),
		"first frame cut out": moved(segmentName(2), func(b []byte) {
			copy(b[headerSize:], b[headerSize+size:p.end])
			clear(b[p.end-size : p.end])
		}),
		"first segment missing":          without(segmentName(1)),
		"segment in use missing":         without(segmentName(2)),
		"segment in use and next":        without(segmentName(2), segmentName(3)),
		"two segments exchanged":         {segmentName(1): p.files[segmentName(2)], segmentName(2): p.files[segmentName(1)], segmentName(3): p.files[segmentName(3)]},
		"segment of another log":         p.with(segmentName(4), foreignBytes),
		"segment of a newer version":     p.with(segmentName(2), newer),
		"segment that is none":           p.with(segmentName(4), []byte("hello")),
		"copy of a segment as the next":  p.with(segmentName(3), p.files[segmentName(2)]),
		"an empty segment too many":      p.with(segmentName(4), empty("0123abcd", 4)),
		"empty segment of another log":   p.with(segmentName(3), empty("zzzzzzzz", 3)),
		"wrong number in a segment":      p.with(segmentName(3), empty("0123abcd", 4)),
		"segment in use from the future": p.with(segmentName(7), p.files[segmentName(2)]),
	} {
		if got, err := p.open(t, files); err == nil {
			t.Errorf("%s: opened with %d decisions", name, len(got))
		}
	}
	p.requireAll(t, "next segment missing", without(segmentName(3)))
	p.requireAll(t, "files of others", p.with("README", []byte("hello")))
	p.requireAll(t, "unfinished segment", p.with("0000000004.tmp", []byte("hello")))
}

// The segment that Open writes was whole before it got its name: nothing in it can
// be torn, not even its end.
func TestRebuiltSegmentIsNeverTorn(t *testing.T) {
	t.Parallel()
	fs := newMemFiles()
	l := openMem(t, fs, small())
	var p picture
	for n := range 30 {
		decide(t, l, commitNo(n), troth.Committed)
		p.want = append(p.want, gidNo(n))
	}
	closeLog(t, l)
	s := must(load(fs))
	seg := must(rebuild(fs, s, small()))
	name := segmentName(seg.number)
	b := fs.get(name)
	if c := must(readSegment(name, b, true)); len(c.frames) < 3 || seg.off != c.written {
		t.Fatalf("%d frames, written %d of %d bytes", len(c.frames), c.written, seg.off)
	}
	p.requireAll(t, "untouched", map[string][]byte{name: b})
	for from := headerSize; from < int(seg.off); from += wordSize {
		damaged := slices.Clone(b)
		clear(damaged[from:])
		if got, err := p.open(t, map[string][]byte{name: damaged}); err == nil {
			t.Fatalf("zeros from byte %d on: opened with %d decisions", from, len(got))
		}
	}
}

// A write that was torn at any word, or lost any sector, is cut, kept for people,
// and loses nothing that was confirmed.
func TestTornWrite(t *testing.T) {
	t.Parallel()
	p := newPicture(t)
	name := segmentName(2)
	b := p.files[name]
	c := must(readSegment(name, b, true))
	off := p.end
	next := newFrame()
	for n := range 5 {
		next = appendCommit(next, gidNo(100+n), epoch.UnixNano(), "athos.1=7")
	}
	next = finishFrame(next, c.seed(), c.frames[len(c.frames)-1].sequence+1, 1)
	if off/sectorSize == (off+len(next)-1)/sectorSize {
		t.Fatal("the torn frame should span two sectors")
	}
	for cut := 0; cut < len(next); cut += wordSize {
		torn := slices.Clone(b)
		copy(torn[off:], next[:cut])
		p.requireAll(t, fmt.Sprintf("torn after %d bytes", cut), p.with(name, torn))

		torn = slices.Clone(b)
		copy(torn[off+cut+wordSize:], next[cut+wordSize:])
		p.requireAll(t, fmt.Sprintf("a word lost at %d", cut), p.with(name, torn))
	}

	torn := slices.Clone(b)
	copy(torn[off:], next[:64])
	torn[off+len(next)+8] = 1
	if got, err := p.open(t, p.with(name, torn)); err == nil {
		t.Errorf("a torn write with something behind it was opened with %d decisions", len(got))
	}

	fs := newMemFiles()
	torn = slices.Clone(b)
	copy(torn[off:], next[:64])
	for name, b := range p.with(name, torn) {
		fs.set(name, b)
	}
	l := openMem(t, fs, small())
	if len(l.notes) != 1 {
		t.Errorf("the cut is not mentioned: %q", l.notes)
	}
	if !slices.Equal(fs.get(tornName), torn) {
		t.Error("no copy of the torn segment was kept")
	}
}

func FuzzReadSegment(f *testing.F) {
	p := newPicture(f)
	for _, b := range p.files {
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, isLast bool) {
		c, err := readSegment("x", b, isLast)
		if err != nil {
			return
		}
		if int64(len(b)) != c.size {
			t.Fatalf("accepted %d bytes of a segment of %d", len(b), c.size)
		}
		for i, f := range c.frames {
			if i > 0 && f.sequence != c.frames[i-1].sequence+1 {
				t.Fatal("sequence is broken")
			}
		}
	})
}

// FuzzDecodeEntries: what is accepted can be written again, to the same bytes.
func FuzzDecodeEntries(f *testing.F) {
	f.Add(finishFrame(appendSeal(appendForget(appendCommit(newFrame(), gidNo(1), 7, "athos.1=x"), gidNo(2))), 0, 1, 1)[frameHeaderSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := decodeEntries(b)
		if err != nil {
			return
		}
		var again []byte
		for _, e := range entries {
			switch e.kind {
			case kindCommit:
				again = appendCommit(again, e.gid, e.at, e.branches)
			case kindForget:
				again = appendForget(again, e.gid)
			case kindSeal:
				again = appendSeal(again)
			}
		}
		if len(again) > len(b) || !slices.Equal(again, b[:len(again)]) || !allZero(b[len(again):]) {
			t.Fatalf("%x was read as %x", b, again)
		}
	})
}
