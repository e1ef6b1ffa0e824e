package pgxtx

import (
	"context"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/troth-tx/troth/internal/pgrm"
	"github.com/troth-tx/troth/internal/pinned"
)

// savepointPrefix begins the names of our savepoints.
const savepointPrefix = "troth_sp_"

// ErrManaged is returned by Commit and Rollback of the Tx that [Resource.Tx] gives.
var ErrManaged = errors.New("pgxtx: the transaction manager ends this transaction: return nil from the function to commit, " +
	"an error to roll back (troth.Tx.Commit, troth.Tx.Rollback in the explicit form)")

// branchTx is the branch as a pgx.Tx, or a savepoint in it.
type branchTx struct {
	s      *session
	name   string // of the savepoint; "" is the branch itself
	closed bool   // the savepoint is over
}

var _ pgx.Tx = (*branchTx)(nil)

func (t *branchTx) use() error {
	if t.closed {
		return pgx.ErrTxClosed
	}
	return t.s.use()
}

// Begin sets a savepoint.
func (t *branchTx) Begin(ctx context.Context) (pgx.Tx, error) {
	s := t.s
	if err := t.use(); err != nil {
		return nil, err
	}
	defer s.op.Unlock()
	s.names++
	name := savepointPrefix + strconv.Itoa(s.names)
	if _, err := s.exec(ctx, "SAVEPOINT "+name, nil); err != nil {
		return nil, err
	}
	return &branchTx{s: s, name: name}, nil
}

// Commit keeps the work done since the savepoint, as part of the branch. On the
// branch itself it is refused.
func (t *branchTx) Commit(ctx context.Context) error {
	return t.end(ctx, "RELEASE SAVEPOINT "+t.name)
}

// Rollback undoes the work done since the savepoint, and its errors. On the
// branch itself it is refused, unless the transaction has ended: then it answers
// pgx.ErrTxClosed, so that a deferred Rollback does no harm.
func (t *branchTx) Rollback(ctx context.Context) error {
	return t.end(ctx, "ROLLBACK TO SAVEPOINT "+t.name+"; RELEASE SAVEPOINT "+t.name)
}

func (t *branchTx) end(ctx context.Context, text string) error {
	if t.name == "" {
		return t.s.refuseEnd()
	}
	if err := t.use(); err != nil {
		return err
	}
	defer t.s.op.Unlock()
	t.closed = true
	t.s.closeOpen()
	_, err := t.s.exec(ctx, text, nil)
	return err
}

func (s *session) refuseEnd() error {
	s.op.Lock()
	defer s.op.Unlock()
	if s.sealed != nil || s.pooled == nil {
		return pgx.ErrTxClosed
	}
	return ErrManaged
}

func (t *branchTx) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	s := t.s
	if err := t.use(); err != nil {
		return pgconn.CommandTag{}, err
	}
	defer s.op.Unlock()
	return s.exec(ctx, query, args)
}

// exec is for whoever holds op.
func (s *session) exec(ctx context.Context, query string, args []any) (tag pgconn.CommandTag, err error) {
	if err := s.look(query); err != nil {
		return tag, err // nothing was sent: the branch is as it was
	}
	if !s.started && pgrm.Joinable(args) {
		s.started = true
		tag, err = pgrm.ExecJoined(ctx, s.conn, s.begin, query, args)
	} else if err = s.start(ctx); err == nil {
		tag, err = s.conn.Exec(ctx, query, args...)
	}
	if err != nil {
		return tag, s.note(err)
	}
	s.saved(query)
	s.count(tag)
	return tag, nil
}

func (t *branchTx) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	s := t.s
	err := t.use()
	if err != nil {
		return failedRows(err), err
	}
	defer s.op.Unlock()
	if err := s.look(query); err != nil {
		return failedRows(err), err
	}
	var r pgx.Rows
	if !s.started && pgrm.Joinable(args) {
		s.started = true
		r, err = pgrm.QueryJoined(ctx, s.conn, s.begin, query, args)
	} else if err = s.start(ctx); err == nil {
		r, err = s.conn.Query(ctx, query, args...)
	}
	if err != nil {
		err = s.note(err)
		return failedRows(err), err
	}
	w := &rows{Rows: r, s: s}
	s.open = unlocked{w}
	return w, nil
}

func (t *branchTx) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	r, _ := t.Query(ctx, query, args...) // the rows have the error
	return row{r}
}

func (t *branchTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	s := t.s
	if err := t.use(); err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	defer s.op.Unlock()
	for _, q := range b.QueuedQueries {
		if err := s.look(q.SQL); err != nil {
			return pgx.FailedBatchResults(b, err)
		}
	}
	var br pgx.BatchResults
	if s.started {
		br = s.conn.SendBatch(ctx, b)
	} else {
		s.started = true
		br = pgrm.SendBatchJoined(ctx, s.conn, s.begin, b)
	}
	w := &results{BatchResults: br, s: s}
	s.open = batchCloser{w}
	return w
}

func (t *branchTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource) (int64, error) {
	s := t.s
	if err := t.use(); err != nil {
		return 0, err
	}
	defer s.op.Unlock()
	if err := s.start(ctx); err != nil {
		return 0, err
	}
	n, err := s.conn.CopyFrom(ctx, table, columns, src)
	if n > 0 {
		s.wrote = pinned.ChangeYes
	}
	return n, s.note(err)
}

func (t *branchTx) Prepare(ctx context.Context, name, query string) (*pgconn.StatementDescription, error) {
	s := t.s
	if err := t.use(); err != nil {
		return nil, err
	}
	defer s.op.Unlock()
	if err := s.look(query); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	sd, err := s.conn.Prepare(ctx, name, query)
	return sd, s.note(err)
}

// LargeObjects begins the branch if need be: its methods use the connection
// directly.
func (t *branchTx) LargeObjects() pgx.LargeObjects {
	s := t.s
	if err := t.use(); err == nil {
		defer s.op.Unlock()
		if s.start(s.ctx) == nil {
			// An empty query begins nothing: pgx only needs a Tx of its own kind.
			if tx, err := s.conn.BeginTx(s.ctx, pgx.TxOptions{BeginQuery: "-- joins the branch"}); err == nil {
				s.wrote = max(s.wrote, pinned.ChangeMaybe)
				return tx.LargeObjects()
			}
		}
	}
	b := new(pgx.Batch)
	b.BeginTx(pgx.TxOptions{})
	return pgx.FailedBatchResults(b, pgx.ErrTxClosed).Tx().LargeObjects()
}

// Conn is explained at [Resource.Tx]. The branch is begun on it; if that fails
// the connection is closed, so that no statement runs outside the branch.
func (t *branchTx) Conn() *pgx.Conn {
	s := t.s
	if err := t.use(); err == nil {
		defer s.op.Unlock()
		s.wrote = max(s.wrote, pinned.ChangeMaybe)
		if s.start(s.ctx) != nil {
			_ = s.conn.Close(s.ctx) // Failed reports it
		}
	}
	return s.conn
}
