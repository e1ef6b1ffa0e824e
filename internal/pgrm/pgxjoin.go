package pgrm

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What follows joins BEGIN with a branch's first statement in one round trip of
// a pgx connection. Statements with arguments go through pgx's own batch, so that
// its cache of prepared statements, its types and its modes are those of every
// other statement.

// ExecJoined is conn.Exec behind begin. The caller has asked Joinable.
func ExecJoined(ctx context.Context, conn *pgx.Conn, begin, query string, args []any) (pgconn.CommandTag, error) {
	if len(args) > 0 {
		br := SendBatchJoined(ctx, conn, begin, &pgx.Batch{QueuedQueries: []*pgx.QueuedQuery{{SQL: query, Arguments: args}}})
		tag, err := br.Exec()
		if closeErr := br.Close(); err == nil {
			err = closeErr
		}
		return tag, err
	}
	// Without arguments pgx uses the simple protocol too.
	var tag pgconn.CommandTag
	results := conn.PgConn().Exec(ctx, begin+"; "+query)
	for results.NextResult() {
		var err error
		if tag, err = results.ResultReader().Close(); err != nil {
			break
		}
	}
	return tag, shifted(results.Close(), len(begin)+2) // begin is ASCII
}

// shifted corrects the place of a syntax error in a text that had n characters in
// front of it.
func shifted(err error, n int) error {
	var e *pgconn.PgError
	if errors.As(err, &e) && int(e.Position) > n {
		e.Position -= int32(n)
	}
	return err
}

// QueryJoined is conn.Query behind begin.
func QueryJoined(ctx context.Context, conn *pgx.Conn, begin, query string, args []any) (pgx.Rows, error) {
	br := SendBatchJoined(ctx, conn, begin, &pgx.Batch{QueuedQueries: []*pgx.QueuedQuery{{SQL: query, Arguments: args}}})
	rows, err := br.Query()
	if err != nil {
		_ = br.Close() // it repeats the error
		return rows, err
	}
	return &joinedRows{Rows: rows, batch: br}, nil
}

// joinedRows ends the batch with the rows.
type joinedRows struct {
	pgx.Rows
	batch pgx.BatchResults
	err   error
}

func (r *joinedRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *joinedRows) Close() {
	r.Rows.Close()
	if err := r.batch.Close(); r.err == nil {
		r.err = err
	}
}

func (r *joinedRows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}

// SendBatchJoined is conn.SendBatch behind begin.
func SendBatchJoined(ctx context.Context, conn *pgx.Conn, begin string, b *pgx.Batch) pgx.BatchResults {
	joined := &pgx.Batch{QueuedQueries: make([]*pgx.QueuedQuery, 0, len(b.QueuedQueries)+2)}
	n := 0
	for _, text := range Parts(begin) {
		joined.Queue(text)
		n++
	}
	joined.QueuedQueries = append(joined.QueuedQueries, b.QueuedQueries...)
	br := conn.SendBatch(ctx, joined)
	for range n {
		if _, err := br.Exec(); err != nil {
			break // every further result has the same error
		}
	}
	return br
}

// Joinable reports whether the arguments are such that a batch treats them as
// Conn.Exec and Conn.Query do: options of pgx are not.
func Joinable(args []any) bool {
	if len(args) == 0 {
		return true
	}
	switch args[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID, pgx.QueryRewriter:
		return false
	}
	return true
}
