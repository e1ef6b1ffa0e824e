// Package orm lets programs written for GORM, sqlx, bun, ent and sqlc work in
// branches of global transactions: on PostgreSQL and MariaDB at once, with the
// same code that they use on a plain *sql.DB.
package orm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// A registry of people and their pets is the program under test. It was given a
// *sql.DB, and does not know whether that is a pool or a branch.
type registry interface {
	// Add adds a person with pets, and returns the id that the database gave.
	Add(ctx context.Context, name string, pets ...string) (int64, error)

	// Nested calls f in a transaction, which f's error rolls back.
	Nested(ctx context.Context, f func(registry) error) error

	// List returns "name: pet, pet" for each person, in order.
	List(ctx context.Context) ([]string, error)
}

// An engine is a brand of database.
type engine string

const (
	athos   engine = "postgres" // the resource names are the musketeers'
	porthos engine = "mysql"
)

// An opener makes a registry with one of the libraries.
type opener func(t *testing.T, e engine, db *sql.DB) registry

// gormScenario is what is different with GORM: it puts each write into a
// transaction of its own, so that a failed one leaves no trace in the branch, and
// the program may go on.
const gormScenario = "swallowed statement error"

var libraries = map[string]opener{
	"sql":           openSQL, // what all others are measured by
	"gorm":          func(t *testing.T, e engine, db *sql.DB) registry { return openGORM(t, e, db, false) },
	"gorm prepared": func(t *testing.T, e engine, db *sql.DB) registry { return openGORM(t, e, db, true) },
	"sqlx":          openSQLX,
	"bun":           openBun,
	"ent":           openEnt,
	"sqlc":          openSQLC,
}

var tables = map[engine][]string{
	athos: {
		"CREATE TABLE people (id BIGSERIAL PRIMARY KEY, name VARCHAR(50) NOT NULL UNIQUE)",
		"CREATE TABLE pets (id BIGSERIAL PRIMARY KEY, name VARCHAR(50) NOT NULL, owner_id BIGINT NOT NULL REFERENCES people (id))",
	},
	porthos: {
		"CREATE TABLE people (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) NOT NULL UNIQUE)",
		"CREATE TABLE pets (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) NOT NULL, owner_id BIGINT NOT NULL, FOREIGN KEY (owner_id) REFERENCES people (id))",
	},
}

// world is two databases under one Manager.
type world struct {
	mgr      *troth.Manager
	pools    map[engine]*sql.DB
	branches map[engine]func(context.Context, *troth.Tx) (*sql.DB, error)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{pools: map[engine]*sql.DB{
		athos:   openPool(t, "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t)),
		porthos: openPool(t, "mysql", dbtest.SharedMariaDB(t, 0).NewDatabase(t)),
	}}
	for e, db := range w.pools {
		for _, s := range tables[e] {
			if _, err := db.ExecContext(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, p := postgres.New("athos", w.pools[athos]), mysql.New("porthos", w.pools[porthos])
	w.branches = map[engine]func(context.Context, *troth.Tx) (*sql.DB, error){athos: a.DB, porthos: p.DB}
	var err error
	w.mgr, err = troth.Open(t.Context(), troth.Config{Domain: "orm", Resources: []troth.Resource{a, p}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.mgr.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func openPool(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// run runs f in one transaction, once for each database.
func (w *world) run(t *testing.T, f func(ctx context.Context, e engine, branch *sql.DB) error) error {
	t.Helper()
	return w.mgr.Run(t.Context(), func(ctx context.Context, tx *troth.Tx) error {
		for _, e := range []engine{athos, porthos} {
			db, err := w.branches[e](ctx, tx)
			if err != nil {
				return err
			}
			if err := f(ctx, e, db); err != nil {
				return fmt.Errorf("%s: %w", e, err)
			}
		}
		return nil
	})
}

// requireList compares what the pools hold, seen through the library.
func (w *world) requireList(t *testing.T, open opener, want ...string) {
	t.Helper()
	for e, db := range w.pools {
		list, err := open(t, e, db).List(t.Context())
		if err != nil || !slices.Equal(list, want) {
			t.Errorf("%s has %q (%v), want %q", e, list, err, want)
		}
	}
}

var errNo = errors.New("no")

// scenarios are what a program does in a branch, and what is there afterwards.
// Before, "Aramis" with two pets is there.
var scenarios = map[string]struct {
	work func(ctx context.Context, r registry) error
	want []string // besides Aramis
	err  error    // what Run's error must have in it; nil: Run must succeed
}{
	"commit": {
		work: func(ctx context.Context, r registry) error {
			return add(ctx, r, "Bazin", "Rat", "Cat")
		},
		want: []string{"Bazin: Cat, Rat"},
	},
	"error": {
		work: func(ctx context.Context, r registry) error {
			return errors.Join(add(ctx, r, "Bazin", "Rat"), errNo)
		},
		err: errNo,
	},
	"swallowed statement error": {
		work: func(ctx context.Context, r registry) error {
			if err := add(ctx, r, "Bazin"); err != nil {
				return err
			}
			if err := add(ctx, r, "Aramis"); err == nil {
				return errors.New("a second Aramis was accepted")
			}
			return nil
		},
		err: troth.ErrRolledBack,
	},
	"nested commit": {
		work: func(ctx context.Context, r registry) error {
			return r.Nested(ctx, func(r registry) error { return add(ctx, r, "Bazin", "Cat") })
		},
		want: []string{"Bazin: Cat"},
	},
	"nested rollback": {
		work: func(ctx context.Context, r registry) error {
			if err := add(ctx, r, "Bazin", "Cat"); err != nil {
				return err
			}
			err := r.Nested(ctx, func(r registry) error {
				return errors.Join(add(ctx, r, "Planchet", "Dog"), errNo)
			})
			if !errors.Is(err, errNo) {
				return fmt.Errorf("the nested transaction ended with %w", err)
			}
			list, err := r.List(ctx)
			if want := []string{aramis, "Bazin: Cat"}; err != nil || !slices.Equal(list, want) {
				return fmt.Errorf("after the nested rollback the branch has %q, %w", list, err)
			}
			return add(ctx, r, "Mousqueton")
		},
		want: []string{"Bazin: Cat", "Mousqueton: "},
	},
	"nested statement error": {
		work: func(ctx context.Context, r registry) error {
			err := r.Nested(ctx, func(r registry) error {
				return errors.Join(add(ctx, r, "Planchet", "Dog"), add(ctx, r, "Aramis"))
			})
			if err == nil {
				return errors.New("a second Aramis was accepted")
			}
			return add(ctx, r, "Bazin", "Cat")
		},
		want: []string{"Bazin: Cat"},
	},
	"nested commit, then error": {
		work: func(ctx context.Context, r registry) error {
			return errors.Join(r.Nested(ctx, func(r registry) error { return add(ctx, r, "Bazin", "Cat") }), errNo)
		},
		err: errNo,
	},
}

const aramis = "Aramis: Dog, Horse"

func add(ctx context.Context, r registry, name string, pets ...string) error {
	id, err := r.Add(ctx, name, pets...)
	if err == nil && id < 1 {
		return fmt.Errorf("%s has the id %d", name, id)
	}
	return err
}

func TestLibraries(t *testing.T) {
	t.Parallel()
	for library, open := range libraries {
		t.Run(library, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for e, db := range w.pools { // the same code, on the pool
				if err := add(t.Context(), open(t, e, db), "Aramis", "Horse", "Dog"); err != nil {
					t.Fatal(err)
				}
			}
			for name, s := range scenarios {
				if name == gormScenario && strings.HasPrefix(library, "gorm") {
					s.want, s.err = []string{"Bazin: "}, nil
				}
				t.Run(name, func(t *testing.T) {
					err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
						return s.work(ctx, open(t, e, branch))
					})
					if !errors.Is(err, s.err) {
						t.Errorf("Run returned %v, want %v", err, s.err)
					}
					w.requireList(t, open, append([]string{aramis}, s.want...)...)
					w.clean(t)
				})
			}
			t.Run("a failure in the second database", func(t *testing.T) {
				err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
					err := add(ctx, open(t, e, branch), "Bazin", "Cat")
					if e == porthos {
						err = errors.Join(err, errNo)
					}
					return err
				})
				if !errors.Is(err, errNo) || !errors.Is(err, troth.ErrRolledBack) {
					t.Errorf("Run returned %v", err)
				}
				w.requireList(t, open, aramis)
			})
		})
	}
}

// clean removes everybody but Aramis.
func (w *world) clean(t *testing.T) {
	t.Helper()
	for _, db := range w.pools {
		for _, s := range []string{
			"DELETE FROM pets WHERE owner_id IN (SELECT id FROM people WHERE name <> 'Aramis')",
			"DELETE FROM people WHERE name <> 'Aramis'",
		} {
			if _, err := db.ExecContext(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func line(name string, pets []string) string {
	slices.Sort(pets)
	return name + ": " + strings.Join(pets, ", ")
}
