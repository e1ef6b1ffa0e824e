package simdb

import (
	"strconv"
)

// expression reads one, loosest operator first.
func (p *parser) expression() expr {
	x := p.conjunction()
	for p.words("OR") {
		x = &logical{left: x, right: p.conjunction(), or: true}
	}
	return x
}

func (p *parser) conjunction() expr {
	x := p.negation()
	for p.words("AND") {
		x = &logical{left: x, right: p.negation()}
	}
	return x
}

func (p *parser) negation() expr {
	if p.words("NOT") {
		return &not{p.negation()}
	}
	return p.comparison()
}

func (p *parser) comparison() expr {
	x := p.sum()
	for {
		switch {
		case p.words("IS", "NOT", "NULL"):
			x = &isNull{x: x, not: true}
		case p.words("IS", "NULL"):
			x = &isNull{x: x}
		case p.words("NOT", "IN"):
			x = &not{p.in(x)}
		case p.words("IN"):
			x = p.in(x)
		default:
			t := p.peek()
			if t.kind != tokenOp {
				return x
			}
			switch t.text {
			case "=", "<", ">", "<=", ">=", "<>", "!=":
				p.i++
				x = &comparison{op: t.text, left: x, right: p.sum()}
			default:
				return x
			}
		}
	}
}

func (p *parser) in(x expr) expr {
	p.mustOp("(")
	in := &inList{x: x}
	for {
		in.list = append(in.list, p.expression())
		if !p.op(",") {
			break
		}
	}
	p.mustOp(")")
	return in
}

func (p *parser) sum() expr {
	x := p.product()
	for {
		t := p.peek()
		if t.kind != tokenOp || t.text != "+" && t.text != "-" && t.text != "||" {
			return x
		}
		p.i++
		x = &arithmetic{op: t.text[0], left: x, right: p.product()}
	}
}

func (p *parser) product() expr {
	x := p.factor()
	for {
		t := p.peek()
		if t.kind != tokenOp || t.text != "*" && t.text != "/" {
			return x
		}
		p.i++
		x = &arithmetic{op: t.text[0], left: x, right: p.factor()}
	}
}

// factor is an operand with casts behind it.
func (p *parser) factor() expr {
	if p.op("-") {
		return &arithmetic{op: '-', left: literal{int64(0)}, right: p.factor()}
	}
	x := p.operand()
	for p.op("::") {
		x = p.castTo(x)
	}
	return x
}

func (p *parser) operand() expr {
	switch t := p.take(); t.kind {
	case tokenText:
		return literal{t.text}
	case tokenNumber:
		return p.number(t.text)
	case tokenParam:
		return p.param(t.text)
	case tokenOp:
		switch t.text {
		case "(":
			if p.isWord("SELECT") {
				return &subquery{query: p.subselect()}
			}
			x := p.expression()
			p.mustOp(")")
			return x
		case "@@":
			return p.variable()
		}
	case tokenWord, tokenQuoted:
		p.i--
		return p.named()
	case tokenEnd:
	}
	p.i = max(p.i-1, 0)
	p.fail("expected an expression")
	return literal{}
}

func (p *parser) subselect() *selectQuery {
	p.mustWords("SELECT")
	q := p.query()
	p.mustOp(")")
	return q
}

func (p *parser) number(text string) expr {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return literal{n}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		p.fail("expected a number")
	}
	return literal{f}
}

func (p *parser) param(text string) expr {
	if text == "" {
		p.marks++
		return param{p.marks - 1}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		p.fail("expected a placeholder")
	}
	return param{n - 1}
}

// variable reads what stands behind "@@".
func (p *parser) variable() expr {
	name := p.name()
	if p.op(".") {
		name = p.name()
	}
	return &variable{name}
}

// named is an expression that begins with a word.
func (p *parser) named() expr {
	if p.peek().kind == tokenWord {
		if x := p.keyword(); x != nil || p.err != nil {
			return x
		}
	}
	name := p.name()
	qualifier := ""
	if p.op(".") {
		qualifier, name = name, p.name()
	}
	if !p.isOp("(") {
		return &column{qualifier: qualifier, name: name}
	}
	f := p.eng.function(name)
	if f == nil {
		f = commonFunctions[name]
	}
	if f == nil {
		p.fail("unknown function " + name)
		return literal{}
	}
	p.i++
	call := &funcCall{name: name, run: f}
	for !p.op(")") && p.err == nil {
		if at := p.i; p.tokens[at].kind == tokenWord && p.tokens[min(at+1, len(p.tokens)-1)].text == "=>" {
			p.i += 2 // a named argument; none of our functions has two of them
		}
		if p.op("*") {
			call.args = append(call.args, literal{int64(1)}) // count(*)
		} else {
			call.args = append(call.args, p.expression())
		}
		if !p.isOp(")") {
			p.mustOp(",")
		}
	}
	return call
}

// keyword reads what begins with a keyword; nil if the next word is none.
func (p *parser) keyword() expr {
	switch {
	case p.words("NULL"):
		return literal{nil}
	case p.words("TRUE"):
		return literal{true}
	case p.words("FALSE"):
		return literal{false}
	case p.words("EXISTS"):
		p.mustOp("(")
		return &subquery{query: p.subselect(), exists: true}
	case p.words("CASE"):
		return p.caseOf()
	case p.words("CAST"):
		p.mustOp("(")
		x := p.expression()
		p.mustWords("AS")
		x = p.castTo(x)
		p.mustOp(")")
		return x
	case p.words("EXTRACT"):
		p.mustOp("(")
		p.mustWords("EPOCH", "FROM")
		x := &epoch{p.expression()}
		p.mustOp(")")
		return x
	case p.words("POSITION"):
		p.mustOp("(")
		part := p.sum()
		p.mustWords("IN")
		whole := p.sum()
		p.mustOp(")")
		return &funcCall{name: "position", run: position, args: []expr{part, whole}}
	}
	return p.eng.special(p)
}

func (p *parser) caseOf() expr {
	c := &caseExpr{}
	if !p.isWord("WHEN") {
		c.of = p.expression()
	}
	for p.words("WHEN") {
		when := p.expression()
		p.mustWords("THEN")
		c.when = append(c.when, when)
		c.then = append(c.then, p.expression())
	}
	if p.words("ELSE") {
		c.otherwise = p.expression()
	}
	p.mustWords("END")
	return c
}

// castTo reads a type and makes the cast.
func (p *parser) castTo(x expr) expr {
	name := p.typeName()
	to, ok := castTypes[name]
	if !ok {
		p.fail("unknown type " + name)
	}
	return &cast{x: x, to: to}
}

// typeName reads the name of a type without its length.
func (p *parser) typeName() string {
	name := p.name()
	if name == "double" && p.words("PRECISION") || name == "timestamp" && p.words("WITH", "TIME", "ZONE") {
		return name
	}
	return name
}

// length reads "(n)" or "(n, m)" behind a type, 0 if there is none.
func (p *parser) length() int {
	if !p.op("(") {
		return 0
	}
	n, err := strconv.Atoi(p.take().text)
	if err != nil {
		p.fail("expected a length")
	}
	if p.op(",") {
		p.take()
	}
	p.mustOp(")")
	return n
}

// title is the name of a result's column.
func title(x expr) string {
	switch x := x.(type) {
	case *column:
		return x.name
	case *funcCall:
		return x.name
	case *cast:
		return title(x.x)
	case *subquery:
		if x.exists {
			return "exists"
		}
		return title(x.query.items[0].x)
	case *variable:
		return "@@" + x.name
	}
	return "?column?"
}

// splitAnd lists the conditions that are joined with AND.
func splitAnd(list []expr, x expr) []expr {
	if l, ok := x.(*logical); ok && !l.or {
		return splitAnd(splitAnd(list, l.left), l.right)
	}
	return append(list, x)
}

var castTypes = map[string]castType{
	"int": castInt, "int4": castInt, "int8": castInt, "bigint": castInt, "integer": castInt, "signed": castInt,
	"text": castText, "varchar": castText, "char": castText, "name": castText,
	"float8": castFloat, "double": castFloat, "numeric": castFloat,
	"xid": castText, "xid8": castText, "bool": castBool, "boolean": castBool,
	"timestamptz": castTime,
}
