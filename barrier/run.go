package barrier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"
)

// A Beginner begins transactions: *sql.DB and *sql.Conn do.
type Beginner interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

const (
	// runAttempts bounds how often Run begins; deadlocks need two or three.
	runAttempts = 8
	// runPause is the longest pause before the second attempt; it doubles.
	runPause = 5 * time.Millisecond
)

// Run does the step once: it begins a transaction, enters, calls f if it is the first
// time, and commits. nil means that the step needs no further call: f's work is
// committed, by this call or an earlier one, or there is nothing to be done. f must do
// its work in tx and must not end it.
//
// An error of f rolls everything back, the barrier's rows too, and is returned as it
// is: the step may come again. So is any other error; if it is one of the commit, the
// work may be done all the same, and Run may simply be called again.
//
// f is called again, in a new transaction, if the database undid the first one because
// of a deadlock, a serialization failure or a busy file; eight times at most. The errors
// [ErrDuplicated] and [ErrRuledOut] come with op msg only.
func (t *Table) Run(ctx context.Context, db Beginner, s Step, f func(ctx context.Context, tx *sql.Tx) error) error {
	switch {
	case t == nil:
		return invalid("table: make it with NewTable")
	case isNil(db):
		return invalid("db is nil")
	case f == nil:
		return invalid("the function is nil")
	}
	return Attempts(ctx, func() error { return t.runOnce(ctx, db, s, f) })
}

func (t *Table) runOnce(ctx context.Context, db Beginner, s Step, f func(ctx context.Context, tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, t.options)
	if err != nil {
		return fmt.Errorf("barrier: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	v, err := t.Enter(ctx, tx, s)
	if err != nil {
		return err
	}
	switch v {
	case Repeat, Late:
		return nil
	case Proceed:
		if err := f(ctx, tx); err != nil {
			return err
		}
		if err := t.stillThere(ctx, tx, s); err != nil {
			return err
		}
	case Empty:
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("barrier: commit %v: %w", s, err)
	}
	return nil
}

// stillThere looks whether the transaction that entered is the one that is about to be
// committed. MySQL and MariaDB roll a whole transaction back because of a deadlock and
// then accept COMMIT; the others refuse it.
func (t *Table) stillThere(ctx context.Context, tx Tx, s Step) error {
	if t.dialect != MySQL {
		return nil
	}
	var gid, branch, op, reason string
	err := sqlSession{tx}.Row(ctx, t.sql.read, []any{s.GID, s.Branch, string(s.Op), s.barrierID()}, &gid, &branch, &op, &reason)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: %v", ErrLost, s)
	}
	return err
}

// Attempts calls once until it succeeds, or fails for another reason than that the
// database undid the transaction, which it says by its code, to let another one go
// on. It is what Run does; callers of [Table.Enter] may want the same.
func Attempts(ctx context.Context, once func() error) error {
	pause := runPause
	for n := 1; ; n++ {
		err := once()
		if err == nil || n == runAttempts || !undone(err) {
			return err
		}
		timer := time.NewTimer(rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
		pause *= 2
	}
}

// undone reports whether the database says that it undid the whole transaction, and
// that the same one may succeed now. Drivers' errors are known by their shape, since
// choosing a driver is the user's.
func undone(err error) bool {
	var state interface{ SQLState() string } // pgx, lib/pq
	if errors.As(err, &state) {
		switch state.SQLState() {
		case "40001", "40P01": // serialization_failure, deadlock_detected
			return true
		}
		return false
	}
	var code interface{ Code() int } // modernc.org/sqlite
	if errors.As(err, &code) {
		const busy, locked = 5, 6
		primary := code.Code() & 0xff
		return primary == busy || primary == locked
	}
	const deadlock, recordChanged = 1213, 1020
	number := mysqlNumber(err)
	return number == deadlock || number == recordChanged
}

// mysqlNumber is the error number of a *mysql.MySQLError in the tree of err, whose field
// has no method; 0 if there is none.
func mysqlNumber(err error) uint64 {
	if err == nil {
		return 0
	}
	if v := reflect.Indirect(reflect.ValueOf(err)); v.Kind() == reflect.Struct {
		if n := v.FieldByName("Number"); n.IsValid() && n.Kind() == reflect.Uint16 {
			return n.Uint()
		}
	}
	switch e := err.(type) { //nolint:errorlint // this walks the tree itself, as errors.As does
	case interface{ Unwrap() error }:
		return mysqlNumber(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, joined := range e.Unwrap() {
			if n := mysqlNumber(joined); n != 0 {
				return n
			}
		}
	}
	return 0
}
