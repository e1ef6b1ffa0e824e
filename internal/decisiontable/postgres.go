package decisiontable

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

type postgres struct{}

// settings is empty: what a statement needs it sets for itself, so that a pooler
// in front may give each statement another session.
func (postgres) settings(Options) []string { return nil }

func (postgres) place(ctx context.Context, c *sql.Conn) (schema, user string, err error) {
	var s sql.NullString
	err = c.QueryRowContext(ctx, "SELECT current_schema(), pg_catalog.quote_ident(current_user)").Scan(&s, &user)
	return s.String, user, err
}

func (p postgres) inspect(ctx context.Context, c *sql.Conn, schema, table string) (bool, error) {
	var persistence string
	err := c.QueryRowContext(ctx, `SELECT r.relpersistence::text FROM pg_catalog.pg_class r
		JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace WHERE n.nspname = $1 AND r.relname = $2`, schema, table).Scan(&persistence)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err == nil && persistence != "p" {
		name := p.identifier(schema) + "." + p.identifier(table)
		return true, fmt.Errorf("table %s is not permanent, so a crash empties it: run ALTER TABLE %s SET LOGGED", name, name)
	}
	return err == nil, err
}

func (postgres) identifier(name string) string { return quoteIdentifier(name, `"`) }

func (postgres) create(table, qualified string) string {
	columns := map[string]string{
		decisionTable: `
  gid        varchar(64) COLLATE "C" PRIMARY KEY,
  outcome    varchar(6) NOT NULL CHECK (outcome IN ('commit', 'abort')),
  branches   varchar(8192) NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()`,
		metaTable: `
  name  varchar(64) COLLATE "C" PRIMARY KEY,
  value varchar(255) COLLATE "C" NOT NULL`,
	}
	return "CREATE TABLE IF NOT EXISTS " + qualified + " (" + columns[table] + "\n)"
}

// forceFlush is a condition that is true and has COMMIT wait for the disk. With
// synchronous_commit = off a COMMIT is acknowledged before it is durable, and a
// decision must be durable before anyone hears it. It holds for the
// transaction at hand; 'local' and the stricter settings are the program's
// choice and stay.
const forceFlush = "CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off'" +
	" THEN pg_catalog.set_config('synchronous_commit', 'on', true) ELSE '' END IS NOT NULL"

func (postgres) insert(in insertion) string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + in.table + " (gid, outcome, branches) SELECT " + in.values() + " WHERE " + forceFlush)
	if in.home {
		return b.String()
	}
	// In the statement that it bounds, so that one round trip is enough. It is
	// evaluated before the first row is inserted, thus before the wait.
	b.WriteString(" AND pg_catalog.set_config('lock_timeout', '" + strconv.FormatInt(in.lockWaitMS, 10) + "ms', true) IS NOT NULL")
	if in.floor != "" {
		b.WriteString(" AND " + in.aboveFloor())
	}
	b.WriteString(" ON CONFLICT (gid) DO NOTHING")
	return b.String()
}

func (postgres) insertMeta(meta string) string {
	return "INSERT INTO " + meta + " (name, value) SELECT $1, $2 WHERE " + forceFlush + " ON CONFLICT (name) DO NOTHING"
}

const pgMicros = "CAST(extract(epoch FROM %s) * 1000000 AS bigint)"

func (postgres) now() string { return fmt.Sprintf(pgMicros, "pg_catalog.clock_timestamp()") }
func (postgres) at() string  { return fmt.Sprintf(pgMicros, "created_at") }
func (postgres) older() string {
	return "created_at <= pg_catalog.clock_timestamp() - CAST(? AS bigint) * interval '1 microsecond'"
}

func (postgres) bind(query string) string {
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

// lookup: on a standby a decision that is there may not be seen yet.
func (postgres) lookup(decision string) string {
	return "SELECT (SELECT outcome FROM " + decision + " WHERE gid = ?), pg_catalog.pg_is_in_recovery()"
}

func (postgres) deleteFrom(table string) string { return "DELETE FROM " + table }

func (postgres) exists(err error) bool { return stateIn(err, "23505") }

// again: 40001 comes if the default isolation is stricter than READ COMMITTED
// and the conflicting row is newer than the statement; 40P01 is a deadlock.
func (postgres) again(err error) bool { return stateIn(err, "40001", "40P01") }

func (postgres) busy(error) bool { return false } // the server waits

func (postgres) denied(err error) bool { return stateIn(err, "42501") }

// created: two sessions that create one table at once can both find it missing;
// the second then fails on the unique index of a catalog, or by name.
func (postgres) created(err error) bool { return stateIn(err, "23505", "42P07", "42710") }
