package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
)

// A query that travelled with BEGIN gives what pgx's driver gives for it later.
func TestValuesAreThoseOfTheDriver(t *testing.T) {
	t.Parallel()
	r := newRig(t, "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t))
	r.exec("CREATE TYPE mood AS ENUM ('sad', 'happy')")
	for _, expr := range []string{
		"true", "'x'::bytea", "1::int2", "1::int4", "1::int8", "1.5::float4", "'NaN'::float8", "1.50::numeric(10,3)",
		"'text'::text", "'v'::varchar(7)", "'c'::char(3)", "'n'::name", "'101'::varbit(5)", "1::oid", "'7'::xid", "'9'::cid", "'9'::xid8",
		"'2024-02-29'::date", "'infinity'::date", "'2024-02-29 12:00'::timestamp", "'2024-02-29 12:00+02'::timestamptz", "'12:00'::time",
		"'12:00+02'::timetz", "'1 day 2 hours'::interval", `'{"a": 1}'::json`, `'{"a": 1}'::jsonb`, "'<a/>'::xml",
		"'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid", "'{1,2}'::int[]", "'{a,b}'::text[]", "'(1,2)'::point", "'[1,3)'::int4range",
		"'10.0.0.1/8'::inet", "'happy'::mood", "ROW(1, 'a')", "NULL::int", "NULL::text", "NULL::timestamptz",
		"'00000000-0000-0000-0000-000000000000'::uuid", "1::money", "'a b'::tsvector", "'{NULL,1}'::int8[]",
	} {
		query := "SELECT i, " + expr + " AS v FROM generate_series(1, $1::int) i"
		read := func(db *sql.DB) string {
			rows, err := db.QueryContext(t.Context(), query, 2)
			if err != nil {
				return "error " + err.Error()
			}
			defer func() { _ = rows.Close() }() // Err tells
			var out string
			types, err := rows.ColumnTypes()
			if err != nil {
				return "error " + err.Error()
			}
			for _, ct := range types {
				length, lok := ct.Length()
				precision, scale, pok := ct.DecimalSize()
				out += fmt.Sprintln(ct.Name(), ct.DatabaseTypeName(), ct.ScanType(), length, lok, precision, scale, pok)
			}
			for rows.Next() {
				var i, v any
				if err := rows.Scan(&i, &v); err != nil {
					return "error " + err.Error()
				}
				out += fmt.Sprintf("%#v %v %#v\n", i, reflect.TypeOf(v), v)
			}
			return out + fmt.Sprint(rows.Err())
		}
		b, db := r.begin()
		first, second := read(db), read(db) // the first travels with BEGIN
		if first != second {
			t.Errorf("%s:\nwith BEGIN %s\nlater      %s", expr, first, second)
		}
		if err := b.Rollback(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

type tripConn struct {
	net.Conn
	trips *atomic.Int64
}

func (c tripConn) Write(b []byte) (int, error) {
	c.trips.Add(1)
	return c.Conn.Write(b)
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	cfg, err := pgx.ParseConfig(dbtest.SharedPostgres(t, 0).NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	var trips atomic.Int64
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return tripConn{c, &trips}, err
	}
	db := stdlib.OpenDB(*cfg, stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return false }))
	t.Cleanup(func() { _ = db.Close() })
	r := &rig{T: t, db: db, outside: db, res: New("athos", db)}
	r.exec("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)")
	r.exec("INSERT INTO account VALUES (1, 100)")
	r.open(r.res)
	db.SetMaxOpenConns(2) // the reserve has one
	ctx := t.Context()
	for i := range 2 { // the first time prepares statements
		check := func(what string, want int64, f func() error) {
			t.Helper()
			before := trips.Load()
			if err := f(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if n := trips.Load() - before; i == 1 && n != want {
				t.Errorf("%s: %d round trips, want %d", what, n, want)
			}
		}
		for name, first := range map[string]func(db *sql.DB) error{
			"exec": func(db *sql.DB) error {
				_, err := db.ExecContext(ctx, "UPDATE account SET balance = balance + 1")
				return err
			},
			"exec with arguments": func(db *sql.DB) error {
				_, err := db.ExecContext(ctx, "UPDATE account SET balance = balance + $1", 1)
				return err
			},
			"query": func(db *sql.DB) error {
				return db.QueryRowContext(ctx, "SELECT balance FROM account WHERE id = $1 FOR UPDATE", 1).Scan(new(int))
			},
		} {
			for _, home := range []bool{false, true} {
				b, handle := r.begin()
				check(name+": BEGIN and statement", 1, func() error { return first(handle) })
				if home {
					check(name+": decision and COMMIT", 1, func() error {
						_, err := b.CommitDeciding(ctx, troth.Decision{GID: newXID().GID, Outcome: troth.Committed})
						return err
					})
					continue
				}
				check(name+": PREPARE", 1, func() error { _, err := b.Prepare(ctx, newXID()); return err })
				check(name+": COMMIT PREPARED", 1, func() error { return b.Commit(ctx) })
			}
		}
	}
}
