package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/troth-tx/troth/internal/lastresource"
	"github.com/troth-tx/troth/internal/pinned"
	"github.com/troth-tx/troth/internal/sqltext"
)

// busyMax is the busy timeout of a branch on a session that has none.
const busyMax = 5 * time.Second

// savepoint is set as the first thing in a branch's transaction. That it can be
// released at the end proves that the transaction is still the same: SQLite may
// roll back a whole transaction because of one statement (a cancelled context, a
// full disk, ON CONFLICT ROLLBACK), and what follows runs without any.
const savepoint = "troth_branch"

// engine implements [lastresource.Engine].
type engine struct{ options }

var _ lastresource.Engine = (*engine)(nil)

func (*engine) Dialect() sqltext.Dialect { return sqltext.SQLite }

func (*engine) Open(context.Context, lastresource.Line, time.Duration) error { return nil }

// Begin begins with BEGIN IMMEDIATE: a transaction that reads first and takes the
// write lock later may find that it cannot have it any more (SQLITE_BUSY_SNAPSHOT),
// and its COMMIT may have to wait for the lock, both after other databases have
// prepared. Every isolation level is served by SQLite's only one, serializable.
func (e *engine) Begin(ctx context.Context, l lastresource.Line, how lastresource.How) (b lastresource.Begun, err error) {
	undo, err := bePatient(ctx, l, how.Deadline)
	if err != nil {
		return b, err
	}
	b.Undo = append(b.Undo, undo...)
	undo, err = e.makeDurable(ctx, l) // has no effect in a transaction, so before it
	if err != nil {
		return b, err
	}
	b.Undo = append(b.Undo, undo...)
	begin := "BEGIN IMMEDIATE"
	if e.deferred {
		begin = "BEGIN DEFERRED"
	}
	if err := l.Exec(ctx, begin); err != nil {
		return b, err
	}
	if err := l.Exec(ctx, "SAVEPOINT "+savepoint); err != nil {
		return b, err
	}
	b.Mark, err = mark(ctx, l)
	return b, err
}

// bePatient gives the session a busy timeout if it has none: until the
// transaction's deadline, but at most busyMax.
func bePatient(ctx context.Context, l lastresource.Line, deadline time.Time) (undo []string, err error) {
	now, err := l.Int(ctx, "PRAGMA busy_timeout")
	if err != nil || now != 0 {
		return nil, err
	}
	wait := busyMax
	if !deadline.IsZero() {
		wait = max(min(wait, time.Until(deadline)), time.Millisecond)
	}
	// This pragma answers with the new value, so it is a query.
	_, err = l.Query(ctx, "PRAGMA busy_timeout = "+strconv.FormatInt(wait.Milliseconds(), 10))
	return []string{"PRAGMA busy_timeout = 0"}, err
}

// makeDurable sees to it that what this session commits survives a power cut.
func (e *engine) makeDurable(ctx context.Context, l lastresource.Line) (undo []string, err error) {
	journal, err := l.Text(ctx, "PRAGMA main.journal_mode")
	if err != nil {
		return nil, err
	}
	if volatile(journal) && !slices.Contains(e.allow, subjectJournal) && !slices.Contains(e.allow, subjectFile) {
		return nil, fmt.Errorf("%s is %s: %s", subjectJournal, journal, whyJournal)
	}
	now, err := l.Int(ctx, "PRAGMA main.synchronous")
	if err != nil {
		return nil, err
	}
	need := durable(journal)
	if now >= need {
		return nil, nil
	}
	return []string{setSynchronous(now)}, l.Exec(ctx, setSynchronous(need))
}

func setSynchronous(level int64) string {
	return "PRAGMA main.synchronous = " + strconv.FormatInt(level, 10)
}

// durable is the level of PRAGMA synchronous at which a commit survives a power
// cut: FULL with a write-ahead log; without, EXTRA, which also forces the
// directory in which the journal is deleted.
func durable(journal string) int64 {
	if journal == "wal" {
		return 2
	}
	return 3
}

func volatile(journal string) bool { return journal == "memory" || journal == "off" }

// mark counts the rows that the session ever changed, and notices changes of the
// schema.
func mark(ctx context.Context, l lastresource.Line) (int64, error) {
	rows, err := l.Int(ctx, "SELECT total_changes()")
	if err != nil {
		return 0, err
	}
	schema, err := l.Int(ctx, "PRAGMA main.schema_version")
	return rows + schema, err // neither ever falls
}

// Changed implements [lastresource.Engine]: SQLite counts for us.
func (*engine) Changed(ctx context.Context, l lastresource.Line, b lastresource.Begun, seen pinned.Change) (bool, error) {
	if seen == pinned.ChangeYes {
		return true, nil
	}
	now, err := mark(ctx, l)
	return now != b.Mark, err
}

// Record implements [lastresource.Engine].
func (e *engine) Record(ctx context.Context, l lastresource.Line, _ lastresource.Begun, insert string) error {
	if err := l.Exec(ctx, "RELEASE "+savepoint); err != nil {
		return fmt.Errorf("the transaction has ended before its time, a statement rolled it back: %w", err)
	}
	if err := e.oneFile(ctx, l); err != nil {
		return err
	}
	return l.Exec(ctx, insert)
}

// oneFile refuses a transaction that may not be atomic by itself: with a
// write-ahead log, SQLite commits each attached file on its own.
func (e *engine) oneFile(ctx context.Context, l lastresource.Line) error {
	if slices.Contains(e.allow, subjectAttached) {
		return nil
	}
	found, err := attached(ctx, l)
	if err != nil || found == "" {
		return err
	}
	return fmt.Errorf("%s: %s: %s", subjectAttached, found, whyAttached)
}

// attached names the attached databases, if a commit over them is not atomic.
func attached(ctx context.Context, l lastresource.Line) (string, error) {
	rows, err := l.Query(ctx, "PRAGMA database_list")
	if err != nil || len(rows) < 2 {
		return "", err
	}
	var names []string
	wal := false
	for _, row := range rows {
		name := row[1]
		if name == "temp" {
			continue
		}
		journal, err := l.Text(ctx, `PRAGMA "`+strings.ReplaceAll(name, `"`, `""`)+`".journal_mode`)
		if err != nil {
			return "", err
		}
		wal = wal || journal == "wal"
		if name != "main" {
			names = append(names, name)
		}
	}
	if !wal {
		return "", nil
	}
	return strings.Join(names, ", "), nil
}

// Commit repeats a COMMIT that readers keep from the file: without a write-ahead
// log it answers SQLITE_BUSY, and the transaction stays open.
func (*engine) Commit(ctx context.Context, l lastresource.Line) (never bool, err error) {
	for {
		// Not to be interrupted: COMMIT takes as long as the disk takes, and
		// waiting is bounded by the busy timeout.
		err := l.Exec(context.WithoutCancel(ctx), "COMMIT")
		if err == nil {
			return false, nil
		}
		if !busy(err) {
			return refused(err), err
		}
		select {
		case <-ctx.Done():
			return true, err
		case <-time.After(commitPause):
		}
	}
}

// commitPause is between two COMMITs, on top of the busy timeout.
const commitPause = 2 * time.Millisecond

// refused tells of the errors of COMMIT, besides SQLITE_BUSY, that leave nothing
// committed: a deferred constraint, after which the transaction is still open, and
// a transaction that is gone, which was open when the record went in. A failed
// write is not among them: what reached the log may come back after a crash.
func refused(err error) bool {
	return strings.Contains(err.Error(), "constraint failed") || noTransaction(err)
}

func (*engine) Idle(err error) bool { return noTransaction(err) }

func (*engine) Transient(err error) bool { return busy(err) }

// busy recognises SQLITE_BUSY and SQLITE_LOCKED and their extended codes, with
// drivers that tell the code like modernc.org/sqlite, and by SQLite's own
// message with others.
func busy(err error) bool {
	if c, ok := errors.AsType[interface {
		error
		Code() int
	}](err); ok {
		return c.Code()&0xff == 5 || c.Code()&0xff == 6
	}
	return strings.Contains(err.Error(), "database is locked") || strings.Contains(err.Error(), "database table is locked")
}

// noTransaction recognises SQLite's message; the code, 1, says nothing.
func noTransaction(err error) bool {
	return strings.Contains(err.Error(), "no transaction is active")
}
