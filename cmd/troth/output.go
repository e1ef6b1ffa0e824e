package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// writeJSON writes one object.
func (a *app) writeJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// A page is text for people: lines of columns, which line up within a block.
type page struct {
	w   *tabwriter.Writer
	err error
}

func newPage(w io.Writer) *page {
	return &page{w: tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)}
}

// line writes columns. What comes from a database may hold anything, also what
// would move a terminal's cursor.
func (p *page) line(columns ...string) {
	for i, c := range columns {
		columns[i] = printable(c)
	}
	p.write(strings.Join(columns, "\t") + "\n")
}

// title writes a line that takes no part in the columns.
func (p *page) title(words ...string) {
	p.flush()
	p.line(strings.Join(words, " "))
	p.flush()
}

// gap ends a block of lines with an empty one.
func (p *page) gap() {
	p.write("\n")
	p.flush()
}

func (p *page) write(text string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.w, text)
	}
}

func (p *page) flush() {
	if p.err == nil {
		p.err = p.w.Flush()
	}
}

// end returns the first error of writing.
func (p *page) end() error {
	p.flush()
	return p.err
}

// printable is text on one line, with a mark for what cannot be seen.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, s)
}

// seconds is how JSON shows a duration; nil if it is not known.
func seconds(d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	s := d.Round(time.Millisecond).Seconds()
	return &s
}

// instant is how JSON shows a time; nil if it is not known.
func instant(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC3339)
	return &s
}

// optional is nil for an empty text.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// ago is a duration for people.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "less than 1s"
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// count is "1 branch" or "2 branches".
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
