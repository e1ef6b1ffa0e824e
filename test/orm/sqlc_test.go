package orm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	mysqlc "github.com/troth-tx/troth/test/orm/sqlc/mysql"
	pgsqlc "github.com/troth-tx/troth/test/orm/sqlc/postgres"
)

func openSQLC(_ *testing.T, e engine, db *sql.DB) registry {
	if e == porthos {
		return mysqlcRegistry{db, mysqlc.New(db)}
	}
	return pgsqlcRegistry{db, pgsqlc.New(db)}
}

type pgsqlcRegistry struct {
	db *sql.DB
	q  *pgsqlc.Queries
}

func (r pgsqlcRegistry) Add(ctx context.Context, name string, pets ...string) (int64, error) {
	id, err := r.q.CreatePerson(ctx, name)
	for _, pet := range pets {
		if err == nil {
			err = r.q.CreatePet(ctx, pgsqlc.CreatePetParams{Name: pet, OwnerID: id})
		}
	}
	return id, err
}

func (r pgsqlcRegistry) Nested(ctx context.Context, f func(registry) error) error {
	return inTx(ctx, r.db, func(tx *sql.Tx) error { return f(pgsqlcRegistry{r.db, r.q.WithTx(tx)}) })
}

func (r pgsqlcRegistry) List(ctx context.Context) (list []string, err error) {
	people, err := r.q.ListPeople(ctx)
	for _, p := range people {
		pets, err := r.q.PetsOf(ctx, p.ID)
		if err != nil {
			return nil, err
		}
		list = append(list, line(p.Name, pets))
	}
	return list, err
}

type mysqlcRegistry struct {
	db *sql.DB
	q  *mysqlc.Queries
}

func (r mysqlcRegistry) Add(ctx context.Context, name string, pets ...string) (int64, error) {
	id, err := r.q.CreatePerson(ctx, name)
	for _, pet := range pets {
		if err == nil {
			err = r.q.CreatePet(ctx, mysqlc.CreatePetParams{Name: pet, OwnerID: id})
		}
	}
	return id, err
}

func (r mysqlcRegistry) Nested(ctx context.Context, f func(registry) error) error {
	return inTx(ctx, r.db, func(tx *sql.Tx) error { return f(mysqlcRegistry{r.db, r.q.WithTx(tx)}) })
}

func (r mysqlcRegistry) List(ctx context.Context) (list []string, err error) {
	people, err := r.q.ListPeople(ctx)
	for _, p := range people {
		pets, err := r.q.PetsOf(ctx, p.ID)
		if err != nil {
			return nil, err
		}
		list = append(list, line(p.Name, pets))
	}
	return list, err
}

func inTx(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// Rows affected, lists as arguments (an array in PostgreSQL).
func TestSQLC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
		for _, name := range []string{"a", "b", "c"} {
			if err := add(ctx, openSQLC(t, e, branch), name); err != nil {
				return err
			}
		}
		var renamed int64
		var found int
		var err error
		if e == athos {
			q := pgsqlc.New(branch)
			renamed, err = q.RenamePerson(ctx, pgsqlc.RenamePersonParams{OldName: "a", NewName: "d"})
			if err != nil {
				return err
			}
			people, err := q.PeopleNamed(ctx, []string{"a", "b", "d"})
			if err != nil {
				return err
			}
			found = len(people)
		} else {
			q := mysqlc.New(branch)
			renamed, err = q.RenamePerson(ctx, mysqlc.RenamePersonParams{OldName: "a", NewName: "d"})
			if err != nil {
				return err
			}
			people, err := q.PeopleNamed(ctx, []string{"a", "b", "d"})
			if err != nil {
				return err
			}
			found = len(people)
		}
		if renamed != 1 || found != 2 {
			return fmt.Errorf("%d renamed, %d found", renamed, found)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	w.requireList(t, openSQLC, "b: ", "c: ", "d: ")
}
