package outbound

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/troth-tx/troth/engine"
)

// An answer's words. They count wherever they stand in a body, as in dtm.
var (
	wordOngoing = []byte("ONGOING")
	wordFailure = []byte("FAILURE")
)

// answerOf says what a status and a body mean. "Not yet" goes before "no", as in dtm.
func (c *Caller) answerOf(status int, body []byte) engine.Answer {
	words := !c.cfg.IgnoreWords
	switch {
	case status == http.StatusTooEarly, words && bytes.Contains(body, wordOngoing):
		return engine.Ongoing
	case status == http.StatusConflict, words && bytes.Contains(body, wordFailure):
		return engine.Failure
	case status == http.StatusOK:
		return engine.Success
	}
	return engine.Unknown
}

// textMax is how much of what a participant says is passed on, in bytes.
const textMax = 1024

func textOf(status int, body []byte) string {
	if len(body) > textMax {
		body = body[:textMax]
	}
	return readable("HTTP " + strconv.Itoa(status) + ": " + string(bytes.TrimSpace(body)))
}

// readable makes of what others said text that every store and terminal takes.
func readable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
	return cut(s, textMax)
}

// cut shortens text at a boundary of characters.
func cut(s string, bytesMax int) string {
	if len(s) <= bytesMax {
		return s
	}
	for bytesMax > 0 && !utf8.RuneStart(s[bytesMax]) {
		bytesMax--
	}
	return s[:bytesMax]
}
