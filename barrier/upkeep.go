package barrier

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"
)

// SQL returns the statements that make the table, for migrations. They do nothing to a
// table that is there.
func (t *Table) SQL() []string { return slices.Clone(t.sql.ddl) }

const (
	createAttempts = 5
	createPause    = 20 * time.Millisecond
)

// Create makes the table, its schema included, unless they are there. Several processes
// may do so at once. It needs the right to make tables; Run and Enter do with SELECT
// and INSERT.
func (t *Table) Create(ctx context.Context, db Tx) error { return t.On(sqlSession{db}).Create(ctx) }

// Create is [Table.Create].
func (b Bound) Create(ctx context.Context) error {
	if err := b.usable(); err != nil {
		return err
	}
	for _, query := range b.table.sql.ddl {
		// IF NOT EXISTS looks first and makes then: PostgreSQL lets one of two that do so
		// at once fail with one of several errors.
		var err error
		for range createAttempts {
			if _, err = b.session.Exec(ctx, query); err == nil || ctx.Err() != nil {
				break
			}
			time.Sleep(createPause)
		}
		if err != nil {
			return fmt.Errorf("barrier: make %s: %w", b.table.name, err)
		}
	}
	return nil
}

// Check tries, in a transaction that it rolls back, whether the table does what it must:
// refuses a second row of a key, and tells apart names that differ in case alone. It
// returns [ErrTable] if not. Call it at start.
func (t *Table) Check(ctx context.Context, db Beginner) error {
	if isNil(db) {
		return invalid("db is nil")
	}
	if t == nil {
		return invalid("table: make it with NewTable")
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("barrier: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing is to stay
	return t.On(sqlSession{tx}).Check(ctx)
}

// Check is [Table.Check] in a transaction that the caller rolls back, whatever it says.
func (b Bound) Check(ctx context.Context) error {
	lower := Step{TransType: "check", GID: "check-" + strings.ToLower(rand.Text()) + "-a", Branch: messageBranch, Op: Action}
	upper := lower
	upper.GID = strings.ToUpper(lower.GID)
	for _, try := range []struct {
		step Step
		want Verdict
		why  string
	}{
		{lower, Proceed, ""},
		{lower, Repeat, "it has no unique key over gid, branch_id, op, barrier_id"},
		{upper, Proceed, "names that differ in case are the same to it"},
	} {
		v, err := b.Enter(ctx, try.step)
		if err != nil {
			return err
		}
		if v != try.want {
			return fmt.Errorf("%w: %s: %s", ErrTable, b.table.name, try.why)
		}
	}
	return nil
}

// CleanAgeMin is the least age at which rows may be deleted. It has to be more than a
// day because rows are stamped with the clock of a session, and the time zones of two
// sessions differ by up to 26 hours in MySQL; and much more is wise, see [Table.Clean].
const CleanAgeMin = 48 * time.Hour

// CleanBatch is how many rows Clean deletes in one statement: few enough to hold no
// lock for long.
const CleanBatch = 1000

// Clean deletes the rows that are at least age old, the oldest first, in batches that
// are each a transaction, until none is left or ctx ends, and returns how many there
// were. db must not be in a transaction. It needs the right to delete.
//
// A row may go when no call of its transaction can come any more. One that goes too soon
// makes a repetition a first time; and a compensation that comes then finds no action
// and does nothing, for good. So age must be more than the longest time from a step to
// the end of its transaction, with the worst outage of a participant in it, since the
// server repeats its calls until it is answered, and then some. Thirty days is a good
// choice, together with an alarm for transactions that are not over after ten.
//
// Rows without a time, which dtm's table for PostgreSQL gives to rows of dtm's client,
// stay; docs/barrier.md says how to give them one.
func (t *Table) Clean(ctx context.Context, db Tx, age time.Duration) (deleted int64, err error) {
	return t.On(sqlSession{db}).Clean(ctx, age)
}

// Clean is [Table.Clean].
func (b Bound) Clean(ctx context.Context, age time.Duration) (deleted int64, err error) {
	if err := b.usable(); err != nil {
		return 0, err
	}
	if age < CleanAgeMin {
		return 0, invalid("age %v: want at least %v", age, CleanAgeMin)
	}
	query := b.table.dialect.clean(b.table.name, age, CleanBatch)
	for {
		var n int64
		err := Attempts(ctx, func() (err error) {
			n, err = b.session.Exec(ctx, query)
			return err
		})
		if err != nil {
			return deleted, fmt.Errorf("barrier: clean %s: %w", b.table.name, err)
		}
		deleted += n
		if n < CleanBatch {
			return deleted, nil
		}
	}
}
