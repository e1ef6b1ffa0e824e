package simdb

import (
	"fmt"
	"strings"
)

// A parser reads one text. Its first error stays, and moves it to the end of the
// text: so no caller needs to look for errors in between.
type parser struct {
	kind   Kind
	eng    engine
	text   string
	tokens []token
	i      int
	err    error
	marks  int // "?" seen so far
}

// An UnknownError says that the simulation does not know a text: it is not a
// failure of the simulated server, but a gap in the simulation. Nothing of the
// text was carried out.
type UnknownError struct {
	Kind Kind
	Text string
	Near string // where reading stopped
	Why  string
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("simdb: %v: %s near %.40q in the statement %q", e.Kind, e.Why, e.Near, e.Text)
}

// parse reads a text of statements separated by semicolons.
func parse(kind Kind, eng engine, text string) ([]statement, error) {
	if st := eng.whole(text); st != nil {
		return []statement{st}, nil
	}
	p := parser{kind: kind, eng: eng, text: text, tokens: make([]token, 0, 2+len(text)/4)}
	var ok bool
	if p.tokens, ok = tokenize(p.tokens, kind, text); !ok {
		p.tokens = append(p.tokens, token{kind: tokenEnd, at: len(text)})
		p.fail("unreadable text")
		return nil, p.err
	}
	var list []statement
	for p.err == nil {
		for p.op(";") {
		}
		if p.peek().kind == tokenEnd {
			break
		}
		st := p.statement()
		if p.err == nil && p.peek().kind != tokenEnd && !p.isOp(";") {
			p.fail("unexpected text")
		}
		list = append(list, st)
	}
	return list, p.err
}

// statement reads one: the engine's own first, then those of the common language.
func (p *parser) statement() statement {
	word := strings.ToUpper(p.name())
	if st := p.eng.statement(p, word); st != nil || p.err != nil {
		return st
	}
	switch word {
	case "SELECT":
		return p.selectStatement()
	case "INSERT":
		return p.insertStatement()
	case "UPDATE":
		return p.updateStatement()
	case "DELETE":
		return p.deleteStatement()
	case "CREATE":
		return p.createStatement()
	}
	p.i--
	p.fail("unknown statement")
	return nil
}

func (p *parser) fail(why string) {
	if p.err == nil {
		p.err = &UnknownError{Kind: p.kind, Text: p.text, Near: p.text[p.peek().at:], Why: why}
	}
	p.i = len(p.tokens) - 1
}

func (p *parser) peek() token { return p.tokens[p.i] }

func (p *parser) take() token {
	t := p.tokens[p.i]
	if p.i < len(p.tokens)-1 {
		p.i++
	}
	return t
}

func (p *parser) isOp(op string) bool {
	t := &p.tokens[p.i]
	return t.kind == tokenOp && t.text == op
}

// op takes an operator if it is next.
func (p *parser) op(op string) bool {
	ok := p.isOp(op)
	if ok {
		p.i++
	}
	return ok
}

func (p *parser) isWord(word string) bool {
	t := &p.tokens[p.i]
	return t.kind == tokenWord && len(t.text) == len(word) && strings.EqualFold(t.text, word)
}

// words takes keywords if all of them are next.
func (p *parser) words(words ...string) bool {
	at := p.i
	for _, w := range words {
		if !p.isWord(w) {
			p.i = at
			return false
		}
		p.i++
	}
	return true
}

func (p *parser) mustOp(op string) {
	if !p.op(op) {
		p.fail("expected " + op)
	}
}

func (p *parser) mustWords(words ...string) {
	if !p.words(words...) {
		p.fail("expected " + strings.Join(words, " "))
	}
}

// name takes an identifier: in lower case unless it is quoted.
func (p *parser) name() string {
	switch t := p.peek(); t.kind {
	case tokenWord:
		p.i++
		return strings.ToLower(t.text) // allocates only if there is something to change
	case tokenQuoted:
		p.i++
		return t.text
	case tokenEnd, tokenText, tokenNumber, tokenParam, tokenOp:
	}
	p.fail("expected a name")
	return ""
}

// literal takes a string literal.
func (p *parser) literal() string {
	if p.peek().kind != tokenText {
		p.fail("expected a literal")
		return ""
	}
	return p.take().text
}

// A tableName may have a schema.
type tableName struct{ schema, name string }

func (p *parser) tableName() tableName {
	n := tableName{name: p.name()}
	if p.op(".") {
		n.schema, n.name = n.name, p.name()
	}
	return n
}

// names reads a list of names in parentheses.
func (p *parser) names() []string {
	p.mustOp("(")
	list := []string{p.name()}
	for p.op(",") {
		list = append(list, p.name())
	}
	p.mustOp(")")
	return list
}
