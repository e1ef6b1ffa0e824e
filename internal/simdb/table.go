package simdb

import (
	"slices"
	"strings"
)

// A table keeps its rows by primary key.
type table struct {
	srv     *Server
	name    string
	names   []string // of the columns
	columns []columnDef
	key     []int // columns of the primary key; none: rows are numbered
	checks  []expr

	rows    map[string]*row
	sorted  []*row // by key
	counter int64  // of rows without a primary key

	locks []*recLock // MariaDB: in the order in which they were asked for
	end   *row       // MariaDB: stands for the end of the table
}

type columnDef struct {
	name     string
	kind     castType
	length   int // of a text, 0 if it is not limited
	notNull  bool
	fallback expr // DEFAULT; nil if there is none
}

// A row is a key of a table: it may have values, locks, or be waited for.
type row struct {
	table *table
	key   string

	// now is what the transaction that changed the row sees, if there is one
	// (dirty); was is what is committed, and at is when it was. nil: no row.
	now, was []any
	dirty    *txn
	at       uint64
	life     uint64    // counts insertions: a row inserted anew is another one
	wasLife  uint64    // of what is committed
	old      []version // newest last, as far as a snapshot needs them

	marked uint64 // MariaDB: the commit that deleted it, until it is purged; 0 if none did

	locks []lock
	queue []*Session // who waits for a lock, in order
}

type version struct {
	at   uint64
	vals []any
}

// row finds or makes the row of a key.
func (t *table) row(key string) *row {
	if r := t.rows[key]; r != nil {
		return r
	}
	r := &row{table: t, key: key}
	t.rows[key] = r
	i, _ := slices.BinarySearchFunc(t.sorted, key, func(r *row, key string) int { return strings.Compare(r.key, key) })
	t.sorted = slices.Insert(t.sorted, i, r)
	return r
}

// tidy forgets a row of which nothing is left.
func (r *row) tidy() {
	if r.table.srv.snapshots == 0 {
		r.old = nil
	}
	if r.now != nil || r.was != nil || r.dirty != nil || len(r.locks) > 0 || len(r.queue) > 0 || len(r.old) > 0 || r.marked != 0 {
		return
	}
	t := r.table
	if t.rows[r.key] != r {
		return
	}
	delete(t.rows, r.key)
	i, _ := slices.BinarySearchFunc(t.sorted, r.key, func(r *row, key string) int { return strings.Compare(r.key, key) })
	t.sorted = slices.Delete(t.sorted, i, i+1)
}

// keyOf is the key of a row with these values.
func (t *table) keyOf(vals []any) string {
	var buf [64]byte
	key := buf[:0]
	if len(t.key) == 0 {
		t.counter++
		return string(appendKey(key, t.counter))
	}
	for _, i := range t.key {
		key = appendKey(key, vals[i])
	}
	return string(key)
}

func (t *table) column(name string) int { return slices.Index(t.names, name) }

// visible is what a transaction sees of a row: its own change, or what is
// committed, or was at the time of its snapshot (0: it has none).
func (r *row) visible(tx *txn, snapshot uint64) []any {
	switch {
	case r.dirty != nil && r.dirty == tx:
		return r.now
	case snapshot == 0 || r.at <= snapshot:
		return r.was
	}
	for i := len(r.old) - 1; i >= 0; i-- {
		if r.old[i].at <= snapshot {
			return r.old[i].vals
		}
	}
	return nil
}

// conform makes values fit their columns, or says what is wrong with them.
func (t *table) conform(c *call, vals []any) error {
	for i := range t.columns {
		def := &t.columns[i]
		if vals[i] == nil {
			if def.notNull {
				return c.eng().mistake(mistakeNull, def.name)
			}
			continue
		}
		ok := true
		switch def.kind {
		case castInt:
			vals[i], ok = toInt(vals[i])
		case castText:
			vals[i], ok = toString(vals[i])
			if s, _ := vals[i].(string); def.length > 0 && len(s) > def.length {
				return c.eng().mistake(mistakeLong, def.name)
			}
		case castFloat:
			vals[i], ok = toFloat(vals[i])
		case castBool:
			vals[i] = truth(vals[i])
		case castTime:
			vals[i], ok = toTime(vals[i])
		}
		if !ok {
			return c.eng().mistake(mistakeType, def.name)
		}
	}
	for _, check := range t.checks {
		v, err := check.eval(&env{c: c, names: t.names, row: vals})
		if err != nil {
			return err
		}
		if v != nil && !truth(v) {
			return c.eng().mistake(mistakeCheck, t.name)
		}
	}
	return nil
}
