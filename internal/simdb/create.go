package simdb

import "strings"

// createStatement is CREATE TABLE [IF NOT EXISTS] t (...)
type createStatement struct {
	name     tableName
	ifAbsent bool
	columns  []columnDef
	key      []string
	checks   []expr
}

func (p *parser) createStatement() statement {
	p.mustWords("TABLE")
	ct := &createStatement{}
	ct.ifAbsent = p.words("IF", "NOT", "EXISTS")
	ct.name = p.tableName()
	p.mustOp("(")
	for p.err == nil {
		switch {
		case p.words("PRIMARY", "KEY"):
			ct.key = p.names()
		case p.words("CHECK"):
			ct.checks = append(ct.checks, p.expression())
		default:
			ct.columns = append(ct.columns, p.columnDef(ct))
		}
		if !p.op(",") {
			break
		}
	}
	p.mustOp(")")
	p.tableOptions()
	if len(ct.columns) > 60 {
		p.fail("too many columns")
	}
	return ct
}

// columnDef reads a column.
func (p *parser) columnDef(ct *createStatement) columnDef {
	def := columnDef{name: p.name()}
	kind, ok := columnTypes[p.typeName()]
	if !ok {
		p.i--
		p.fail("unknown type of a column")
	}
	def.kind = kind
	n := p.length()
	if kind == castText {
		def.length = n
	}
	for p.err == nil {
		switch {
		case p.words("PRIMARY", "KEY"):
			def.notNull = true
			ct.key = []string{def.name}
		case p.words("NOT", "NULL"):
			def.notNull = true
		case p.words("NULL"):
		case p.words("COLLATE"):
			if c := strings.ToLower(p.take().text); c != "c" && c != "binary" && !strings.HasSuffix(c, "_bin") {
				p.i--
				p.fail("a collation that does not compare byte for byte")
			}
		case p.words("CHARACTER", "SET"):
			p.take()
		case p.words("DEFAULT"):
			def.fallback = p.sum()
		case p.words("CHECK"):
			ct.checks = append(ct.checks, p.factor())
		default:
			return def
		}
	}
	return def
}

// tableOptions reads what stands behind the columns.
func (p *parser) tableOptions() {
	for p.err == nil {
		switch {
		case p.kind == MariaDB && p.words("ENGINE"):
			p.mustOp("=")
			p.mustWords("INNODB")
		case p.kind == MariaDB && p.words("DEFAULT", "CHARACTER", "SET"), p.kind == MariaDB && p.words("COLLATE"):
			p.take()
		case p.kind == SQLite && (p.words("STRICT") || p.words("WITHOUT", "ROWID")):
			_ = p.op(",")
		default:
			return
		}
	}
}

var columnTypes = map[string]castType{
	"int": castInt, "integer": castInt, "bigint": castInt, "smallint": castInt, "int8": castInt, "int4": castInt,
	"text": castText, "varchar": castText, "char": castText,
	"double": castFloat, "float8": castFloat, "real": castFloat,
	"bool": castBool, "boolean": castBool,
	"timestamptz": castTime, "datetime": castTime, "timestamp": castTime,
}

// start creates the table at once: the simulation's DDL is no part of a
// transaction, so engines keep it out of them.
func (ct *createStatement) start(c *call) (activity, error) {
	return action(func(c *call) (Result, error) {
		srv := c.s.srv
		if ct.name.schema != "" && ct.name.schema != srv.eng.schema() {
			return Result{}, c.eng().mistake(mistakeTable, ct.name.schema)
		}
		res := Result{Tag: "CREATE TABLE"}
		if srv.tables[ct.name.name] != nil {
			if ct.ifAbsent {
				return res, nil
			}
			return Result{}, c.eng().mistake(mistakeTableExists, ct.name.name)
		}
		t := &table{srv: srv, name: ct.name.name, columns: append([]columnDef(nil), ct.columns...), checks: ct.checks, rows: map[string]*row{}}
		for _, def := range t.columns {
			t.names = append(t.names, def.name)
		}
		for _, name := range ct.key {
			i := t.column(name)
			if i < 0 {
				return Result{}, c.eng().mistake(mistakeColumn, name)
			}
			t.columns[i].notNull = true
			t.key = append(t.key, i)
		}
		srv.tables[t.name] = t
		return res, nil
	}), nil
}
