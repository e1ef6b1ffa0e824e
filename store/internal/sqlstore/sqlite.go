package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

// SQLite is the dialect of a database file that only this process has open.
type SQLite struct{ usual }

var _ Dialect = SQLite{}

func (SQLite) name() string         { return "sqlite" }
func (SQLite) goose() goose.Dialect { return goose.DialectSQLite3 }

// settings: whoever opens the file sees to them.
func (SQLite) settings() (string, []setting) { return "SELECT '', ''", nil }

func (SQLite) lockSchema(context.Context, *sql.DB) (func(), error) { return func() {}, nil }

func (SQLite) versionColumns() string {
	return "id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL," +
		" tstamp TIMESTAMP DEFAULT (datetime('now'))"
}

func (SQLite) setup() []string      { return nil }
func (SQLite) prepares() bool       { return true }
func (SQLite) begin() string        { return "BEGIN IMMEDIATE" }
func (SQLite) bind(s string) string { return s }

// again: a transaction was taken for new and is not.
func (SQLite) again(err error) bool { return sqliteCode(err) == 19 } // SQLITE_CONSTRAINT

// broken: after an error of a write or a sync it is not known what the medium has. What
// is read again may be a copy in memory, so only a new process can find out.
func (SQLite) broken(err error) bool { return sqliteCode(err) == 10 } // SQLITE_IOERR

func (SQLite) readOnly(err error) bool { return sqliteCode(err) == 8 } // SQLITE_READONLY

func (SQLite) skipLocked() string { return "" }

func (SQLite) insertNew(into string) string { return "INSERT INTO " + into + " ON CONFLICT DO NOTHING" }

func (SQLite) in(column string, numbers []int64) (string, []any) {
	return column + " IN (" + joined(numbers) + ")", nil
}

// joined is the numbers with commas between them.
func joined(numbers []int64) string {
	var b strings.Builder
	for i, n := range numbers {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(n, 10))
	}
	return b.String()
}

func (SQLite) lookup(ctx context.Context, s *session, gids []string, found func(string, place)) error {
	const text = "SELECT seq, version, created FROM troth_transaction WHERE gid = ?"
	for _, gid := range gids {
		places, err := queryAll(ctx, s, func(rows *sql.Rows) (at place, err error) {
			err = rows.Scan(&at.seq, &at.version, &at.created)
			return at, err
		}, text, gid)
		if err != nil {
			return err
		}
		for _, at := range places {
			found(gid, at)
		}
	}
	return nil
}

// Statements of one row each: there is no round trip to save, and to run a prepared
// statement once more is what SQLite does fastest.
const (
	sqliteInsert = "INSERT INTO troth_transaction (" + insertColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	sqliteDefine = "INSERT INTO troth_definition (seq, content) VALUES (?, ?)"
	sqliteAdd    = "INSERT INTO troth_addition (seq, part, content) VALUES (?, ?, ?)"

	// SQLite writes an index anew if one of its columns is set, be it to what it was.
	sqliteUpdate        = sqliteUpdateColumns + ", due = ?, state = ?, finished = ? WHERE seq = ?"
	sqliteUpdateDue     = sqliteUpdateColumns + ", due = ? WHERE seq = ?"
	sqliteUpdateSame    = sqliteUpdateColumns + " WHERE seq = ?"
	sqliteUpdateColumns = "UPDATE troth_transaction SET version = ?, attempts = ?, updated = ?, leased = ?, reason = ?, progress = ?"
)

func (SQLite) insert(ctx context.Context, s *session, rows []*row) error {
	for _, r := range rows {
		s.args = r.appendInsert(s.args[:0])
		if _, err := s.exec(ctx, sqliteInsert, s.args...); err != nil {
			return err
		}
	}
	for _, r := range rows {
		s.args = append(s.args[:0], r.seq, r.definition)
		if _, err := s.exec(ctx, sqliteDefine, s.args...); err != nil {
			return err
		}
	}
	return nil
}

func (SQLite) update(ctx context.Context, s *session, rows []*row) error {
	for _, r := range rows {
		s.args = append(s.args[:0], r.version, int64(r.attempts), r.updated, r.leased, r.reason, r.progress)
		text := sqliteUpdateSame
		switch sameState := r.state == r.before.state && r.finished == nil; {
		case !sameState:
			text = sqliteUpdate
			s.args = append(s.args, r.due, int64(r.state), r.finished)
		case r.due != r.before.due:
			text = sqliteUpdateDue
			s.args = append(s.args, r.due)
		}
		s.args = append(s.args, r.seq)
		res, err := s.exec(ctx, text, s.args...)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return fmt.Errorf("store: %d rows have the place of %q: %w", n, r.gid, errPlace)
		}
	}
	return nil
}

func (SQLite) add(ctx context.Context, s *session, parts []part) error {
	for _, p := range parts {
		s.args = append(s.args[:0], p.seq, p.number, p.content)
		if _, err := s.exec(ctx, sqliteAdd, s.args...); err != nil {
			return err
		}
	}
	return nil
}
