// Package postgres lets PostgreSQL databases take part in global transactions,
// through any database/sql driver: pgx's stdlib, lib/pq, or one that wraps them.
//
//	athos := postgres.New("athos", db)
//	mgr, err := troth.Open(ctx, troth.Config{Resources: []troth.Resource{athos, porthos}})
//	...
//	err = mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
//		db, err := athos.DB(ctx, tx)
//		if err != nil {
//			return err
//		}
//		_, err = db.ExecContext(ctx, "UPDATE account SET balance = balance - 100 WHERE id = 1")
//		return err
//	})
//
// The server needs max_prepared_transactions > 0 to vote; with 0 the database can
// only be the home of a transaction, where the decision is recorded. Every process
// that may recover a branch must log in as the role that prepared it, or as a
// superuser. PostgreSQL 13 or later.
//
// Programs on pgx's own interface use package pgxtx instead.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/pgrm"
)

// A Resource is one PostgreSQL database. It implements [troth.Resource],
// [troth.Inspector] and [troth.Checker].
type Resource struct {
	*pgrm.Core
	db    *sql.DB
	lines pgrm.Lines
}

var (
	_ troth.Resource  = (*Resource)(nil)
	_ troth.Inspector = (*Resource)(nil)
	_ troth.Checker   = (*Resource)(nil)
)

// An Option changes a Resource.
type Option func(*pgrm.Options)

// Schema names the schema of the decision table. Without it, it is the first one
// of the session's search_path.
func Schema(name string) Option { return func(o *pgrm.Options) { o.Schema = name } }

// Allow lets Open accept what [Resource.Check] calls fatal, by its subject:
// Allow("fsync") for a test server. Transactions are then not safe.
func Allow(subjects ...string) Option {
	return func(o *pgrm.Options) { o.Allow = append(o.Allow, subjects...) }
}

// New makes a resource of a database. The name is stable and the same in every
// process, see [troth.ValidName]. The pool stays the caller's; the resource holds
// one session of it for recovery, which it adds to the pool's limit.
func New(name string, db *sql.DB, opts ...Option) *Resource {
	var o pgrm.Options
	for _, f := range opts {
		f(&o)
	}
	r := &Resource{db: db}
	r.Core = pgrm.NewCore(name, o, func() (*sql.DB, error) {
		if db == nil {
			return nil, errors.New("the *sql.DB is nil")
		}
		return db, nil
	})
	return r
}

// DB returns the branch of tx on this database as a genuine *sql.DB: all its
// statements run in the branch, on one session. BeginTx sets a savepoint. The
// handle ends with the transaction; closing it does nothing.
func (r *Resource) DB(ctx context.Context, tx *troth.Tx) (*sql.DB, error) {
	b, err := tx.Enlist(ctx, r)
	if err != nil {
		return nil, err
	}
	own, ok := b.(*pgrm.Branch)
	if !ok {
		return nil, fmt.Errorf("postgres: resource %s: the branch is a %T", r.Name(), b)
	}
	return own.Session().(*session).DB(), nil
}

// Begin is as [troth.Resource] says. It takes a session out of the pool; BEGIN
// travels with the first statement where the driver allows.
func (r *Resource) Begin(ctx context.Context, cfg troth.BranchConfig) (troth.Branch, error) {
	begin, err := r.BeginSQL(cfg.Isolation)
	if err != nil {
		return nil, &troth.BranchError{Resource: r.Name(), Op: "begin", Err: err}
	}
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return nil, &troth.BranchError{Resource: r.Name(), Op: "begin", Err: err}
	}
	return r.NewBranch(newSession(r, conn, cfg, begin), begin), nil
}
