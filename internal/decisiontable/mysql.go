package decisiontable

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

type mysql struct{}

// settings: every statement is a transaction of its own that reads what is
// committed now. READ UNCOMMITTED, if it were the default here, would show the
// decision of a home that may still roll back. READ COMMITTED is refused by
// binlog_format = STATEMENT. The server leaves a statement running when the
// driver gives up, so the server must bound the wait.
func (mysql) settings(opts Options) []string {
	seconds := strconv.FormatInt(int64((opts.LockWait+time.Second-1)/time.Second), 10)
	return []string{
		"SET SESSION autocommit = 1, sql_mode = 'STRICT_ALL_TABLES', sql_safe_updates = 0," +
			" innodb_lock_wait_timeout = " + seconds + ", lock_wait_timeout = " + seconds,
		"SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE",
	}
}

func (mysql) place(ctx context.Context, c *sql.Conn) (schema, user string, err error) {
	var s sql.NullString
	err = c.QueryRowContext(ctx, "SELECT DATABASE(), CURRENT_USER()").Scan(&s, &user)
	name, host := user, "%"
	if at := strings.LastIndexByte(user, '@'); at >= 0 {
		name, host = user[:at], user[at+1:]
	}
	return s.String, quoteIdentifier(name, "'") + "@" + quoteIdentifier(host, "'"), err
}

func (m mysql) inspect(ctx context.Context, c *sql.Conn, schema, table string) (bool, error) {
	var engine, collation sql.NullString
	err := c.QueryRowContext(ctx, `SELECT engine, table_collation FROM information_schema.tables
		WHERE table_schema = ? AND table_name = ?`, schema, table).Scan(&engine, &collation)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	name := m.identifier(schema) + "." + m.identifier(table)
	if !strings.EqualFold(engine.String, "InnoDB") {
		return true, fmt.Errorf("table %s has the engine %s, which has no transactions: run ALTER TABLE %s ENGINE=InnoDB", name, engine.String, name)
	}
	if collation.String != "ascii_bin" {
		return true, fmt.Errorf("table %s has the collation %s, but keys must compare byte for byte: run ALTER TABLE %s CONVERT TO CHARACTER SET ascii COLLATE ascii_bin",
			name, collation.String, name)
	}
	return true, nil
}

func (mysql) identifier(name string) string { return quoteIdentifier(name, "`") }

func (mysql) create(table, qualified string) string {
	columns := map[string]string{
		decisionTable: `
  gid        varchar(64) NOT NULL PRIMARY KEY,
  outcome    varchar(6) NOT NULL,
  branches   varchar(8192) NOT NULL,
  created_at datetime(6) NOT NULL`,
		metaTable: `
  name  varchar(64) NOT NULL PRIMARY KEY,
  value varchar(255) NOT NULL`,
		witnessTable: `
  gid        varchar(64) NOT NULL,
  branch     smallint NOT NULL,
  home       varchar(64) NOT NULL,
  created_at datetime(6) NOT NULL,
  PRIMARY KEY (gid, branch)`,
	}
	return "CREATE TABLE IF NOT EXISTS " + qualified + " (" + columns[table] +
		"\n) ENGINE=InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin"
}

// insert fails with a duplicate key also when that is fine: INSERT IGNORE would
// turn other errors into warnings, and the affected rows of ON DUPLICATE KEY
// UPDATE depend on a flag of the connection.
func (mysql) insert(in insertion) string {
	row := in.values() + ", UTC_TIMESTAMP(6)"
	into := "INSERT INTO " + in.table + " (gid, outcome, branches, created_at) "
	if in.floor == "" {
		return into + "VALUES (" + row + ")"
	}
	return into + "SELECT " + row + " FROM DUAL WHERE " + in.aboveFloor()
}

func (mysql) insertMeta(meta string) string {
	return "INSERT INTO " + meta + " (name, value) VALUES (?, ?)"
}

// created_at is in UTC, whatever the time zone of the session.
func (mysql) now() string {
	return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))"
}

func (mysql) at() string {
	return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', created_at)"
}
func (mysql) older() string { return "created_at <= UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND" }

func (mysql) bind(query string) string { return query }

func (mysql) lookup(decision string) string {
	return "SELECT (SELECT outcome FROM " + decision + " WHERE gid = ?), FALSE"
}

// deleteFrom forces the key: for a small table the server would rather scan, and
// wait for the row of a home that is open.
func (mysql) deleteFrom(table string) string {
	return "DELETE t FROM " + table + " AS t FORCE INDEX (PRIMARY)"
}

// The numbers are those of MySQL and MariaDB alike.

func (mysql) exists(err error) bool { return numberIn(err, 1062) }

// again: 1213 is a deadlock, which several recoverers that wait for one home can
// make when it rolls back; 1020 is MariaDB's innodb_snapshot_isolation.
func (mysql) again(err error) bool { return numberIn(err, 1213, 1020) }

func (mysql) busy(error) bool { return false } // the server waits

func (mysql) denied(err error) bool { return numberIn(err, 1044, 1045, 1142, 1143, 1227, 1370, 1410) }

func (mysql) created(err error) bool { return numberIn(err, 1050, 1213) }
