package orm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
)

// querier is *sql.DB or *sql.Tx.
type querier interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

// plain is written with database/sql alone. List asks for the pets of one person
// while the list of people is open.
type plain struct {
	engine engine
	db     *sql.DB
	q      querier
}

func openSQL(_ *testing.T, e engine, db *sql.DB) registry { return plain{e, db, db} }

func (p plain) place(n int) string {
	if p.engine == porthos {
		return "?"
	}
	return fmt.Sprintf("$%d", n)
}

func (p plain) Add(ctx context.Context, name string, pets ...string) (id int64, err error) {
	if p.engine == athos {
		err = p.q.QueryRowContext(ctx, "INSERT INTO people (name) VALUES ($1) RETURNING id", name).Scan(&id)
	} else {
		var res sql.Result
		if res, err = p.q.ExecContext(ctx, "INSERT INTO people (name) VALUES (?)", name); err == nil {
			id, err = res.LastInsertId()
		}
	}
	for _, pet := range pets {
		if err == nil {
			_, err = p.q.ExecContext(ctx, "INSERT INTO pets (name, owner_id) VALUES ("+p.place(1)+", "+p.place(2)+")", pet, id)
		}
	}
	return id, err
}

func (p plain) Nested(ctx context.Context, f func(registry) error) error {
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(plain{p.engine, p.db, tx}); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (p plain) List(ctx context.Context) (list []string, err error) {
	people, err := p.q.QueryContext(ctx, "SELECT id, name FROM people ORDER BY name")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, people.Close()) }()
	for people.Next() {
		var id int64
		var name string
		if err := people.Scan(&id, &name); err != nil {
			return nil, err
		}
		pets, err := p.pets(ctx, id)
		if err != nil {
			return nil, err
		}
		list = append(list, line(name, pets))
	}
	return list, people.Err()
}

func (p plain) pets(ctx context.Context, owner int64) (pets []string, err error) {
	rows, err := p.q.QueryContext(ctx, "SELECT name FROM pets WHERE owner_id = "+p.place(1), owner)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var pet string
		if err := rows.Scan(&pet); err != nil {
			return nil, err
		}
		pets = append(pets, pet)
	}
	return pets, rows.Err()
}
