package history

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func sample() []Event {
	return []Event{
		{Process: 1, Op: 1, GID: "bank.1", Kind: Transfer, Phase: Invoke, Time: 10, Changes: []Change{{"a", 1, -5}, {"b", 2, 5}}},
		{Process: 1, Op: 1, GID: "bank.1", Kind: Transfer, Phase: Pending, Time: 30, Error: "pöndi\nng"},
		{Process: 1, Op: 2, Kind: Read, Phase: OK, Time: 40, Locked: true, Balances: []Balance{{"a", 1, 95}}},
		{Process: 1, Op: 3, GID: "bank.3", Kind: Append, Phase: OK, Time: 50, Lists: []ListOp{{DB: "a", Key: 1, Value: 7}, {DB: "a", Key: 1, Read: []int64{7}}}},
		{Process: 1, Op: 4, GID: "bank.3", Kind: Decide, Phase: OK, Time: 60, Want: Aborted, Answer: Committed},
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "h")
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range sample() {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFiles(path)
	if err != nil || !reflect.DeepEqual(got, sample()) {
		t.Fatalf("read %+v, %v", got, err)
	}
	if err := w.Write(Event{}); err == nil {
		t.Error("a closed writer takes events")
	}
}

// A file cut anywhere gives the events whose lines are whole, and a new writer
// goes on behind them.
func TestATornLineIsSkippedAndCutOff(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "h")
	w, _ := Create(path)
	for _, e := range sample()[:2] {
		_ = w.Write(e)
	}
	_ = w.Close()
	whole, _ := os.ReadFile(path)
	for n := range whole {
		events, err := ReadFrom(bytes.NewReader(whole[:n]))
		if want := bytes.Count(whole[:n], []byte("\n")); err != nil || len(events) != want {
			t.Fatalf("cut at %d: %d events, %v, want %d", n, len(events), err, want)
		}
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = w.Write(sample()[2])
		_ = w.Close()
		again, err := ReadFiles(path)
		if err != nil || len(again) != len(events)+1 || !reflect.DeepEqual(again[len(events)], sample()[2]) {
			t.Fatalf("cut at %d and appended: %+v, %v", n, again, err)
		}
	}
}

func TestABadLineInTheMiddleIsAnError(t *testing.T) {
	t.Parallel()
	if _, err := ReadFrom(strings.NewReader("{\"process\":1\n{\"process\":2}\n")); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Fatalf("got %v", err)
	}
}

func TestFilesAreMergedByTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var paths []string
	for p, times := range [][]int64{{1, 4, 5}, {2, 3, 6}} {
		path := filepath.Join(dir, string(rune('a'+p)))
		w, _ := Create(path)
		for _, at := range times {
			_ = w.Write(Event{Process: p, Time: at})
		}
		_ = w.Close()
		paths = append(paths, path)
	}
	events, err := ReadFiles(paths...)
	if err != nil || len(events) != 6 {
		t.Fatal(events, err)
	}
	for i, e := range events {
		if e.Time != int64(i+1) {
			t.Fatalf("event %d has time %d", i, e.Time)
		}
	}
}

const childEnv = "HISTORY_TEST_CHILD"

// A killed program loses no event that Write has returned for, and its clock is
// ours.
func TestEventsSurviveSIGKILL(t *testing.T) {
	if path := os.Getenv(childEnv); path != "" {
		w, err := Create(path)
		if err != nil {
			panic(err)
		}
		for op := 1; ; op++ {
			if err := w.Write(Event{Op: op, Kind: Transfer, Phase: Invoke}); err != nil {
				panic(err)
			}
			_, _ = os.Stdout.Write([]byte{'.'})
		}
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "h")
	before := Now()
	child := exec.Command(os.Args[0], "-test.run=^TestEventsSurviveSIGKILL$")
	child.Env = append(os.Environ(), childEnv+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	_ = child.Process.Kill()
	rest, _ := io.ReadAll(out)
	_ = child.Wait() // killed: its error is ours
	after := Now()
	events, err := ReadFiles(path)
	if said := 1000 + len(rest); err != nil || len(events) < said {
		t.Fatalf("%d events, %v; the child was told of %d", len(events), err, said)
	}
	for i, e := range events {
		if e.Op != i+1 || e.Time < before || e.Time > after {
			t.Fatalf("event %d is %+v, outside of %d to %d", i, e, before, after)
		}
	}
}
