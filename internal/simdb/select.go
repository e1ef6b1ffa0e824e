package simdb

import (
	"slices"
	"strconv"
)

// A selectQuery is a SELECT of one relation, or of none.
type selectQuery struct {
	items []item
	star  bool
	group bool // an item is an aggregate
	from  *source
	order []ordering
	limit expr
	lock  bool // FOR UPDATE
}

type item struct {
	x     expr
	title string
}

type ordering struct {
	x    expr
	desc bool
}

// A source is a table with a condition.
type source struct {
	table tableName
	alias string
	where expr
	and   []expr // the parts of where that must all hold
}

func (p *parser) selectStatement() statement {
	return p.query()
}

// query reads what stands behind SELECT.
func (p *parser) query() *selectQuery {
	q := &selectQuery{}
	for p.err == nil {
		if p.op("*") {
			q.star = true
		} else {
			x := p.expression()
			it := item{x: x, title: title(x)}
			if p.words("AS") {
				it.title = p.name()
			}
			q.group = q.group || aggregated(x)
			q.items = append(q.items, it)
		}
		if !p.op(",") {
			break
		}
	}
	if p.words("FROM") {
		q.from = &source{table: p.tableName()}
		if p.op("(") { // a function that returns rows
			p.mustOp(")")
		}
		if p.words("AS") || p.peek().kind == tokenWord && !p.isWord("WHERE") && !p.isWord("ORDER") && !p.isWord("LIMIT") &&
			!p.isWord("FOR") && !p.isWord("ON") && !p.isWord("LOCK") {
			q.from.alias = p.name()
		}
		if q.from.table.name == "dual" && p.kind == MariaDB {
			q.from = nil
		}
	}
	if p.words("WHERE") {
		if q.from == nil {
			q.from = &source{}
		}
		p.where(q.from)
	}
	if p.words("ORDER", "BY") {
		for {
			o := ordering{x: p.expression()}
			o.desc = p.words("DESC")
			_ = p.words("ASC")
			q.order = append(q.order, o)
			if !p.op(",") {
				break
			}
		}
	}
	if p.words("LIMIT") {
		q.limit = p.expression()
	}
	if p.words("FOR", "UPDATE") {
		q.lock = true
	}
	return q
}

// where reads a condition.
func (p *parser) where(s *source) {
	s.where = p.expression()
	s.and = splitAnd(nil, s.where)
}

// aggregated reports whether an expression is computed over all rows.
func aggregated(x expr) bool {
	switch x := x.(type) {
	case *funcCall:
		if _, ok := aggregates[x.name]; ok {
			return true
		}
		return slices.ContainsFunc(x.args, aggregated)
	case *cast:
		return aggregated(x.x)
	case *arithmetic:
		return aggregated(x.left) || aggregated(x.right)
	}
	return false
}

func (q *selectQuery) start(c *call) (activity, error) {
	if !q.lock || q.from == nil {
		return action(func(c *call) (Result, error) {
			found, names, err := q.read(c, nil)
			if err != nil {
				return Result{}, err
			}
			return q.result(c, found, names)
		}), nil
	}
	if q.group || len(q.order) > 0 || q.limit != nil {
		return nil, c.s.srv.unknown(c, "FOR UPDATE with more than a condition")
	}
	scan, err := c.scan(q.from)
	if err != nil {
		return nil, err
	}
	return &lockingRead{q: q, scan: scan}, nil
}

// unknown refuses what was read but cannot be carried out.
func (srv *Server) unknown(c *call, why string) error {
	text := c.s.last
	srv.refused = append(srv.refused, text)
	return &UnknownError{Kind: srv.kind, Text: text, Near: text, Why: why}
}

// lockingRead is a SELECT ... FOR UPDATE under way.
type lockingRead struct {
	q    *selectQuery
	scan *scan
	rows [][]any
}

func (l *lockingRead) step(c *call) (Result, error) {
	for {
		r, vals, err := l.scan.next(c)
		if err != nil {
			return Result{}, err
		}
		if r == nil {
			return l.q.result(c, l.rows, l.scan.table.names)
		}
		l.rows = append(l.rows, vals)
	}
}

// rows evaluates a subquery.
func (q *selectQuery) rows(c *call, outer *env) ([][]any, error) {
	found, names, err := q.read(c, outer)
	if err != nil {
		return nil, err
	}
	res, err := q.project(c, found, names, outer)
	return res, err
}

// read finds the rows of the source that meet the condition; one empty row if
// there is no source.
func (q *selectQuery) read(c *call, outer *env) (found [][]any, names []string, err error) {
	e := env{c: c, outer: outer}
	if q.from == nil || q.from.table.name == "" {
		if q.from != nil {
			v, err := q.from.where.eval(&e)
			if err != nil || !truth(v) {
				return nil, nil, err
			}
		}
		return [][]any{{}}, nil, nil
	}
	e.alias = q.from.name()
	if t := c.s.srv.find(q.from.table); t != nil {
		e.names = t.names
		found, err = c.readTable(t, q.from, &e)
		return found, t.names, err
	}
	names, all, ok, err := c.eng().relation(c, q.from.table)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return nil, nil, c.eng().mistake(mistakeTable, q.from.table.name)
	}
	e.names = names
	for _, vals := range all {
		e.row = vals
		if ok, err := q.from.meets(&e); err != nil {
			return nil, nil, err
		} else if ok {
			found = append(found, vals)
		}
	}
	return found, names, nil
}

func (s *source) name() string {
	if s.alias != "" {
		return s.alias
	}
	return s.table.name
}

func (s *source) meets(e *env) (bool, error) {
	if s.where == nil {
		return true, nil
	}
	v, err := s.where.eval(e)
	return truth(v), err
}

// readTable is a plain read: it waits for nobody.
func (c *call) readTable(t *table, s *source, e *env) ([][]any, error) {
	tx := c.s.tx
	var snapshot uint64
	if tx != nil && c.eng().snapshot(tx) {
		tx.takeSnapshot()
		snapshot = tx.seen
	}
	candidates, err := c.candidates(t, s)
	if err != nil {
		return nil, err
	}
	var found [][]any
	for _, r := range candidates {
		if e.row = r.visible(tx, snapshot); e.row == nil {
			continue
		}
		ok, err := s.meets(e)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, e.row)
		}
	}
	return found, nil
}

// result is the answer to the client.
func (q *selectQuery) result(c *call, found [][]any, names []string) (Result, error) {
	rows, err := q.project(c, found, names, nil)
	if err != nil {
		return Result{}, err
	}
	res := Result{Tag: "SELECT " + strconv.Itoa(len(rows)), Rows: rows, Affected: int64(len(rows))}
	if q.star {
		res.Columns = append(res.Columns, names...)
	}
	for _, it := range q.items {
		res.Columns = append(res.Columns, it.title)
	}
	return res, nil
}

// project computes the columns of the result: sorted, limited.
func (q *selectQuery) project(c *call, found [][]any, names []string, outer *env) ([][]any, error) {
	e := env{c: c, names: names, outer: outer}
	if q.from != nil {
		e.alias = q.from.name()
	}
	if err := q.sort(&e, found); err != nil {
		return nil, err
	}
	if q.group {
		e.group = found
		if found == nil {
			e.group = [][]any{}
		}
		row, err := q.columns(&e)
		return [][]any{row}, err
	}
	limit := int64(len(found))
	if q.limit != nil {
		v, err := q.limit.eval(&e)
		if err != nil {
			return nil, err
		}
		if n, ok := toInt(v); ok {
			limit = min(limit, n)
		}
	}
	out := make([][]any, 0, limit)
	for _, e.row = range found[:limit] {
		row, err := q.columns(&e)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

func (q *selectQuery) columns(e *env) ([]any, error) {
	row := make([]any, 0, len(q.items))
	if q.star {
		row = append(row, e.row...)
	}
	for _, it := range q.items {
		v, err := it.x.eval(e)
		if err != nil {
			return nil, err
		}
		row = append(row, v)
	}
	return row, nil
}

// sort orders rows. An ordering by number is one by a result's column.
func (q *selectQuery) sort(e *env, found [][]any) error {
	if len(q.order) == 0 {
		return nil
	}
	inner := *e
	var failed error
	value := func(row []any, x expr) any {
		if l, ok := x.(literal); ok {
			if n, ok := l.v.(int64); ok && n >= 1 && int(n) <= len(q.items) {
				x = q.items[n-1].x
			}
		}
		inner.row = row
		v, err := x.eval(&inner)
		if err != nil {
			failed = err
		}
		return v
	}
	slices.SortStableFunc(found, func(a, b []any) int {
		for _, o := range q.order {
			x, y := value(a, o.x), value(b, o.x)
			if x == nil || y == nil {
				continue
			}
			if order, _ := compare(x, y); order != 0 {
				if o.desc {
					return -order
				}
				return order
			}
		}
		return 0
	})
	return failed
}
