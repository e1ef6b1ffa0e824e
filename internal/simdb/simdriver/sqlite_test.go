package simdriver_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/simdb"
	"github.com/troth-tx/troth/internal/simdb/simdriver"
	"github.com/troth-tx/troth/plainsql"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlite"
	"github.com/troth-tx/troth/sqlregister"
)

// A database that cannot prepare takes part as the home: SQLite, and PostgreSQL in
// the way of package plainsql. The second database prepares.
func TestLastResources(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]simdb.Kind{"sqlite": simdb.SQLite, "plainsql": simdb.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBank(t)
			srv := simdb.New(kind, simdb.Options{Now: time.Now})
			home := simdriver.NewDirect(srv)
			db := sql.OpenDB(simdriver.Connector(home.Dial, simdriver.Kind(kind)))
			t.Cleanup(func() { _ = db.Close() })
			for _, text := range []string{
				"CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)",
				"INSERT INTO account (id, balance) VALUES (1, 100)",
			} {
				if _, err := db.ExecContext(t.Context(), text); err != nil {
					t.Fatal(err)
				}
			}
			var first interface {
				troth.Resource
				DB(ctx context.Context, tx *troth.Tx) (*sql.DB, error)
			} = sqlite.New("home", db, sqlite.Allow("database file"))
			mark := "?"
			if kind == simdb.Postgres {
				first, mark = plainsql.New("home", db, plainsql.PostgreSQL), "$1"
			}
			other := sql.OpenDB(simdriver.Connector(b.servers[1].Dial))
			t.Cleanup(func() { _ = other.Close() })
			second := postgres.New("db1", other)
			mgr, err := troth.Open(t.Context(), troth.Config{Domain: "bank", Resources: []troth.Resource{first, second}, RecoverEvery: -1, Grace: -1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = mgr.Close(context.Background()) })

			no := errors.New("no")
			for _, want := range []error{nil, no} {
				err := mgr.Run(t.Context(), func(ctx context.Context, tx *troth.Tx) error {
					for _, r := range []interface {
						DB(ctx context.Context, tx *troth.Tx) (*sql.DB, error)
					}{first, second} {
						db, err := r.DB(ctx, tx)
						if err != nil {
							return err
						}
						placeholder := "$1"
						if r == first {
							placeholder = mark
						}
						if _, err := db.ExecContext(ctx, "UPDATE account SET balance = balance + "+placeholder+" WHERE id = 1", 5); err != nil {
							return err
						}
					}
					return want
				})
				if !errors.Is(err, want) {
					t.Fatalf("Run = %v, want %v", err, want)
				}
			}
			home.With(func(srv *simdb.Server) {
				rows := srv.Rows("account")
				if len(rows) != 1 || rows[0][1] != int64(105) {
					t.Errorf("the home has %v", rows)
				}
				if len(srv.Rows("troth_decision")) != 1 {
					t.Errorf("the home has the decisions %v", srv.Rows("troth_decision"))
				}
				if list := srv.Refused(); len(list) > 0 {
					t.Errorf("unknown texts: %q", list)
				}
			})
			b.wants(100, 105)
		})
	}
}

// A register in each kind of database: it finds out the kind itself, and expires.
func TestRegisters(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]simdb.Kind{"postgres": simdb.Postgres, "sqlite": simdb.SQLite} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			srv := simdb.New(kind, simdb.Options{Now: func() time.Time { return now }})
			direct := simdriver.NewDirect(srv)
			db := sql.OpenDB(simdriver.Connector(direct.Dial, simdriver.Kind(kind)))
			t.Cleanup(func() { _ = db.Close() })
			var opts []sqlregister.Option
			if kind == simdb.SQLite { // a question to a server of another kind is refused, and counts as unknown
				opts = append(opts, sqlregister.WithDialect(sqlregister.SQLite))
			}
			reg := sqlregister.New(db, opts...)
			if err := reg.Open(t.Context(), troth.RegisterConfig{Domain: "bank"}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = reg.Close(context.Background()) })
			old, late := troth.NewGID("bank", now), troth.NewGID("bank", now)
			for _, gid := range []troth.GID{old, late} {
				want := map[troth.GID]troth.Outcome{old: troth.Aborted, late: troth.Committed}[gid]
				for range 2 {
					if got, err := reg.Decide(t.Context(), troth.Decision{GID: gid, Outcome: want}); err != nil || got != want {
						t.Fatalf("Decide = %v, %v", got, err)
					}
				}
				if got, err := reg.Decide(t.Context(), troth.Decision{GID: gid, Outcome: troth.Committed + troth.Aborted - want}); err != nil || got != want {
					t.Fatalf("the second Decide = %v, %v", got, err)
				}
			}
			list, err := reg.Committed(t.Context(), 0, "", 10)
			if err != nil || len(list) != 1 || list[0].GID != late || !list[0].At.Equal(now) {
				t.Fatalf("Committed = %v, %v", list, err)
			}
			for range 4 { // the floor rises, and settles
				direct.With(func(*simdb.Server) { now = now.Add(2 * time.Hour) })
				if _, err := reg.Expire(t.Context(), time.Hour); err != nil {
					t.Fatal(err)
				}
			}
			if err := reg.Forget(t.Context(), []troth.GID{late}); err != nil {
				t.Fatal(err)
			}
			if got, err := reg.Decide(t.Context(), troth.Decision{GID: old, Outcome: troth.Committed}); err != nil || got != troth.Aborted {
				t.Errorf("a commit below the floor = %v, %v", got, err)
			}
			direct.With(func(srv *simdb.Server) {
				if rows := srv.Rows("troth_decision"); len(rows) != 0 {
					t.Errorf("left: %v", rows)
				}
				if list := srv.Refused(); len(list) > 0 {
					t.Errorf("unknown texts: %q", list)
				}
			})
		})
	}
}
