package history

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
)

// A Writer appends events to a file, one line of JSON each, with one write(2) per
// event: what Write has returned for survives SIGKILL of the program. It is safe
// for concurrent use. A file has one Writer at a time.
type Writer struct {
	mu   sync.Mutex
	file *os.File
}

// Create opens the file for appending, and creates it if need be. A last line that
// a killed writer left half is cut off.
func Create(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	if err == nil {
		if whole := int64(bytes.LastIndexByte(data, '\n') + 1); whole < int64(len(data)) {
			err = f.Truncate(whole)
		}
	}
	if err != nil {
		_ = f.Close() // the first error says it
		return nil, fmt.Errorf("history %s: %w", path, err)
	}
	return &Writer{file: f}, nil
}

// Write appends e. If e.Time is 0, it becomes [Now].
func (w *Writer) Write(e Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Time == 0 {
		e.Time = Now() // under the lock: a file's times never step back
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = w.file.Write(append(line, '\n'))
	return err
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

// ReadFrom reads the events of one writer. Half a line at the end is what a killed
// writer leaves and is skipped; a bad line anywhere else is an error.
func ReadFrom(r io.Reader) ([]Event, error) {
	var events []Event
	lines := bufio.NewReaderSize(r, 64<<10)
	for no := 1; ; no++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return nil, err
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("history, line %d: %w", no, err)
		}
		events = append(events, e)
	}
}

// ReadFiles reads the files of several writers and merges them in the order of
// time.
func ReadFiles(paths ...string) ([]Event, error) {
	var events []Event
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		some, err := ReadFrom(f)
		_ = f.Close() // only read from
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		events = append(events, some...)
	}
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.Time, b.Time) })
	return events, nil
}
