package pinned

import (
	"bytes"
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"reflect"
	"sync/atomic"
)

// A rows is a result set of the session. It streams, until another statement
// needs the session: then what is left of it is read into memory (detached).
//
//	streaming            dr set, sets empty; s.open is this
//	partly in memory     dr set, sets hold what was read before BufferLimit was met; s.open is this
//	detached             dr nil, sets hold the rest; needs the session no more
//	closed, shut         dr nil
//
// Its fields are guarded by the turn while s.open is this, and belong to the reader afterwards.
type rows struct {
	s       *Session
	c       *conn
	ctx     context.Context //nolint:containedctx // the statement's: the driver reads under it, too
	dr      driver.Rows
	end     func()   // of the statement's bounded context
	columns []string // of the set that is being read
	read    bool     // dr is at the end of a set
	failure error    // met in reading

	detached atomic.Bool
	sets     []resultSet // the first is being read
	reason   error       // why it can be read no more
}

// A resultSet is what is left of a result set, in memory.
type resultSet struct {
	columns []string
	types   []columnType
	rows    [][]driver.Value
	err     error // instead of the end
}

type columnType struct {
	scan                              reflect.Type
	database                          string
	length, precision, scale          int64
	hasLength, nullable, hasNull, dec bool
}

var (
	_ driver.RowsNextResultSet              = (*rows)(nil)
	_ driver.RowsColumnTypeScanType         = (*rows)(nil)
	_ driver.RowsColumnTypeDatabaseTypeName = (*rows)(nil)
	_ driver.RowsColumnTypeLength           = (*rows)(nil)
	_ driver.RowsColumnTypeNullable         = (*rows)(nil)
	_ driver.RowsColumnTypePrecisionScale   = (*rows)(nil)
)

// stream wraps the driver's rows. The caller has the turn.
func (s *Session) stream(c *conn, ctx context.Context, dr driver.Rows, end func()) *rows { //nolint:revive // ctx is data here
	r := &rows{s: s, c: c, ctx: ctx, dr: dr, end: end, columns: dr.Columns()}
	s.open = r
	return r
}

func (r *rows) Columns() []string { return r.columns }

func (r *rows) Next(dest []driver.Value) error {
	if r.detached.Load() {
		return r.nextInMemory(dest)
	}
	if err := r.s.wait(r.ctx, r.c); err != nil {
		return err
	}
	defer r.s.leave()
	switch {
	case r.reason != nil:
		return r.reason
	case r.detached.Load(), len(r.sets) > 1, len(r.sets) == 1 && len(r.sets[0].rows) > 0:
		return r.nextInMemory(dest)
	case r.dr == nil, r.read:
		return io.EOF
	}
	return r.nextStreaming(dest)
}

// nextStreaming reads a row from the session. The caller has the turn.
func (r *rows) nextStreaming(dest []driver.Value) error {
	end, err := r.answered(r.dr.Next(dest))
	if end {
		r.read = true
		return io.EOF
	}
	return err
}

// answered puts an error of the driver's Next or NextResultSet on record, unless it is the end. As
// in database/sql that is io.EOF itself: wrapped, it may be a connection that broke.
func (r *rows) answered(err error) (end bool, failure error) {
	switch err {
	case nil:
		return false, nil
	case io.EOF: //nolint:errorlint // see above
		return true, nil
	}
	r.failure = r.s.statementFailed(r.c, err, true)
	return false, r.failure
}

func (r *rows) nextInMemory(dest []driver.Value) error {
	if r.s.wasSealed.Load() {
		return r.s.sealReason()
	}
	set := &r.sets[0]
	if len(set.rows) == 0 {
		if set.err != nil {
			return set.err
		}
		return io.EOF
	}
	row := set.rows[0]
	set.rows[0] = nil
	set.rows = set.rows[1:]
	r.s.buffered.Add(-size(row))
	copy(dest, row)
	return nil
}

func (r *rows) HasNextResultSet() bool {
	if !r.detached.Load() {
		r.s.turn <- struct{}{}
		defer r.s.leave()
	}
	return len(r.sets) > 1 || r.dr != nil && hasNext(r.dr)
}

func hasNext(dr driver.Rows) bool {
	n, ok := dr.(driver.RowsNextResultSet)
	return ok && n.HasNextResultSet()
}

func (r *rows) NextResultSet() error {
	if !r.detached.Load() {
		if err := r.s.wait(r.ctx, r.c); err != nil {
			return err
		}
		defer r.s.leave()
	}
	switch {
	case r.reason != nil:
		return r.reason
	case len(r.sets) > 1:
		r.sets[0].free(r.s)
		r.sets = r.sets[1:]
		r.columns = r.sets[0].columns
		return nil
	case len(r.sets) == 1 && r.sets[0].err != nil:
		return r.sets[0].err
	case r.dr == nil:
		return io.EOF
	}
	return r.nextSetStreaming()
}

func (r *rows) nextSetStreaming() error {
	n, ok := r.dr.(driver.RowsNextResultSet)
	if !ok {
		return io.EOF
	}
	end, err := r.answered(n.NextResultSet())
	switch {
	case end:
		return io.EOF
	case err != nil:
		return err
	}
	r.freeAll()
	r.sets, r.read, r.columns = nil, false, r.dr.Columns()
	return nil
}

// Close gives the session free. Cut short by its context, the result counts as failed.
func (r *rows) Close() error {
	if !r.detached.Load() {
		r.s.turn <- struct{}{}
		defer r.s.leave()
	}
	r.freeAll()
	r.sets = []resultSet{{}}
	if r.dr == nil {
		return nil
	}
	if !r.read && r.failure == nil && r.ctx.Err() != nil {
		_ = r.s.failIn(r.c, r.ctx.Err())
	}
	return r.closeDriver()
}

// closeDriver closes the driver's rows. The caller has the turn.
func (r *rows) closeDriver() error {
	s := r.s
	err := r.dr.Close()
	r.end()
	r.dr = nil
	s.open = nil
	switch {
	case err != nil:
		return s.statementFailed(r.c, err, false)
	case r.failure != nil:
		s.noticeLoss(r.failure, false) // the driver can be asked again
	}
	return nil
}

// shut takes the rows from their reader, who gets reason from now on. The caller has the turn.
func (r *rows) shut(reason error) {
	r.reason = reason
	_ = r.closeDriver() // an error is on record
}

// detach frees the session from the result set that streams from it, for another
// statement. If that is too large for the memory it stays as it is. The caller has the turn.
func (s *Session) detach() error {
	r := s.open
	if r == nil {
		return nil
	}
	if len(r.sets) == 0 {
		r.sets = []resultSet{{columns: r.columns, types: typesOf(r.dr, len(r.columns))}}
	}
	if err := r.readOn(); err != nil {
		return err
	}
	_ = r.closeDriver() // an error is on record
	r.detached.Store(true)
	return nil
}

// readOn reads all that is left of the result sets. It fails only at the limit.
func (r *rows) readOn() error {
	for {
		set := &r.sets[len(r.sets)-1]
		for !r.read && r.failure == nil {
			if r.s.buffered.Load() > BufferLimit {
				return fmt.Errorf("troth: resource %s: a result set is still open, and larger than the %d MiB that are read into memory "+
					"so that another statement can run: read or close it first", r.s.cfg.Resource, BufferLimit>>20)
			}
			row := make([]driver.Value, len(set.columns))
			if err := r.nextStreaming(row); err != nil {
				break // the end, or a failure: both are noted
			}
			for i, v := range row {
				if b, ok := v.([]byte); ok {
					row[i] = bytes.Clone(b) // the driver's buffer
				}
			}
			r.s.buffered.Add(size(row))
			set.rows = append(set.rows, row)
		}
		if r.failure != nil {
			set.err = r.failure
			return nil
		}
		if !hasNext(r.dr) {
			return nil
		}
		end, err := r.answered(r.dr.(driver.RowsNextResultSet).NextResultSet())
		if end || err != nil {
			set.err = err
			return nil
		}
		r.read = false
		columns := r.dr.Columns()
		r.sets = append(r.sets, resultSet{columns: columns, types: typesOf(r.dr, len(columns))})
	}
}

func (r *rows) freeAll() {
	for i := range r.sets {
		r.sets[i].free(r.s)
	}
}

func (set *resultSet) free(s *Session) {
	for _, row := range set.rows {
		s.buffered.Add(-size(row))
	}
	set.rows = nil
}

// size is about what a row takes in memory.
func size(row []driver.Value) int64 {
	n := int64(24 + 16*len(row))
	for _, v := range row {
		switch v := v.(type) {
		case []byte:
			n += int64(len(v)) + 24
		case string:
			n += int64(len(v)) + 16
		default:
			n += 8
		}
	}
	return n
}

// typesOf asks the driver about the columns; what it cannot say is as database/sql has it.
func typesOf(dr driver.Rows, n int) []columnType {
	types := make([]columnType, n)
	for i := range types {
		types[i] = typeOf(dr, i)
	}
	return types
}

func typeOf(dr driver.Rows, i int) columnType {
	t := columnType{scan: reflect.TypeFor[any]()}
	if p, ok := dr.(driver.RowsColumnTypeScanType); ok {
		t.scan = p.ColumnTypeScanType(i)
	}
	if p, ok := dr.(driver.RowsColumnTypeDatabaseTypeName); ok {
		t.database = p.ColumnTypeDatabaseTypeName(i)
	}
	if p, ok := dr.(driver.RowsColumnTypeLength); ok {
		t.length, t.hasLength = p.ColumnTypeLength(i)
	}
	if p, ok := dr.(driver.RowsColumnTypeNullable); ok {
		t.nullable, t.hasNull = p.ColumnTypeNullable(i)
	}
	if p, ok := dr.(driver.RowsColumnTypePrecisionScale); ok {
		t.precision, t.scale, t.dec = p.ColumnTypePrecisionScale(i)
	}
	return t
}

// columnType tells of column i of the set that is being read.
func (r *rows) columnType(i int) columnType {
	if !r.detached.Load() {
		r.s.turn <- struct{}{}
		defer r.s.leave()
	}
	switch {
	case len(r.sets) > 0 && i < len(r.sets[0].types):
		return r.sets[0].types[i]
	case r.dr != nil:
		return typeOf(r.dr, i)
	}
	return columnType{scan: reflect.TypeFor[any]()}
}

func (r *rows) ColumnTypeScanType(i int) reflect.Type { return r.columnType(i).scan }

func (r *rows) ColumnTypeDatabaseTypeName(i int) string { return r.columnType(i).database }

func (r *rows) ColumnTypeLength(i int) (length int64, ok bool) {
	t := r.columnType(i)
	return t.length, t.hasLength
}

func (r *rows) ColumnTypeNullable(i int) (nullable, ok bool) {
	t := r.columnType(i)
	return t.nullable, t.hasNull
}

func (r *rows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	t := r.columnType(i)
	return t.precision, t.scale, t.dec
}
