package demo

import (
	"fmt"
	"io"
	"strings"
)

const pageWidth = 79

// page writes the story: short lines, few colours.
type page struct {
	out   io.Writer
	color bool
	err   error // the first error of out
}

const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	plain = "\x1b[0m"
)

func (p *page) line(style, text string) {
	if p.color && style != "" {
		text = style + text + plain
	}
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.out, text)
	}
}

func (p *page) title(text string) {
	p.line("", "")
	p.line(bold, text)
}

// say writes a paragraph.
func (p *page) say(format string, args ...any) {
	for _, l := range wrap(fmt.Sprintf(format, args...), pageWidth) {
		p.line("", l)
	}
}

// detail writes what an expert wants to see.
func (p *page) detail(format string, args ...any) {
	const indent, hanging = "    ", "      "
	before := indent
	for _, l := range wrap(fmt.Sprintf(format, args...), pageWidth-len(hanging)) { // as wide as a branch's name on MariaDB
		p.line(dim, before+l)
		before = hanging
	}
}

func (p *page) good(text string) { p.line(green, "  ok  "+text) }
func (p *page) bad(text string)  { p.line(red, "  WRONG  "+text) }

// The columns of the widest table end with the page.
const (
	labelWidth = 21
	sumWidth   = 5
)

// head writes the names of the columns that rows fill.
func (p *page) head(b balances) {
	var s strings.Builder
	s.WriteString(strings.Repeat(" ", 2+labelWidth))
	for _, one := range b {
		s.WriteString("  " + one.title())
	}
	fmt.Fprintf(&s, "  %*s", sumWidth, "sum")
	p.line(dim, s.String())
}

func (p *page) row(label string, b balances) {
	var s strings.Builder
	fmt.Fprintf(&s, "  %-*s", labelWidth, label)
	for _, one := range b {
		fmt.Fprintf(&s, "  %*d", len(one.title()), one.amount)
	}
	fmt.Fprintf(&s, "  %*d", sumWidth, b.sum())
	p.line("", s.String())
}

// wrap breaks text into lines, between words. It keeps the spaces inside a line, so
// that columns stay columns.
func wrap(text string, width int) []string {
	var lines []string
	for len(text) > width {
		at := strings.LastIndex(text[:width+1], " ")
		if at <= 0 {
			at = strings.Index(text, " ")
			if at <= 0 {
				break
			}
		}
		lines = append(lines, strings.TrimRight(text[:at], " "))
		text = strings.TrimLeft(text[at:], " ")
	}
	return append(lines, text)
}
