package orm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/jmoiron/sqlx"
)

type sqlxPerson struct {
	ID   int64  `db:"id"`
	Name string `db:"name"`
}

type sqlxPet struct {
	Name    string `db:"name"`
	OwnerID int64  `db:"owner_id"`
}

type sqlxRegistry struct {
	engine engine
	db     *sqlx.DB
	ext    sqlx.ExtContext // the DB or a Tx
}

func newSQLX(e engine, db *sql.DB) *sqlx.DB {
	return sqlx.NewDb(db, map[engine]string{athos: "pgx", porthos: "mysql"}[e])
}

func openSQLX(_ *testing.T, e engine, db *sql.DB) registry {
	x := newSQLX(e, db)
	return sqlxRegistry{e, x, x}
}

func (r sqlxRegistry) Add(ctx context.Context, name string, pets ...string) (int64, error) {
	p := sqlxPerson{Name: name}
	if err := r.insert(ctx, &p); err != nil {
		return 0, err
	}
	if len(pets) == 0 {
		return p.ID, nil
	}
	var rows []sqlxPet
	for _, name := range pets {
		rows = append(rows, sqlxPet{Name: name, OwnerID: p.ID})
	}
	_, err := sqlx.NamedExecContext(ctx, r.ext, "INSERT INTO pets (name, owner_id) VALUES (:name, :owner_id)", rows)
	return p.ID, err
}

func (r sqlxRegistry) insert(ctx context.Context, p *sqlxPerson) (err error) {
	const insert = "INSERT INTO people (name) VALUES (:name)"
	if r.engine == porthos {
		res, err := sqlx.NamedExecContext(ctx, r.ext, insert, p)
		if err == nil {
			p.ID, err = res.LastInsertId()
		}
		return err
	}
	rows, err := sqlx.NamedQueryContext(ctx, r.ext, insert+" RETURNING id", p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if rows.Next() {
		return rows.StructScan(p)
	}
	return rows.Err()
}

func (r sqlxRegistry) Nested(ctx context.Context, f func(registry) error) error {
	tx, err := r.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(sqlxRegistry{r.engine, r.db, tx}); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (r sqlxRegistry) List(ctx context.Context) ([]string, error) {
	var people []sqlxPerson
	if err := sqlx.SelectContext(ctx, r.ext, &people, "SELECT id, name FROM people ORDER BY name"); err != nil {
		return nil, err
	}
	var list []string
	for _, p := range people {
		var pets []string
		if err := sqlx.SelectContext(ctx, r.ext, &pets, r.ext.Rebind("SELECT name FROM pets WHERE owner_id = ?"), p.ID); err != nil {
			return nil, err
		}
		list = append(list, line(p.Name, pets))
	}
	return list, nil
}

// What sqlx adds to database/sql, on the branch itself and in Beginx.
func TestSQLX(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
		db := newSQLX(e, branch)
		if err := sqlxInsert(ctx, db, "a", "b", "c"); err != nil {
			return err
		}
		var got sqlxPerson
		if err := db.GetContext(ctx, &got, db.Rebind("SELECT id, name FROM people WHERE name = ?"), "b"); err != nil || got.Name != "b" || got.ID < 1 {
			return fmt.Errorf("Get: %+v, %w", got, err)
		}
		if err := db.GetContext(ctx, &got, "SELECT id, name FROM people WHERE 1 = 0"); !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("Get of nothing: %w", err)
		}
		query, args, err := sqlx.In("SELECT name FROM people WHERE name IN (?) ORDER BY name", []string{"a", "c", "d"})
		if err != nil {
			return err
		}
		var names []string
		if err := db.SelectContext(ctx, &names, db.Rebind(query), args...); err != nil || !slices.Equal(names, []string{"a", "c"}) {
			return fmt.Errorf("Select: %q, %w", names, err)
		}
		undone, err := db.Beginx()
		if err != nil {
			return err
		}
		if _, err := undone.NamedExec("DELETE FROM people WHERE name = :name", sqlxPerson{Name: "a"}); err != nil {
			return err
		}
		return undone.Rollback()
	})
	if err != nil {
		t.Error(err)
	}
	w.requireList(t, openSQLX, "a: ", "b: ", "c: ")
}

// sqlxInsert uses a named statement in a transaction.
func sqlxInsert(ctx context.Context, db *sqlx.DB, names ...string) error {
	tx := db.MustBeginTx(ctx, nil)
	defer func() { _ = tx.Rollback() }() // ErrTxDone after Commit
	stmt, err := tx.PrepareNamedContext(ctx, "INSERT INTO people (name) VALUES (:name)")
	if err != nil {
		return err
	}
	defer func() { _ = stmt.Close() }()
	for _, name := range names {
		if _, err := stmt.ExecContext(ctx, map[string]any{"name": name}); err != nil {
			return err
		}
	}
	return tx.Commit()
}
