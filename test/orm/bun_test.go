package orm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/mysqldialect"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/schema"
)

type bunPerson struct {
	bun.BaseModel `bun:"table:people"`

	ID   int64 `bun:",pk,autoincrement"`
	Name string
	Pets []*bunPet `bun:"rel:has-many,join:id=owner_id"`
}

type bunPet struct {
	bun.BaseModel `bun:"table:pets"`

	ID      int64 `bun:",pk,autoincrement"`
	Name    string
	OwnerID int64
}

type bunRegistry struct{ db bun.IDB }

func newBun(e engine, db *sql.DB) *bun.DB {
	var dialect schema.Dialect = pgdialect.New()
	if e == porthos {
		dialect = mysqldialect.New()
	}
	return bun.NewDB(db, dialect)
}

func openBun(_ *testing.T, e engine, db *sql.DB) registry { return bunRegistry{newBun(e, db)} }

func (r bunRegistry) Add(ctx context.Context, name string, pets ...string) (int64, error) {
	p := bunPerson{Name: name}
	if _, err := r.db.NewInsert().Model(&p).Exec(ctx); err != nil {
		return 0, err
	}
	if len(pets) == 0 {
		return p.ID, nil
	}
	var rows []bunPet
	for _, name := range pets {
		rows = append(rows, bunPet{Name: name, OwnerID: p.ID})
	}
	_, err := r.db.NewInsert().Model(&rows).Exec(ctx)
	return p.ID, err
}

func (r bunRegistry) Nested(ctx context.Context, f func(registry) error) error {
	return r.db.RunInTx(ctx, nil, func(_ context.Context, tx bun.Tx) error { return f(bunRegistry{tx}) })
}

func (r bunRegistry) List(ctx context.Context) ([]string, error) {
	var people []bunPerson
	// It counts on a goroutine of its own, at the same time.
	n, err := r.db.NewSelect().Model(&people).Relation("Pets").Order("name").ScanAndCount(ctx)
	if err == nil && int(n) != len(people) {
		err = fmt.Errorf("%d people, counted as %d", len(people), n)
	}
	var list []string
	for _, p := range people {
		var names []string
		for _, pet := range p.Pets {
			names = append(names, pet.Name)
		}
		list = append(list, line(p.Name, names))
	}
	return list, err
}

// bun nests transactions with savepoint texts of its own.
func TestBunNestedTransactions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
		return newBun(e, branch).RunInTx(ctx, nil, func(ctx context.Context, outer bun.Tx) error {
			if err := add(ctx, bunRegistry{outer}, "outer"); err != nil {
				return err
			}
			err := outer.RunInTx(ctx, nil, func(ctx context.Context, inner bun.Tx) error {
				if err := add(ctx, bunRegistry{inner}, "undone", "Cat"); err != nil {
					return err
				}
				if err := add(ctx, bunRegistry{inner}, "outer"); err == nil {
					return errors.New("a duplicate was accepted")
				}
				return errNo
			})
			if !errors.Is(err, errNo) {
				return fmt.Errorf("the inner transaction ended with %w", err)
			}
			return outer.RunInTx(ctx, nil, func(ctx context.Context, inner bun.Tx) error {
				return add(ctx, bunRegistry{inner}, "kept", "Dog")
			})
		})
	})
	if err != nil {
		t.Error(err)
	}
	w.requireList(t, openBun, "kept: Dog", "outer: ")
}

// Upserts are a dialect's own.
func TestBunUpsert(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
		db := newBun(e, branch)
		for range 2 {
			q := db.NewInsert().Model(&[]bunPerson{{Name: "a"}, {Name: "b"}})
			if e == athos {
				q = q.On("CONFLICT (name) DO UPDATE").Set("name = EXCLUDED.name")
			} else {
				q = q.On("DUPLICATE KEY UPDATE")
			}
			if _, err := q.Exec(ctx); err != nil {
				return err
			}
		}
		res, err := db.NewUpdate().Model((*bunPerson)(nil)).Set("name = ?", "c").Where("name = ?", "a").Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); n != 1 || err != nil {
			return fmt.Errorf("%d rows updated, %w", n, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	w.requireList(t, openBun, "b: ", "c: ")
}
