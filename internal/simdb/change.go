package simdb

import (
	"slices"
	"strconv"
)

// A scan walks over rows to lock them: first it finds those that meet a condition,
// as the statement's beginning shows them; then it takes each of them in turn and
// looks again, for the row may have changed while the scan waited.
type scan struct {
	table  *table
	source *source
	rows   []*row
	lives  []uint64 // of the rows, when they were found
	ranged bool     // it does not name the keys (MariaDB)
	i      int
}

// scan begins a scan.
func (c *call) scan(s *source) (*scan, error) {
	t := c.s.srv.find(s.table)
	if t == nil {
		return nil, c.eng().mistake(mistakeTable, s.table.name)
	}
	candidates, err := c.candidates(t, s)
	if err != nil {
		return nil, err
	}
	sc := &scan{table: t, source: s}
	if c.eng().locksAll() {
		sc.rows = candidates
		return sc, nil
	}
	e := env{c: c, names: t.names, alias: s.name()}
	var snapshot uint64
	if tx := c.s.tx; tx != nil && c.eng().snapshot(tx) {
		tx.takeSnapshot()
		snapshot = tx.seen
	}
	for _, r := range candidates {
		if e.row = r.visible(c.s.tx, snapshot); e.row == nil {
			continue
		}
		ok, err := s.meets(&e)
		if err != nil {
			return nil, err
		}
		if ok {
			sc.rows = append(sc.rows, r)
			life := r.wasLife
			if r.dirty == c.s.tx {
				life = r.life
			}
			sc.lives = append(sc.lives, life)
		}
	}
	return sc, nil
}

// next locks the next row that meets the condition and returns it with its values,
// nil at the end.
func (sc *scan) next(c *call) (*row, []any, error) {
	for ; sc.i < len(sc.rows); sc.i++ {
		r := sc.rows[sc.i]
		if sc.lives != nil && r.life != sc.lives[sc.i] && r.dirty == nil && !c.s.tx.isolated {
			c.s.stopWaiting()
			continue // deleted, and inserted anew
		}
		if sc.lives != nil && r.now == nil && r.was == nil && !c.s.tx.isolated {
			c.s.stopWaiting()
			continue // deleted
		}
		if err := c.eng().lockRow(c, r); err != nil {
			return nil, nil, err
		}
		vals := r.visible(c.s.tx, 0)
		if vals == nil {
			continue
		}
		e := env{c: c, names: sc.table.names, alias: sc.source.name(), row: vals}
		ok, err := sc.source.meets(&e)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			sc.i++
			return r, vals, nil
		}
	}
	return nil, nil, nil
}

// candidates are the rows of a table that may meet the condition: those of the
// keys that it names, or all.
func (c *call) candidates(t *table, s *source) ([]*row, error) {
	keys, named, err := c.keysNamed(t, s)
	if err != nil || !named {
		return slices.Clone(t.sorted), err
	}
	var list []*row
	for _, key := range keys {
		if r := t.rows[key]; r != nil {
			list = append(list, r)
		} else if c.eng().locksAll() {
			list = append(list, t.row(key)) // a key that is missing can be locked
		}
	}
	return list, nil
}

// keysNamed finds out which keys a condition names. named is false if it does not
// name all columns of the key, with values that are known without a row.
func (c *call) keysNamed(t *table, s *source) (keys []string, named bool, err error) {
	if len(t.key) == 0 || len(s.and) == 0 {
		return nil, false, nil
	}
	var buf [64]byte
	key := buf[:0]
	for i, col := range t.key {
		values := valuesNamed(s.and, t.names[col])
		if values == nil || len(values) > 1 && (len(t.key) > 1 || i > 0) {
			return nil, false, nil
		}
		for _, x := range values {
			v, err := x.eval(&env{c: c})
			if err != nil {
				return nil, false, err
			}
			if v, err = t.asColumn(c, col, v); err != nil {
				return nil, false, err
			}
			if v == nil {
				continue
			}
			if len(values) > 1 || len(t.key) == 1 {
				keys = append(keys, string(appendKey(buf[:0], v)))
			}
			key = appendKey(key, v)
		}
	}
	if len(t.key) > 1 {
		keys = append(keys, string(key))
	}
	slices.Sort(keys)
	return slices.Compact(keys), true, nil
}

// valuesNamed finds "name = value" or "name IN (values)" among conditions.
func valuesNamed(and []expr, name string) []expr {
	for _, x := range and {
		switch x := x.(type) {
		case *comparison:
			if col, ok := x.left.(*column); ok && x.op == "=" && col.name == name && constant(x.right) {
				return []expr{x.right}
			}
		case *inList:
			if col, ok := x.x.(*column); ok && col.name == name && !slices.ContainsFunc(x.list, func(x expr) bool { return !constant(x) }) {
				return x.list
			}
		}
	}
	return nil
}

// constant reports whether an expression is known without a row.
func constant(x expr) bool {
	switch x := x.(type) {
	case literal, param:
		return true
	case *cast:
		return constant(x.x)
	case *arithmetic:
		return constant(x.left) && constant(x.right)
	}
	return false
}

// asColumn gives a value the type of a column, as comparing with it does.
func (t *table) asColumn(c *call, col int, v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	ok := true
	switch t.columns[col].kind {
	case castInt:
		v, ok = toInt(v)
	case castText:
		v, ok = toString(v)
	case castFloat, castBool, castTime:
	}
	if !ok {
		return nil, c.eng().mistake(mistakeType, t.names[col])
	}
	return v, nil
}

// updateStatement is UPDATE t SET column = expression, ... WHERE ...
type updateStatement struct {
	from source
	sets []set
}

type set struct {
	column string
	x      expr
}

func (p *parser) updateStatement() statement {
	u := &updateStatement{from: source{table: p.tableName()}}
	p.mustWords("SET")
	for {
		name := p.name()
		p.mustOp("=")
		u.sets = append(u.sets, set{name, p.expression()})
		if !p.op(",") {
			break
		}
	}
	if p.words("WHERE") {
		p.where(&u.from)
	}
	return u
}

func (u *updateStatement) start(c *call) (activity, error) {
	sc, err := c.scan(&u.from)
	if err != nil {
		return nil, err
	}
	cols := make([]int, len(u.sets))
	for i, s := range u.sets {
		if cols[i] = sc.table.column(s.column); cols[i] < 0 {
			return nil, c.eng().mistake(mistakeColumn, s.column)
		}
		if slices.Contains(sc.table.key, cols[i]) {
			return nil, c.s.srv.unknown(c, "UPDATE of a key")
		}
	}
	return &updating{u: u, scan: sc, cols: cols}, nil
}

type updating struct {
	u    *updateStatement
	scan *scan
	cols []int
	n    int64
}

func (u *updating) step(c *call) (Result, error) {
	for {
		r, vals, err := u.scan.next(c)
		if err != nil {
			return Result{}, err
		}
		if r == nil {
			return Result{Tag: "UPDATE " + strconv.FormatInt(u.n, 10), Affected: u.n}, nil
		}
		e := env{c: c, names: u.scan.table.names, alias: u.scan.source.name(), row: vals}
		next := slices.Clone(vals)
		for i, s := range u.u.sets {
			if next[u.cols[i]], err = s.x.eval(&e); err != nil {
				return Result{}, err
			}
		}
		if err := u.scan.table.conform(c, next); err != nil {
			return Result{}, err
		}
		c.s.tx.put(r, next)
		if c.eng().countsFound() || !slices.Equal(vals, next) {
			u.n++
		}
	}
}

// deleteStatement is DELETE FROM t WHERE ...
type deleteStatement struct{ from source }

func (p *parser) deleteStatement() statement {
	p.mustWords("FROM")
	d := &deleteStatement{source{table: p.tableName()}}
	if p.words("WHERE") {
		p.where(&d.from)
	}
	return d
}

func (d *deleteStatement) start(c *call) (activity, error) {
	sc, err := c.scan(&d.from)
	return &deleting{scan: sc}, err
}

type deleting struct {
	scan *scan
	n    int64
}

func (d *deleting) step(c *call) (Result, error) {
	for {
		r, _, err := d.scan.next(c)
		if err != nil {
			return Result{}, err
		}
		if r == nil {
			return Result{Tag: "DELETE " + strconv.FormatInt(d.n, 10), Affected: d.n}, nil
		}
		c.s.tx.put(r, nil)
		d.n++
	}
}
