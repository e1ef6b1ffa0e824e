package simdb

import (
	"encoding/hex"
	"strings"
)

type tokenKind uint8

const (
	tokenEnd    tokenKind = iota // of the text
	tokenWord                    // an identifier or keyword without quotes, as written
	tokenQuoted                  // an identifier in quotes, unquoted
	tokenText                    // a string literal, decoded
	tokenNumber                  // as written
	tokenParam                   // "?" or "$n"; text is "" or "n"
	tokenOp                      // an operator or punctuation
)

type token struct {
	kind tokenKind
	text string
	at   int // offset in the text
}

// tokenize appends the tokens of a text to list. It reports false if there is
// something that no token begins with, or a literal that does not end.
func tokenize(list []token, kind Kind, text string) ([]token, bool) {
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == ' ' || c == '\n' || c == '\t' || c == '\r':
			i++
			continue
		case c == '-' && strings.HasPrefix(text[i:], "--"):
			for i < len(text) && text[i] != '\n' {
				i++
			}
			continue
		case c == '/' && strings.HasPrefix(text[i:], "/*"):
			end := strings.Index(text[i:], "*/")
			if end < 0 {
				return list, false
			}
			i += end + 2
			continue
		}
		t, n := next(kind, text[i:])
		if n == 0 {
			return list, false
		}
		t.at = i
		list = append(list, t)
		i += n
	}
	return append(list, token{kind: tokenEnd, at: len(text)}), true
}

// next reads one token and tells its length, 0 if there is none.
func next(kind Kind, s string) (token, int) {
	c := s[0]
	switch {
	case kind == MariaDB && (c == 'X' || c == 'x') && len(s) > 1 && s[1] == '\'':
		return hexLiteral(s, 2, strings.IndexByte(s[2:], '\''), 1)
	case kind == MariaDB && strings.HasPrefix(s, "0x"):
		return hexLiteral(s, 2, span(s[2:], isHex), 0)
	case isLetter(c):
		n := span(s, isNamePart)
		return token{kind: tokenWord, text: s[:n]}, n
	case isDigit(c):
		n := span(s, func(c byte) bool { return isDigit(c) || c == '.' })
		return token{kind: tokenNumber, text: s[:n]}, n
	case c == '\'':
		return quoted(tokenText, s, kind == MariaDB)
	case c == '"' && kind == MariaDB:
		return quoted(tokenText, s, true)
	case c == '"', c == '`' && kind != Postgres:
		return quoted(tokenQuoted, s, false)
	case c == '?' && kind != Postgres:
		return token{kind: tokenParam}, 1
	case c == '$' && kind == Postgres && len(s) > 1 && isDigit(s[1]):
		n := 1 + span(s[1:], isDigit)
		return token{kind: tokenParam, text: s[1:n]}, n
	}
	for _, op := range [...]string{"::", "<=", ">=", "<>", "!=", "||", "=>", "@@"} {
		if strings.HasPrefix(s, op) {
			return token{kind: tokenOp, text: s[:2]}, 2
		}
	}
	if strings.IndexByte("=<>+-*/%(),.;", c) >= 0 {
		return token{kind: tokenOp, text: s[:1]}, 1
	}
	return token{}, 0
}

// quoted reads a literal or identifier whose quote is doubled within it; with
// escapes, a backslash stands before any character.
func quoted(kind tokenKind, s string, escapes bool) (token, int) {
	quote := s[0]
	plain := true
	for i := 1; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			return token{}, 0 // nothing of ours writes one: refused, not guessed
		case s[i] != quote:
		case i+1 < len(s) && s[i+1] == quote:
			plain = false
			i++
		default:
			text := s[1:i]
			if !plain {
				q := string(quote)
				text = strings.ReplaceAll(text, q+q, q)
			}
			return token{kind: kind, text: text}, i + 1
		}
	}
	return token{}, 0
}

func hexLiteral(s string, start, length, behind int) (token, int) {
	if length < 0 {
		return token{}, 0
	}
	b, err := hex.DecodeString(s[start : start+length])
	if err != nil {
		return token{}, 0
	}
	return token{kind: tokenText, text: string(b)}, start + length + behind
}

func span(s string, is func(byte) bool) int {
	n := 0
	for n < len(s) && is(s[n]) {
		n++
	}
	return n
}

func isLetter(c byte) bool   { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 }
func isDigit(c byte) bool    { return c >= '0' && c <= '9' }
func isHex(c byte) bool      { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }
func isNamePart(c byte) bool { return isLetter(c) || isDigit(c) || c == '$' }
