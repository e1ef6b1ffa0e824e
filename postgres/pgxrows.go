package postgres

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/troth-tx/troth/internal/pgrm"
	"github.com/troth-tx/troth/internal/pinned"
)

// queryPgx joins BEGIN with a query. pgx's batches would choose other formats of
// results than its database/sql driver does, so the pipeline is our own; the
// values are the same (TestValuesAreThoseOfTheDriver).
func (s *session) queryPgx(ctx context.Context, conn *pgx.Conn, query string, named []driver.NamedValue) (driver.Rows, error) {
	args := values(named)
	known := pgrm.StatementsOf(conn)
	if known.Unnamed() || !pgrm.Joinable(args) || query == "" {
		return nil, pinned.ErrNotJoined
	}
	sds, err := known.Describe(ctx, query)
	if err != nil {
		return nil, err
	}
	sd := sds[0]
	if len(sd.Fields) == 0 {
		return nil, pinned.ErrNotJoined // what does not return rows is rare here
	}
	var eqb pgx.ExtendedQueryBuilder
	if err := eqb.Build(conn.TypeMap(), sd, args); err != nil {
		return nil, err
	}
	for i, f := range sd.Fields {
		eqb.ResultFormats[i] = pgtype.TextFormatCode
		if binary(f.DataTypeOID) {
			eqb.ResultFormats[i] = pgtype.BinaryFormatCode
		}
	}
	p := conn.PgConn().StartPipeline(ctx)
	parts := pgrm.Parts(s.begin)
	for _, text := range parts {
		p.SendQueryParams(text, nil, nil, nil, nil)
	}
	p.SendQueryStatement(sd, eqb.ParamValues, eqb.ParamFormats, eqb.ResultFormats)
	r := &pgxRows{pipeline: p, typeMap: conn.TypeMap()}
	if err := r.open(len(parts)); err != nil {
		known.Forget(query)
		return nil, err
	}
	return r, nil
}

// pgxRows are the rows of a joined query, as pgx's database/sql driver gives them.
type pgxRows struct {
	pipeline *pgconn.Pipeline
	reader   *pgconn.ResultReader
	typeMap  *pgtype.Map
	fields   []pgconn.FieldDescription
	convert  []func(src []byte) (driver.Value, error)
	first    bool // the first row is read and not handed out
	more     bool
	closed   bool
	err      error
}

var (
	_ driver.RowsColumnTypeDatabaseTypeName = (*pgxRows)(nil)
	_ driver.RowsColumnTypeLength           = (*pgxRows)(nil)
	_ driver.RowsColumnTypePrecisionScale   = (*pgxRows)(nil)
	_ driver.RowsColumnTypeScanType         = (*pgxRows)(nil)
)

// open sends what is queued, skips the answers of BEGIN, and reads the first row:
// errors of the query are to come from the query.
func (r *pgxRows) open(skip int) error {
	err := r.pipeline.Sync()
	for i := 0; i <= skip && err == nil; i++ {
		var res any
		if res, err = r.pipeline.GetResults(); err != nil {
			break
		}
		reader, ok := res.(*pgconn.ResultReader)
		if !ok {
			err = fmt.Errorf("the pipeline answered with %T", res)
			break
		}
		if i < skip {
			_, err = reader.Close()
		}
		r.reader = reader
	}
	if err == nil {
		r.fields = append(r.fields, r.reader.FieldDescriptions()...) // the reader's own are used again
		r.first, r.more = true, r.reader.NextRow()
		if !r.more {
			_, err = r.reader.Close()
		}
	}
	if err != nil {
		_ = r.pipeline.Close() // it repeats the error
	}
	return err
}

func (r *pgxRows) Columns() []string {
	names := make([]string, len(r.fields))
	for i, f := range r.fields {
		names[i] = f.Name
	}
	return names
}

func (r *pgxRows) Close() error {
	if r.closed {
		return r.err
	}
	r.closed = true
	_, r.err = r.reader.Close()
	if err := r.pipeline.Close(); r.err == nil {
		r.err = err
	}
	return r.err
}

func (r *pgxRows) Next(dest []driver.Value) error {
	if !r.first {
		r.more = !r.closed && r.reader.NextRow()
	}
	r.first = false
	if !r.more {
		if err := r.Close(); err != nil {
			return err
		}
		return io.EOF
	}
	if r.convert == nil {
		r.convert = make([]func([]byte) (driver.Value, error), len(r.fields))
		for i, f := range r.fields {
			r.convert[i] = converter(r.typeMap, f)
		}
	}
	for i, src := range r.reader.Values() {
		dest[i] = nil
		if src == nil {
			continue
		}
		var err error
		if dest[i], err = r.convert[i](src); err != nil {
			return fmt.Errorf("convert field %d failed: %w", i, err)
		}
	}
	return nil
}

// binary reports whether the driver asks for the type in binary.
func binary(oid uint32) bool {
	switch oid {
	case pgtype.BoolOID, pgtype.ByteaOID, pgtype.CIDOID, pgtype.DateOID, pgtype.Float4OID, pgtype.Float8OID,
		pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.XIDOID:
		return true
	}
	return false
}

func converter(m *pgtype.Map, f pgconn.FieldDescription) func([]byte) (driver.Value, error) {
	switch f.DataTypeOID {
	case pgtype.BoolOID:
		return plain(m, f, func(v bool) driver.Value { return v })
	case pgtype.ByteaOID, pgtype.JSONOID, pgtype.JSONBOID, pgtype.XMLOID:
		return plain(m, f, func(v []byte) driver.Value { return v })
	case pgtype.Float4OID:
		return plain(m, f, func(v float32) driver.Value { return float64(v) })
	case pgtype.Float8OID:
		return plain(m, f, func(v float64) driver.Value { return v })
	case pgtype.Int2OID:
		return plain(m, f, func(v int16) driver.Value { return int64(v) })
	case pgtype.Int4OID:
		return plain(m, f, func(v int32) driver.Value { return int64(v) })
	case pgtype.Int8OID:
		return plain(m, f, func(v int64) driver.Value { return v })
	case pgtype.CIDOID, pgtype.OIDOID, pgtype.XIDOID:
		return valuer[pgtype.Uint32](m, f)
	case pgtype.DateOID:
		return valuer[pgtype.Date](m, f)
	case pgtype.TimestampOID:
		return valuer[pgtype.Timestamp](m, f)
	case pgtype.TimestamptzOID:
		return valuer[pgtype.Timestamptz](m, f)
	default:
		return plain(m, f, func(v string) driver.Value { return v })
	}
}

func plain[T any](m *pgtype.Map, f pgconn.FieldDescription, value func(T) driver.Value) func([]byte) (driver.Value, error) {
	var v T
	plan := m.PlanScan(f.DataTypeOID, f.Format, &v)
	return func(src []byte) (driver.Value, error) {
		var v T
		err := plan.Scan(src, &v)
		return value(v), err
	}
}

func valuer[T driver.Valuer](m *pgtype.Map, f pgconn.FieldDescription) func([]byte) (driver.Value, error) {
	var v T
	plan := m.PlanScan(f.DataTypeOID, f.Format, &v)
	return func(src []byte) (driver.Value, error) {
		var v T
		if err := plan.Scan(src, &v); err != nil {
			return nil, err
		}
		return v.Value()
	}
}

func (r *pgxRows) ColumnTypeDatabaseTypeName(i int) string {
	if t, ok := r.typeMap.TypeForOID(r.fields[i].DataTypeOID); ok {
		return strings.ToUpper(t.Name)
	}
	return strconv.FormatInt(int64(r.fields[i].DataTypeOID), 10)
}

const modifierHeader = 4 // what type modifiers count too much

func (r *pgxRows) ColumnTypeLength(i int) (int64, bool) {
	f := r.fields[i]
	switch f.DataTypeOID {
	case pgtype.TextOID, pgtype.ByteaOID:
		return math.MaxInt64, true
	case pgtype.VarcharOID, pgtype.BPCharOID:
		return int64(f.TypeModifier - modifierHeader), true
	case pgtype.VarbitOID:
		return int64(f.TypeModifier), true
	}
	return 0, false
}

func (r *pgxRows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	f := r.fields[i]
	if f.DataTypeOID != pgtype.NumericOID {
		return 0, 0, false
	}
	m := f.TypeModifier - modifierHeader
	return int64(m >> 16 & 0xffff), int64(m & 0xffff), true
}

func (r *pgxRows) ColumnTypeScanType(i int) reflect.Type {
	switch r.fields[i].DataTypeOID {
	case pgtype.Float8OID, pgtype.NumericOID:
		return reflect.TypeFor[float64]()
	case pgtype.Float4OID:
		return reflect.TypeFor[float32]()
	case pgtype.Int8OID:
		return reflect.TypeFor[int64]()
	case pgtype.Int4OID:
		return reflect.TypeFor[int32]()
	case pgtype.Int2OID:
		return reflect.TypeFor[int16]()
	case pgtype.BoolOID:
		return reflect.TypeFor[bool]()
	case pgtype.DateOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return reflect.TypeFor[time.Time]()
	case pgtype.ByteaOID:
		return reflect.TypeFor[[]byte]()
	}
	return reflect.TypeFor[string]()
}
