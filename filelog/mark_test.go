package filelog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
)

// withMark are settings for a log whose mark is written at once.
func withMark(s *settings) { s.markDelay = time.Millisecond }

// usedLog is a log of one segment as it is on disk while it is in use, with that
// many confirmed decisions, each in a frame of its own. marked says how many
// of the frames, of which the first is Open's, the mark tells of.
func usedLog(t *testing.T, decisions int, opts ...Option) (p picture, marked int) {
	t.Helper()
	fs := newMemFiles()
	l := openMem(t, fs, small(append([]Option{func(s *settings) { s.segmentSize = 16 << 10 }}, opts...)...))
	for n := range decisions {
		decide(t, l, commitNo(n), troth.Committed)
		p.want = append(p.want, gidNo(n))
	}
	if len(opts) > 0 {
		for wait := time.NewTimer(2 * time.Minute); ; { // for the keeper, which ticks
			if _, n, _ := decodeMark(fs.get(markName)); n == l.synced.Load() {
				break
			}
			select {
			case <-wait.C:
				t.Fatal("the mark does not follow the log")
			case <-time.After(time.Millisecond):
			}
		}
	}
	p.files = map[string][]byte{}
	for _, name := range must(fs.List()) {
		p.files[name] = fs.get(name)
	}
	c := must(readSegment("1", p.files[segmentName(1)], true))
	p.end = headerSize
	for _, f := range c.frames {
		p.last, p.end = p.end, p.end+frameHeaderSize+len(f.body)
	}
	_, n, ok := decodeMark(p.files[markName])
	if !ok {
		t.Fatal("there is no mark")
	}
	return p, int(n)
}

// zeroTail turns the last block of the log, of that size, to zeros.
func (p picture) zeroTail(block int) map[string][]byte {
	b := slices.Clone(p.files[segmentName(1)])
	clear(b[(p.end-1)/block*block : p.end])
	return p.with(segmentName(1), b)
}

// The end of the log rots to zeros. Without a mark it looks as if it had never
// been written; with one the log refuses to open.
func TestZeroedTail(t *testing.T) {
	t.Parallel()
	const decisions = 60
	p, marked := usedLog(t, decisions)
	if marked != 1 {
		t.Fatalf("the mark tells of %d frames; want Open's", marked)
	}
	for _, block := range []int{sectorSize, 4096} {
		files := p.zeroTail(block)
		delete(files, markName)
		got, err := p.open(t, files)
		if err != nil {
			t.Fatalf("without a mark, the last %d bytes zeroed: %v: the exception that doc.go names is none", block, err)
		}
		t.Logf("the last block of %d bytes zeroed: without a mark %d of %d confirmed decisions are lost unseen", block, len(p.missing(got)), decisions)
	}

	p, marked = usedLog(t, decisions, withMark)
	if marked != decisions+1 {
		t.Fatalf("the mark tells of %d frames; want %d", marked, decisions+1)
	}
	p.requireAll(t, "untouched", p.files)
	for from := headerSize; from < p.end; from += wordSize {
		b := slices.Clone(p.files[segmentName(1)])
		clear(b[from:])
		if got, err := p.open(t, p.with(segmentName(1), b)); err == nil {
			t.Fatalf("zeros from byte %d on, with a mark: opened with %d decisions", from, len(got))
		}
	}
}

// What is lost although there is a mark: what was confirmed after it was written.
func TestZeroedTailBehindTheMark(t *testing.T) {
	t.Parallel()
	p, _ := usedLog(t, 60, withMark)
	mark := slices.Clone(p.files[markName])
	copy(mark, encodeSlot("0123abcd", 59)) // of 61
	copy(mark[slotDistance:], encodeSlot("0123abcd", 58))
	for from := headerSize; from < p.end; from += wordSize {
		b := slices.Clone(p.files[segmentName(1)])
		clear(b[from:])
		files := p.with(segmentName(1), b)
		files[markName] = mark
		if got, err := p.open(t, files); err == nil && len(p.missing(got)) > 2 {
			t.Fatalf("zeros from byte %d on: %v are lost, which the mark tells of", from, p.missing(got))
		}
	}
}

// The mark holds no decision: nothing that happens to it alone keeps a log from
// opening, but for a mark that tells of more than there is.
func TestDamagedMark(t *testing.T) {
	t.Parallel()
	p, marked := usedLog(t, 5, withMark)
	torn := slices.Clone(p.files[markName])
	clear(torn[:slotSize/2])
	newest := func(sequence uint64, identity string) []byte {
		b := make([]byte, markSize)
		copy(b, encodeSlot(identity, sequence))
		return b
	}
	for name, mark := range map[string][]byte{
		"torn":          torn,
		"empty":         nil,
		"zero":          make([]byte, markSize),
		"garbage":       []byte(strings.Repeat("x", markSize)),
		"old":           newest(1, "0123abcd"),
		"all, one slot": newest(uint64(marked), "0123abcd"),
	} {
		p.requireAll(t, name, p.with(markName, mark))
	}
	without := maps.Clone(p.files)
	delete(without, markName)
	p.requireAll(t, "none", without)
	for name, c := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"more than there is": {p.with(markName, newest(uint64(marked)+1, "0123abcd")), "was on disk"},
		"of another log":     {p.with(markName, newest(1, "zzzzzzzz")), "belongs to the log zzzzzzzz"},
		"no segments":        {map[string][]byte{markName: p.files[markName]}, "all segments are missing"},
	} {
		var corrupt *CorruptError
		if _, err := p.open(t, c.files); !errors.As(err, &corrupt) || !strings.Contains(corrupt.Reason, c.want) {
			t.Errorf("%s: %v; want a word about %q", name, err, c.want)
		}
	}
}

// An operator hears of a damaged mark, once.
func TestDamagedMarkIsMentioned(t *testing.T) {
	t.Parallel()
	fs := newMemFiles()
	closeLog(t, openMem(t, fs, small()))
	fs.set(markName, []byte("x"))
	l := openMem(t, fs, small())
	if len(l.notes) != 1 || !strings.Contains(l.notes[0], markName) {
		t.Errorf("notes: %q", l.notes)
	}
	closeLog(t, l)
	if l = openMem(t, fs, small()); len(l.notes) != 0 {
		t.Errorf("notes after it was made anew: %q", l.notes)
	}
}

// A mark that cannot be written stops no decision.
func TestMarkThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"write", "sync"} {
		fs := newMemFiles()
		l := openMem(t, fs, small(withMark))
		mark := l.mark.file.(*memFile)
		failed := make(chan struct{}, 100)
		mark.fail = func(o string) error {
			if o == op {
				failed <- struct{}{}
				return fmt.Errorf("%w: no mark", errInjected)
			}
			return nil
		}
		decide(t, l, commitNo(1), troth.Committed)
		<-failed
		decide(t, l, commitNo(2), troth.Committed)
		closeLog(t, l)
		if len(failed) != 0 {
			t.Errorf("%s: a mark that failed was written again", op)
		}
		w := newLedger()
		w.note(w.attempted, gidNo(1), gidNo(2))
		w.note(w.confirmed, gidNo(1), gidNo(2))
		w.check(t, op, fs)
	}
}
