package sqlstore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// example has something in every field that the two values hold.
func example() *store.Transaction {
	created := time.UnixMicro(1_772_366_400_123_456).UTC()
	return &store.Transaction{
		Created: created, Protocol: "grpc", QueryPrepared: "http://ask", Data: "the data",
		Options: store.Options{
			Wait: true, TimeoutToFail: time.Hour, RetryInterval: time.Second, RequestTimeout: time.Millisecond, RetryLimit: 3,
			Concurrent: true, Orders: map[int][]int{2: {0, 1}, 1: {0}}, Delay: time.Minute,
			Headers: map[string]string{"b": "2", "a": "1"},
		},
		Branches: []store.Branch{
			{ID: "01", Op: store.Action, URL: "http://a", Payload: []byte("pay"), State: store.BranchSucceeded, Called: created.Add(time.Second), Finished: created.Add(time.Minute)},
			{ID: "02", Op: store.Compensate, State: store.BranchPrepared, Called: created.Add(-time.Hour), Error: "no"},
		},
		Interval: 10 * time.Second, Reason: "why", Result: "what",
	}
}

func decode(t testing.TB, definition, progress []byte, created time.Time) *store.Transaction {
	t.Helper()
	x := &store.Transaction{Created: created}
	if err := readProgress(progress, x); err != nil {
		t.Fatal(err)
	}
	if err := readDefinition(definition, x); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestCodecKeepsAll(t *testing.T) {
	t.Parallel()
	for _, want := range []*store.Transaction{example(), {}, {Options: store.Options{Wait: true}}, {Options: store.Options{Delay: -1}}} {
		got := decode(t, appendDefinition(nil, want), appendProgress(nil, want), want.Created)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v came back as %+v", want, got)
		}
	}
}

// What a release has written is read for ever. The files are written anew with -rewrite,
// and only for a new version.
func TestGolden(t *testing.T) {
	t.Parallel()
	const definitionFile, progressFile = "testdata/v2/definition.hex", "testdata/v1/progress.hex"
	want := example()
	if *rewrite {
		for name, b := range map[string][]byte{definitionFile: appendDefinition(nil, want), progressFile: appendProgress(nil, want)} {
			if err := os.WriteFile(name, []byte(hex.EncodeToString(b)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := func(name string) []byte {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, name := range []string{definitionFile, "testdata/v1/definition.hex"} {
		if got := decode(t, read(name), read(progressFile), want.Created); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
}

// A definition that is cut anywhere says so, and nothing else; a newer one is refused.
func TestCodecRefuses(t *testing.T) {
	t.Parallel()
	x := example()
	definition, progress := appendDefinition(nil, x), appendProgress(nil, x)
	for n := range definition {
		if err := readDefinition(definition[:n], x.Clone()); !errors.Is(err, errShort) {
			t.Errorf("a definition cut to %d bytes = %v, want errShort", n, err)
		}
	}
	for n := range progress {
		if err := readProgress(progress[:n], x.Clone()); err == nil {
			t.Errorf("a progress cut to %d bytes is read", n)
		}
	}
	if err := readProgress(append(bytes.Clone(progress), 0), x.Clone()); err == nil {
		t.Error("a progress with something behind it is read")
	}
	for _, versions := range [][2]byte{{definitionVersion + 1, progressVersion + 1}, {0, 0}} {
		definition[0], progress[0] = versions[0], versions[1]
		for name, err := range map[string]error{
			"definition": readDefinition(definition, x.Clone()), "progress": readProgress(progress, x.Clone()),
		} {
			if err == nil || errors.Is(err, errShort) || !strings.Contains(err.Error(), "version") {
				t.Errorf("a %s of version %d = %v", name, versions, err)
			}
		}
	}
}

// Whatever is read, reading ends, takes memory in proportion, and what was understood
// can be written and read again.
func FuzzCodec(f *testing.F) {
	x := example()
	f.Add(appendDefinition(nil, x), appendProgress(nil, x))
	f.Add([]byte{2}, []byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{1, 0, 0, 0, flagOptions, 0, 0, 0, 0, 0, 0xff, 0xff, 3}, []byte{1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, definition, progress []byte) {
		x := &store.Transaction{Created: time.UnixMicro(1).UTC()}
		if readProgress(progress, x) != nil || readDefinition(definition, x) != nil {
			return
		}
		y := decode(t, appendDefinition(nil, x), appendProgress(nil, x), x.Created)
		if !equalTransactions(x, y) {
			t.Errorf("%+v was written and read as %+v", x, y)
		}
	})
}

// equalTransactions ignores what only equal times differ in: a time at the edge of what
// microseconds can say is another after it was written again.
func equalTransactions(x, y *store.Transaction) bool {
	for i := range x.Branches {
		if i < len(y.Branches) {
			for _, b := range []*store.Branch{&x.Branches[i], &y.Branches[i]} {
				b.Called, b.Finished = time.Time{}, time.Time{}
				b.State &= branchStateMask
			}
		}
	}
	normal := func(t *store.Transaction) {
		for step, before := range t.Options.Orders {
			if len(before) == 0 {
				t.Options.Orders[step] = nil
			}
		}
		if len(t.Options.Orders) == 0 {
			t.Options.Orders = nil
		}
		if len(t.Options.Headers) == 0 {
			t.Options.Headers = nil
		}
	}
	normal(x)
	normal(y)
	return reflect.DeepEqual(x, y)
}
