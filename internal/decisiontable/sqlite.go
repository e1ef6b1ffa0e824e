package decisiontable

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"
)

type sqlite struct{}

// settings: a decision must be on the disk when COMMIT returns. EXTRA is FULL in
// WAL mode, and in the other modes also syncs the directory after the journal
// is removed, without which a power cut can bring the journal back and undo
// the commit.
func (s sqlite) settings(opts Options) []string {
	schema := opts.Schema
	if schema == "" {
		schema = "main"
	}
	return []string{
		"PRAGMA busy_timeout = " + strconv.FormatInt(min(opts.LockWait, busySlice).Milliseconds(), 10),
		"PRAGMA " + s.identifier(schema) + ".synchronous = EXTRA",
		"PRAGMA read_uncommitted = 0",
	}
}

// busySlice bounds how late a caller notices that its ctx ended.
const busySlice = 100 * time.Millisecond

func (sqlite) place(context.Context, *sql.Conn) (schema, user string, err error) {
	return "main", "", nil
}

func (s sqlite) inspect(ctx context.Context, c *sql.Conn, schema, table string) (bool, error) {
	var one int
	err := c.QueryRowContext(ctx, "SELECT 1 FROM "+s.identifier(schema)+".sqlite_master WHERE type = 'table' AND name = ?", table).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func (sqlite) identifier(name string) string { return quoteIdentifier(name, `"`) }

func (sqlite) create(table, qualified string) string {
	columns := map[string]string{
		decisionTable: `
  gid        TEXT NOT NULL PRIMARY KEY,
  outcome    TEXT NOT NULL CHECK (outcome IN ('commit', 'abort')),
  branches   TEXT NOT NULL,
  created_at INTEGER NOT NULL -- microseconds since 1970`,
		metaTable: `
  name  TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL`,
	}
	return "CREATE TABLE IF NOT EXISTS " + qualified + " (" + columns[table] + "\n) STRICT, WITHOUT ROWID"
}

func (s sqlite) insert(in insertion) string {
	text := "INSERT INTO " + in.table + " (gid, outcome, branches, created_at) SELECT " + in.values() + ", " + s.now() + " WHERE "
	if in.floor == "" {
		text += "true"
	} else {
		text += in.aboveFloor()
	}
	if in.home {
		return text
	}
	return text + " ON CONFLICT (gid) DO NOTHING"
}

func (sqlite) insertMeta(meta string) string {
	return "INSERT INTO " + meta + " (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"
}

// now has milliseconds, the resolution of SQLite's clock.
func (sqlite) now() string {
	return "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000"
}
func (sqlite) at() string      { return "created_at" }
func (s sqlite) older() string { return fmt.Sprintf("created_at <= %s - ?", s.now()) }

func (sqlite) bind(query string) string { return query }

func (sqlite) lookup(decision string) string {
	return "SELECT (SELECT outcome FROM " + decision + " WHERE gid = ?), FALSE"
}

func (sqlite) deleteFrom(table string) string { return "DELETE FROM " + table }

// exists: SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE.
func (sqlite) exists(err error) bool { code := sqliteCode(err); return code == 1555 || code == 2067 }

// again: SQLITE_BUSY_SNAPSHOT, which waiting does not help, but starting over does.
func (sqlite) again(err error) bool { return sqliteCode(err) == 517 }

// busy: SQLITE_BUSY, and its extended codes but the snapshot's.
func (sqlite) busy(err error) bool { code := sqliteCode(err); return code&0xff == 5 && code != 517 }

// denied: SQLITE_READONLY and SQLITE_PERM, with their extended codes.
func (sqlite) denied(err error) bool {
	code := sqliteCode(err) & 0xff
	return code == 8 || code == 3
}

func (sqlite) created(error) bool { return false } // one writer at a time
