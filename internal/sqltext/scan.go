package sqltext

import "strings"

// A token is the kind of a lexical element; its text is scanner.text[start:pos].
type token uint8

const (
	tokenEnd    token = iota // the text is over
	tokenWord                // keyword, bare identifier or number
	tokenQuoted              // quoted identifier (MySQL: or a string in double quotes)
	tokenString
	tokenSemicolon
	tokenOpen  // (
	tokenClose // )
	tokenOther // any other single byte
)

// scanner reads the tokens of one statement.
type scanner struct {
	dialect Dialect
	text    string
	start   int // of the last token
	pos     int // behind the last token

	done         bool // the statement's end was reached: step returns nothing more
	executable   int  // MySQL: open executable comments
	unterminated bool // a quote was open at the end of the text
	exposed      bool // and it began in an executable comment
	body         bodyKind
	depth        int     // of what body counts
	before       [2]word // the last two words or signs in a trigger's body
}

// A bodyKind says how a statement hides semicolons that do not end it.
type bodyKind uint8

const (
	bodyNone    bodyKind = iota
	bodyParens           // PostgreSQL CREATE RULE: between parentheses
	bodyAtomic           // PostgreSQL CREATE FUNCTION: BEGIN ATOMIC ... END
	bodyTrigger          // SQLite CREATE TRIGGER: up to "; END ;"
)

const (
	classWord  = 1 << iota // may be in a bare identifier or number
	classBlank             // white space
)

var classes = func() (t [256]uint8) {
	for c := range 256 {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '$', c >= 0x80:
			t[c] = classWord
		case c == ' ', c >= '\t' && c <= '\r':
			t[c] = classBlank
		}
	}
	return t
}()

// next reads one token. Comments and blanks are skipped.
func (s *scanner) next() token {
	s.blanks()
	s.start = s.pos
	if s.pos == len(s.text) {
		return tokenEnd
	}
	c := s.text[s.pos]
	if classes[c]&classWord != 0 && (c != '$' || s.dialect != Postgres) {
		return s.word()
	}
	s.pos++
	switch c {
	case ';':
		return tokenSemicolon
	case '(':
		return tokenOpen
	case ')':
		return tokenClose
	case '\'':
		s.quoted('\'', s.dialect == MySQL)
		return tokenString
	case '"':
		s.quoted('"', s.dialect == MySQL)
		return tokenQuoted
	case '`':
		if s.dialect != Postgres {
			s.quoted('`', false)
			return tokenQuoted
		}
	case '[':
		if s.dialect == SQLite {
			s.upTo("]")
			return tokenQuoted
		}
	case '$': // PostgreSQL only
		if s.dollar() {
			return tokenString
		}
	}
	return tokenOther
}

func (s *scanner) word() token {
	for s.pos < len(s.text) && classes[s.text[s.pos]]&classWord != 0 {
		s.pos++
	}
	// A string with backslashes: the E must touch the quote.
	if s.dialect == Postgres && s.pos == s.start+1 && s.text[s.start]|0x20 == 'e' && s.at('\'') {
		s.pos++
		s.quoted('\'', true)
		for s.continued() {
			s.quoted('\'', true)
		}
		return tokenString
	}
	return tokenWord
}

func (s *scanner) at(c byte) bool {
	return s.pos < len(s.text) && s.text[s.pos] == c
}

// blanks skips white space and comments.
func (s *scanner) blanks() {
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		if classes[c]&classBlank != 0 {
			s.pos++
			continue
		}
		rest := s.text[s.pos:]
		switch {
		case c == '-' && len(rest) > 1 && rest[1] == '-' && s.dashes(rest),
			c == '#' && s.dialect == MySQL:
			s.line()
		case c == '/' && len(rest) > 1 && rest[1] == '*':
			s.comment(rest)
		case c == '*' && s.executable > 0 && strings.HasPrefix(rest, "*/"):
			s.executable--
			s.pos += 2
		case c == 0xEF && s.dialect == SQLite && strings.HasPrefix(rest, "\uFEFF"):
			s.pos += 3
		default:
			return
		}
	}
}

// dashes reports whether the "--" at the start of rest begins a comment. MySQL wants a
// blank or a control character behind it.
func (s *scanner) dashes(rest string) bool {
	return s.dialect != MySQL || len(rest) == 2 || rest[2] <= ' ' || rest[2] == 0x7F
}

// line skips a comment up to the end of the line. Only PostgreSQL ends it at a carriage return too.
func (s *scanner) line() {
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		s.pos++
		if c == '\n' || c == '\r' && s.dialect == Postgres {
			return
		}
	}
}

// comment skips the comment at the start of rest, or only the opening of an executable one.
func (s *scanner) comment(rest string) {
	s.pos += 2
	if s.dialect == MySQL {
		opening := 0
		switch {
		case strings.HasPrefix(rest, "/*!"):
			opening = 3
		case strings.HasPrefix(rest, "/*M!"):
			opening = 4
		}
		if opening > 0 {
			s.pos += opening - 2
			for n := 0; n < 6 && s.pos < len(s.text) && s.text[s.pos] >= '0' && s.text[s.pos] <= '9'; n++ {
				s.pos++ // the version that it is for
			}
			s.executable++
			return
		}
	}
	for depth := 1; s.pos < len(s.text); {
		switch two := s.text[s.pos:min(s.pos+2, len(s.text))]; {
		case two == "*/":
			s.pos += 2
			if depth--; depth == 0 {
				return
			}
		case two == "/*" && s.dialect == Postgres:
			s.pos += 2
			depth++
		default:
			s.pos++
		}
	}
}

// quoted skips to behind the closing quote. A doubled quote is part of the text.
func (s *scanner) quoted(quote byte, backslash bool) {
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		s.pos++
		switch {
		case c == '\\' && backslash:
			if s.pos < len(s.text) {
				s.pos++
			}
		case c == quote:
			if !s.at(quote) {
				return
			}
			s.pos++
		}
	}
	s.open()
}

// continued reports whether a PostgreSQL string goes on in the next line, and moves behind the
// quote that continues it: such a part is read like the first one.
func (s *scanner) continued() bool {
	newline, pos := false, s.pos
	for pos < len(s.text) {
		switch c := s.text[pos]; {
		case classes[c]&classBlank != 0:
			newline = newline || c == '\n' || c == '\r'
			pos++
		case c == '-' && strings.HasPrefix(s.text[pos:], "--"):
			end := strings.IndexAny(s.text[pos:], "\r\n")
			if end < 0 {
				return false
			}
			pos += end
		case c == '\'' && newline:
			s.pos = pos + 1
			return true
		default:
			return false
		}
	}
	return false
}

// dollar skips a dollar-quoted string whose first $ has been read, if it is one.
func (s *scanner) dollar() bool {
	end := s.pos
	for end < len(s.text) && s.text[end] != '$' && classes[s.text[end]]&classWord != 0 {
		end++
	}
	if end == len(s.text) || s.text[end] != '$' || end > s.pos && s.text[s.pos] >= '0' && s.text[s.pos] <= '9' {
		return false // a parameter ($1), or nothing known
	}
	tag := s.text[s.start : end+1]
	s.pos = end + 1
	s.upTo(tag)
	return true
}

func (s *scanner) upTo(end string) {
	i := strings.Index(s.text[s.pos:], end)
	if i < 0 {
		s.pos = len(s.text)
		s.open()
		return
	}
	s.pos += i + len(end)
}

func (s *scanner) open() {
	s.unterminated = true
	s.exposed = s.executable > 0
}

// step is next within a statement: it returns tokenEnd at the semicolon that ends it, and from then on.
func (s *scanner) step() token {
	if s.done {
		return tokenEnd
	}
	t := s.next()
	if s.body != bodyNone {
		t = s.stepInBody(t)
	} else if t == tokenSemicolon {
		t = tokenEnd
	}
	s.done = t == tokenEnd
	return t
}

func (s *scanner) stepInBody(t token) token {
	if s.body == bodyTrigger {
		var w word
		switch t {
		case tokenSemicolon:
			if s.before == [2]word{wordSemicolon, wordEnd} {
				return tokenEnd
			}
			w = wordSemicolon
		case tokenWord:
			w = s.keyword()
		}
		s.before = [2]word{s.before[1], w}
		return t
	}
	switch t {
	case tokenOpen:
		if s.body == bodyParens {
			s.depth++
		}
	case tokenClose:
		if s.body == bodyParens && s.depth > 0 {
			s.depth--
		}
	case tokenWord:
		if s.body == bodyAtomic {
			s.countBlocks(s.keyword())
		}
	case tokenSemicolon:
		if s.depth == 0 {
			return tokenEnd
		}
	}
	return t
}

// countBlocks counts what an END can end in the body of a function in standard SQL.
func (s *scanner) countBlocks(w word) {
	switch {
	case w == wordAtomic && s.before[1] == wordBegin,
		w == wordCase && s.depth > 0:
		s.depth++
	case w == wordEnd && s.depth > 0:
		s.depth--
	}
	s.before[1] = w
}
