package sqlregister

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// detect asks the server what it is.
func detect(ctx context.Context, db *sql.DB) (Dialect, error) {
	if err := db.PingContext(ctx); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	var text string
	err := db.QueryRowContext(ctx, "SELECT version()").Scan(&text)
	switch {
	case err == nil && strings.HasPrefix(text, "PostgreSQL "):
		return Postgres, nil
	case err == nil && db.QueryRowContext(ctx, "SELECT @@version_comment").Scan(new(string)) == nil:
		return MySQL, nil
	case db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(new(string)) == nil:
		return SQLite, nil
	case err != nil:
		return 0, fmt.Errorf("ask the database what it is (or use WithDialect): %w", err)
	}
	return 0, fmt.Errorf("the database calls itself %.60q: want PostgreSQL, MySQL, MariaDB or SQLite (or use WithDialect)", text)
}

// A setting of the server, which can lose a decision unless it is one of good.
type setting struct {
	name, value string
	good        []string
	fix         string
}

// checkDurability refuses settings under which an acknowledged decision can be
// lost. PostgreSQL's synchronous_commit and SQLite's synchronous are not among
// them: the register sets those for its own sessions.
func checkDurability(ctx context.Context, c *sql.Conn, dialect Dialect, opts options) error {
	settings, err := readSettings(ctx, c, dialect, opts)
	if err != nil {
		return fmt.Errorf("read the settings of durability: %w", err)
	}
	var bad []error
	for _, s := range settings {
		if slices.Contains(s.good, strings.ToLower(s.value)) || opts.allows(s.name) {
			continue
		}
		bad = append(bad, fmt.Errorf("%s is %s: a crash can lose decisions; %s (or accept it with sqlregister.Allow(%q))",
			s.name, s.value, s.fix, s.name))
	}
	return errors.Join(bad...)
}

func readSettings(ctx context.Context, c *sql.Conn, dialect Dialect, opts options) ([]setting, error) {
	switch dialect {
	case Postgres:
		fsync := setting{name: "fsync", good: []string{"on"}, fix: "run ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()"}
		pages := setting{name: "full_page_writes", good: []string{"on"}, fix: "run ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()"}
		err := c.QueryRowContext(ctx, "SELECT current_setting('fsync'), current_setting('full_page_writes')").Scan(&fsync.value, &pages.value)
		return []setting{fsync, pages}, err
	case MySQL:
		return mysqlSettings(ctx, c)
	case SQLite:
		journal := setting{name: "journal_mode", good: []string{"wal", "delete", "truncate", "persist"}, fix: "use a database file, and run PRAGMA journal_mode = WAL"}
		schema := "main"
		if opts.schema != "" {
			schema = `"` + strings.ReplaceAll(opts.schema, `"`, `""`) + `"`
		}
		err := c.QueryRowContext(ctx, "PRAGMA "+schema+".journal_mode").Scan(&journal.value)
		return []setting{journal}, err
	}
	return nil, fmt.Errorf("unknown %v", dialect)
}

func mysqlSettings(ctx context.Context, c *sql.Conn) ([]setting, error) {
	rows, err := c.QueryContext(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN"+
		" ('innodb_flush_log_at_trx_commit', 'log_bin', 'sync_binlog', 'wsrep_on')")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // its error is that of Err below
	values := make(map[string]string)
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		values[name] = value
	}
	settings := []setting{{
		name: "innodb_flush_log_at_trx_commit", value: values["innodb_flush_log_at_trx_commit"], good: []string{"1"},
		fix: "run SET GLOBAL innodb_flush_log_at_trx_commit = 1, and put it into the server's configuration",
	}}
	if strings.EqualFold(values["log_bin"], "ON") {
		settings = append(settings, setting{
			name: "sync_binlog", value: values["sync_binlog"], good: []string{"1"},
			fix: "run SET GLOBAL sync_binlog = 1, and put it into the server's configuration",
		})
	}
	if value, ok := values["wsrep_on"]; ok {
		settings = append(settings, setting{
			name: "wsrep_on", value: value, good: []string{"off"},
			fix: "use a server that is not part of a Galera cluster, whose nodes can answer with old data",
		})
	}
	return settings, rows.Err()
}
