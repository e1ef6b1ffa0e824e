package torture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/troth-tx/troth/internal/history"
)

// A tail reads a growing history file.
type tail struct {
	path   string
	offset int64
}

// next returns the events that were written since the last call.
func (t *tail) next() ([]history.Event, error) {
	file, err := os.Open(t.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read from
	if _, err := file.Seek(t.offset, io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	events, err := history.ReadFrom(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s from byte %d: %w", t.path, t.offset, err)
	}
	t.offset += int64(len(text))
	return events, nil
}
