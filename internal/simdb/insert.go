package simdb

import "strconv"

// insertStatement is INSERT INTO t (columns) VALUES (...), ... or SELECT ...
type insertStatement struct {
	into    tableName
	columns []string // nil: all
	values  [][]expr
	query   *selectQuery
	nothing bool // ON CONFLICT (key) DO NOTHING
}

func (p *parser) insertStatement() statement {
	p.mustWords("INTO")
	in := &insertStatement{into: p.tableName()}
	if p.isOp("(") {
		in.columns = p.names()
	}
	if p.words("SELECT") {
		in.query = p.query()
	} else {
		p.mustWords("VALUES")
		for {
			p.mustOp("(")
			row := []expr{p.expression()}
			for p.op(",") {
				row = append(row, p.expression())
			}
			p.mustOp(")")
			in.values = append(in.values, row)
			if !p.op(",") {
				break
			}
		}
	}
	if p.kind != MariaDB && p.words("ON", "CONFLICT") {
		if p.isOp("(") {
			p.names() // there are no other unique keys than the primary one
		}
		p.mustWords("DO", "NOTHING")
		in.nothing = true
	}
	return in
}

// start evaluates the rows: what they are made of is read now, however long the
// insertion waits.
func (in *insertStatement) start(c *call) (activity, error) {
	t := c.s.srv.find(in.into)
	if t == nil {
		return nil, c.eng().mistake(mistakeTable, in.into.name)
	}
	columns := make([]int, 0, len(t.names))
	for i := range t.names {
		if in.columns == nil {
			columns = append(columns, i)
		}
	}
	for _, name := range in.columns {
		i := t.column(name)
		if i < 0 {
			return nil, c.eng().mistake(mistakeColumn, name)
		}
		columns = append(columns, i)
	}
	given, err := in.given(c)
	if err != nil {
		return nil, err
	}
	run := &inserting{in: in, table: t}
	for _, vals := range given {
		row, err := t.filled(c, columns, vals)
		if err != nil {
			return nil, err
		}
		run.rows = append(run.rows, row)
	}
	return run, nil
}

func (in *insertStatement) given(c *call) ([][]any, error) {
	if in.query != nil {
		return in.query.rows(c, nil)
	}
	e := env{c: c}
	list := make([][]any, len(in.values))
	for i, xs := range in.values {
		list[i] = make([]any, len(xs))
		for j, x := range xs {
			var err error
			if list[i][j], err = x.eval(&e); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

// filled is a row with the values of some columns, and the defaults of the others.
func (t *table) filled(c *call, columns []int, vals []any) ([]any, error) {
	if len(vals) != len(columns) {
		return nil, c.eng().mistake(mistakeArguments, "INSERT has more or fewer values than columns")
	}
	row := make([]any, len(t.names))
	given := 0
	for i, col := range columns {
		row[col] = vals[i]
		given |= 1 << col
	}
	for i := range t.columns {
		if x := t.columns[i].fallback; x != nil && given&(1<<i) == 0 {
			var err error
			if row[i], err = x.eval(&env{c: c}); err != nil {
				return nil, err
			}
		}
	}
	return row, t.conform(c, row)
}

// inserting is an INSERT under way.
type inserting struct {
	in    *insertStatement
	table *table
	rows  [][]any
	keys  []string // of the rows, as far as they are known
	i     int
	asked int // the row before which others might have gone first
	n     int64
}

func (run *inserting) step(c *call) (Result, error) {
	for ; run.i < len(run.rows); run.i++ {
		if yield := c.s.srv.yield; yield != nil && run.i > run.asked {
			if run.asked = run.i; yield() {
				return Result{}, errBlocked
			}
		}
		vals := run.rows[run.i]
		if len(run.keys) == run.i { // a row without a primary key gets its number once
			run.keys = append(run.keys, run.table.keyOf(vals))
		}
		if !run.in.nothing {
			c.eng().numbered(c)
		}
		r := run.table.row(run.keys[run.i])
		taken, err := c.eng().claim(c, r)
		if err != nil {
			return Result{}, err
		}
		if taken {
			r.tidy()
			if run.in.nothing {
				continue
			}
			return Result{}, c.eng().duplicate(run.table, r.key)
		}
		c.s.tx.put(run.table.row(r.key), vals)
		run.n++
	}
	return Result{Tag: "INSERT 0 " + strconv.FormatInt(run.n, 10), Affected: run.n}, nil
}
