package pgxtx

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// rows lets the session close a result set that the program left open when the
// transaction ends, and makes that safe while the program still reads it.
type rows struct {
	pgx.Rows
	s *session
}

func (r *rows) Next() bool {
	r.s.op.Lock()
	defer r.s.op.Unlock()
	if r.Rows.Next() {
		return true
	}
	r.close()
	return false
}

func (r *rows) Scan(dest ...any) error {
	r.s.op.Lock()
	defer r.s.op.Unlock()
	return r.Rows.Scan(dest...)
}

func (r *rows) Values() ([]any, error) {
	r.s.op.Lock()
	defer r.s.op.Unlock()
	return r.Rows.Values()
}

func (r *rows) Close() {
	r.s.op.Lock()
	defer r.s.op.Unlock()
	r.close()
}

func (r *rows) close() {
	r.Rows.Close()
	if err := r.Err(); err != nil && r.s.failure == nil {
		_ = r.s.note(err)
	}
	if r.s.open == (unlocked{r}) {
		r.s.open = nil
	}
}

// unlocked closes rows for whoever holds op.
type unlocked struct{ r *rows }

func (u unlocked) Close() { u.r.Rows.Close() }

// row is what QueryRow returns.
type row struct{ pgx.Rows }

func (r row) Scan(dest ...any) error {
	defer r.Close()
	if err := r.Err(); err != nil {
		return err
	}
	if !r.Next() {
		if err := r.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.Rows.Scan(dest...); err != nil {
		return err
	}
	r.Close()
	return r.Err()
}

// failedRows are the rows of a query that failed before it had any.
func failedRows(err error) pgx.Rows {
	r, _ := pgx.FailedBatchResults(new(pgx.Batch), err).Query() // pgx's own, with err in it
	return r
}

// results lets the session close a batch that the program left open.
type results struct {
	pgx.BatchResults
	s *session
}

func (r *results) Exec() (pgconn.CommandTag, error) {
	r.s.op.Lock()
	defer r.s.op.Unlock()
	tag, err := r.BatchResults.Exec()
	r.s.count(tag)
	return tag, err
}

func (r *results) Close() error {
	r.s.op.Lock()
	defer r.s.op.Unlock()
	return r.close()
}

func (r *results) close() error {
	err := r.BatchResults.Close()
	if err != nil && r.s.failure == nil {
		_ = r.s.note(err)
	}
	if r.s.open == (batchCloser{r}) {
		r.s.open = nil
	}
	return err
}

// batchCloser closes a batch for whoever holds op. The server carries a batch out
// whether or not its results are read.
type batchCloser struct{ r *results }

func (b batchCloser) Close() { _ = b.r.close() }
