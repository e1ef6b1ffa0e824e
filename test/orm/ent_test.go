package orm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/troth-tx/troth/test/orm/ent"
	"github.com/troth-tx/troth/test/orm/ent/person"
)

type entRegistry struct{ client *ent.Client }

func newEnt(e engine, db *sql.DB) *ent.Client {
	return ent.NewClient(ent.Driver(entsql.OpenDB(map[engine]string{athos: dialect.Postgres, porthos: dialect.MySQL}[e], db)))
}

func openEnt(_ *testing.T, e engine, db *sql.DB) registry { return entRegistry{newEnt(e, db)} }

func (r entRegistry) Add(ctx context.Context, name string, pets ...string) (int64, error) {
	p, err := r.client.Person.Create().SetName(name).Save(ctx)
	if err != nil {
		return 0, err
	}
	var bulk []*ent.PetCreate
	for _, name := range pets {
		bulk = append(bulk, r.client.Pet.Create().SetName(name).SetOwner(p))
	}
	return int64(p.ID), r.client.Pet.CreateBulk(bulk...).Exec(ctx)
}

func (r entRegistry) Nested(ctx context.Context, f func(registry) error) error {
	tx, err := r.client.Tx(ctx)
	if err != nil {
		return err
	}
	if err := f(entRegistry{tx.Client()}); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (r entRegistry) List(ctx context.Context) ([]string, error) {
	people, err := r.client.Person.Query().WithPets().Order(person.ByName()).All(ctx)
	var list []string
	for _, p := range people {
		var names []string
		for _, pet := range p.Edges.Pets {
			names = append(names, pet.Name)
		}
		list = append(list, line(p.Name, names))
	}
	return list, err
}

// ent's transactions have hooks; a failed statement in one is undone with it.
func TestEntNestedTransactions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
		client := newEnt(e, branch)
		first, err := client.Person.Create().SetName("first").Save(ctx)
		if err != nil {
			return err
		}
		dog, err := client.Pet.Create().SetName("Dog").SetOwner(first).Save(ctx)
		if err != nil {
			return err
		}
		second, err := client.Person.Create().SetName("second").Save(ctx)
		if err != nil {
			return err
		}
		// An update with edges is several statements in a transaction of ent's own.
		if err := dog.Update().SetOwner(second).SetName("Hound").Exec(ctx); err != nil {
			return err
		}
		committed := false
		tx, err := client.Tx(ctx)
		if err != nil {
			return err
		}
		tx.OnCommit(func(next ent.Committer) ent.Committer {
			return ent.CommitFunc(func(ctx context.Context, tx *ent.Tx) error {
				committed = true
				return next.Commit(ctx, tx)
			})
		})
		if err := tx.Person.UpdateOne(second).SetName("renamed").Exec(ctx); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil || !committed {
			return fmt.Errorf("commit: %w, hook called: %v", err, committed)
		}
		undone, err := client.Tx(ctx)
		if err != nil {
			return err
		}
		if err := undone.Pet.DeleteOneID(dog.ID).Exec(ctx); err != nil {
			return err
		}
		if err := undone.Person.Create().SetName("first").Exec(ctx); !ent.IsConstraintError(err) {
			return fmt.Errorf("a duplicate gave %w", err)
		}
		return undone.Rollback()
	})
	if err != nil {
		t.Error(err)
	}
	w.requireList(t, openEnt, "first: ", "renamed: Hound")
}

// The migration of ent's schema is DDL: PostgreSQL takes it into the branch,
// MariaDB refuses it.
func TestEntMigration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for e, db := range w.pools {
		for _, s := range []string{"DROP TABLE pets", "DROP TABLE people"} {
			if _, err := db.ExecContext(t.Context(), s); err != nil {
				t.Fatal(e, err)
			}
		}
	}
	if err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
		return newEnt(e, branch).Schema.Create(ctx)
	}); err == nil {
		t.Error("a migration in a MariaDB branch was accepted")
	}
	if err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
		if e == porthos {
			return nil
		}
		if err := newEnt(e, branch).Schema.Create(ctx); err != nil {
			return err
		}
		return add(ctx, openEnt(t, e, branch), "first", "Cat")
	}); err != nil {
		t.Error(err)
	}
	list, err := openEnt(t, athos, w.pools[athos]).List(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("%q, %v", list, err)
	}
}
