package sqlstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/troth-tx/troth/store"
)

// A transaction is kept in two values beside the columns that SQL looks at: its
// definition, which never changes but may grow at its end, and its progress, which is
// written again at every change. Numbers are varints of package encoding/binary,
// unsigned ones but for "signed"; a text is its length in bytes and the bytes.
//
//	definition  version u8 = 2
//	            protocol, query-prepared, data: texts
//	            flags u8: 1 wait, 2 concurrent, 4 what follows up to headers is there
//	            timeout-to-fail, retry-interval, request-timeout, delay: signed, ns
//	            retry-limit: signed
//	            orders: count, then of each: step signed, count, steps signed
//	            headers: count, then of each: name, value
//	            branches, up to the end: id text, op u8, url text, payload text
//
//	progress    version u8 = 1
//	            interval: signed, ns
//	            reason, result: texts
//	            count of branches, then of each:
//	              u8: state in bits 0-3; 16 called, 32 finished, 64 error follow
//	              called, finished: signed, µs since the transaction was created; error text
//
// A definition that is longer than firstMax is cut anywhere; it ends where the branches
// that progress counts are complete. Empty and nil mean the same: they come back as nil.
// A definition of version 1 has a text behind the headers, which is passed over. A reader
// refuses versions that it does not know. Numbers on disk are never used anew.
const (
	definitionVersion = 2
	progressVersion   = 1
)

const (
	flagWait = 1 << iota
	flagConcurrent
	flagOptions
)

const (
	branchStateMask = 0x0f
	branchCalled    = 0x10
	branchFinished  = 0x20
	branchError     = 0x40
)

// errShort says that a value ends too early: more of it may be elsewhere.
var errShort = errors.New("it ends too early")

func appendText[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendDefinition appends the definition of a transaction with all of its branches.
func appendDefinition(b []byte, t *store.Transaction) []byte {
	b = append(b, definitionVersion)
	b = appendText(b, t.Protocol)
	b = appendText(b, t.QueryPrepared)
	b = appendText(b, t.Data)
	b = appendOptions(b, &t.Options)
	return appendBranches(b, t.Branches)
}

func appendOptions(b []byte, o *store.Options) []byte {
	var flags byte
	if o.Wait {
		flags |= flagWait
	}
	if o.Concurrent {
		flags |= flagConcurrent
	}
	if o.TimeoutToFail != 0 || o.RetryInterval != 0 || o.RequestTimeout != 0 || o.Delay != 0 || o.RetryLimit != 0 ||
		len(o.Orders) > 0 || len(o.Headers) > 0 {
		flags |= flagOptions
	}
	b = append(b, flags)
	if flags&flagOptions == 0 {
		return b
	}
	for _, d := range [...]time.Duration{o.TimeoutToFail, o.RetryInterval, o.RequestTimeout, o.Delay} {
		b = binary.AppendVarint(b, int64(d))
	}
	b = binary.AppendVarint(b, int64(o.RetryLimit))
	b = binary.AppendUvarint(b, uint64(len(o.Orders)))
	for _, step := range slices.Sorted(maps.Keys(o.Orders)) {
		b = binary.AppendVarint(b, int64(step))
		b = binary.AppendUvarint(b, uint64(len(o.Orders[step])))
		for _, before := range o.Orders[step] {
			b = binary.AppendVarint(b, int64(before))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(o.Headers)))
	for _, name := range slices.Sorted(maps.Keys(o.Headers)) {
		b = appendText(b, name)
		b = appendText(b, o.Headers[name])
	}
	return b
}

func appendBranches(b []byte, branches []store.Branch) []byte {
	for i := range branches {
		x := &branches[i]
		b = appendText(b, x.ID)
		b = append(b, byte(x.Op))
		b = appendText(b, x.URL)
		b = appendText(b, x.Payload)
	}
	return b
}

// appendProgress appends the progress of a transaction.
func appendProgress(b []byte, t *store.Transaction) []byte {
	b = append(b, progressVersion)
	b = binary.AppendVarint(b, int64(t.Interval))
	b = appendText(b, t.Reason)
	b = appendText(b, t.Result)
	b = binary.AppendUvarint(b, uint64(len(t.Branches)))
	created := micros(t.Created)
	for i := range t.Branches {
		x := &t.Branches[i]
		head := byte(x.State) & branchStateMask
		if !x.Called.IsZero() {
			head |= branchCalled
		}
		if !x.Finished.IsZero() {
			head |= branchFinished
		}
		if x.Error != "" {
			head |= branchError
		}
		b = append(b, head)
		if head&branchCalled != 0 {
			b = binary.AppendVarint(b, micros(x.Called)-created)
		}
		if head&branchFinished != 0 {
			b = binary.AppendVarint(b, micros(x.Finished)-created)
		}
		if head&branchError != 0 {
			b = appendText(b, x.Error)
		}
	}
	return b
}

// A reader takes values from the front of b. After the first error all are zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err, r.b = err, nil
	}
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// version reads the version of a layout, of which this program knows those up to latest.
func (r *reader) version(latest byte) byte {
	v := r.byte()
	switch {
	case r.err != nil:
	case v == 0:
		r.fail(errors.New("its layout has no version"))
	case v > latest:
		r.fail(fmt.Errorf("its layout is version %d, and this program knows %d: a newer one wrote it", v, latest))
	}
	return v
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.b)
	return advance(r, v, n)
}

func (r *reader) unsigned() uint64 {
	v, n := binary.Uvarint(r.b)
	return advance(r, v, n)
}

func advance[T int64 | uint64](r *reader, v T, n int) T {
	switch {
	case n == 0:
		r.fail(errShort)
		return 0
	case n < 0:
		r.fail(errors.New("a number is too long"))
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) small() int {
	v := r.signed()
	if v < math.MinInt32 || v > math.MaxInt32 {
		r.fail(errors.New("a number is too large"))
		return 0
	}
	return int(v)
}

// bytes returns the next text, which is a part of what is read.
func (r *reader) bytes() []byte {
	n := r.unsigned()
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return nil
	}
	if n == 0 {
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string { return string(r.bytes()) }

// count returns how many follow of something that takes at least one byte each.
func (r *reader) count() int {
	n := r.unsigned()
	if n > uint64(len(r.b)) {
		r.fail(errShort)
		return 0
	}
	return int(n)
}

// readDefinition reads a definition into t, and the branches that t has already by
// its progress. errShort: more of it is elsewhere. Payloads share memory with b.
func readDefinition(b []byte, t *store.Transaction) error {
	r := reader{b: b}
	version := r.version(definitionVersion)
	t.Protocol, t.QueryPrepared, t.Data = r.text(), r.text(), r.text()
	r.options(&t.Options, version)
	for i := range t.Branches {
		x := &t.Branches[i]
		x.ID, x.Op, x.URL, x.Payload = r.text(), store.Op(r.byte()), r.text(), r.bytes()
		if r.err != nil {
			break
		}
	}
	return r.err
}

func (r *reader) options(o *store.Options, version byte) {
	flags := r.byte()
	*o = store.Options{Wait: flags&flagWait != 0, Concurrent: flags&flagConcurrent != 0}
	if flags&flagOptions == 0 {
		return
	}
	for _, d := range [...]*time.Duration{&o.TimeoutToFail, &o.RetryInterval, &o.RequestTimeout, &o.Delay} {
		*d = time.Duration(r.signed())
	}
	o.RetryLimit = r.small()
	if n := r.count(); n > 0 {
		o.Orders = make(map[int][]int)
		for range n {
			step := r.small()
			before := make([]int, r.count())
			for i := range before {
				before[i] = r.small()
			}
			if r.err != nil {
				return
			}
			o.Orders[step] = before
		}
	}
	if n := r.count(); n > 0 {
		o.Headers = make(map[string]string)
		for range n {
			name := r.text()
			o.Headers[name] = r.text()
			if r.err != nil {
				return
			}
		}
	}
	if version == 1 {
		r.bytes()
	}
}

// readProgress reads a progress into t, whose Created is known.
func readProgress(b []byte, t *store.Transaction) error {
	r := reader{b: b}
	r.version(progressVersion)
	t.Interval = time.Duration(r.signed())
	t.Reason, t.Result = r.text(), r.text()
	t.Branches = nil
	if n := r.count(); n > 0 {
		t.Branches = make([]store.Branch, n)
	}
	created := micros(t.Created)
	for i := range t.Branches {
		x := &t.Branches[i]
		head := r.byte()
		x.State = store.BranchState(head & branchStateMask)
		if head&branchCalled != 0 {
			x.Called = timeOf(created + r.signed())
		}
		if head&branchFinished != 0 {
			x.Finished = timeOf(created + r.signed())
		}
		if head&branchError != 0 {
			x.Error = r.text()
		}
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail(errors.New("something follows it"))
	}
	return r.err
}

// micros is a time as it is stored: microseconds since 1970, 0 for the zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeOf(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
