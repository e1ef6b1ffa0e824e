// Package pgxtx lets PostgreSQL databases take part in global transactions
// through pgx's own interface, over a pgxpool.Pool.
//
//	athos := pgxtx.New("athos", pool)
//	...
//	err = mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
//		ptx, err := athos.Tx(ctx, tx)
//		if err != nil {
//			return err
//		}
//		_, err = ptx.Exec(ctx, "UPDATE account SET balance = balance - $1 WHERE id = $2", 100, 1)
//		return err
//	})
//
// A program that needs no answer but the number of rows hands its statements over
// with [Resource.Queue]: they travel together with the vote or the commit, so
// that a branch costs one round trip, and COMMIT PREPARED another.
//
// What package postgres says about the server holds here too.
package pgxtx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/pgrm"
)

// A Resource is one PostgreSQL database. It implements [troth.Resource],
// [troth.Inspector] and [troth.Checker].
type Resource struct {
	*pgrm.Core
	pool *pgxpool.Pool

	mu       sync.Mutex // guards recovery
	recovery *sql.DB    // made at first use
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

// New makes a resource of a pool. The name is stable and the same in every
// process, see [troth.ValidName]. The pool stays the caller's. Recovery does not
// use it: it opens up to two connections of its own with the pool's ConnConfig,
// BeforeConnect and AfterConnect.
func New(name string, pool *pgxpool.Pool, opts ...Option) *Resource {
	var o pgrm.Options
	for _, f := range opts {
		f(&o)
	}
	r := &Resource{pool: pool}
	r.Core = pgrm.NewCore(name, o, r.recoveryPool)
	return r
}

// recoveryPool is not the program's pool, all of whose sessions may be waiting for
// what recovery must finish.
func (r *Resource) recoveryPool() (*sql.DB, error) {
	if r.pool == nil {
		return nil, errors.New("the *pgxpool.Pool is nil")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recovery == nil {
		cfg := r.pool.Config()
		var opts []stdlib.OptionOpenDB
		if cfg.BeforeConnect != nil {
			opts = append(opts, stdlib.OptionBeforeConnect(cfg.BeforeConnect))
		}
		if cfg.AfterConnect != nil {
			opts = append(opts, stdlib.OptionAfterConnect(cfg.AfterConnect))
		}
		r.recovery = stdlib.OpenDB(*cfg.ConnConfig, opts...)
		r.recovery.SetMaxOpenConns(1) // and the one that the reserve adds
	}
	return r.recovery, nil
}

// Close is as [troth.Resource] says.
func (r *Resource) Close(ctx context.Context) error {
	err := r.Core.Close(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recovery != nil {
		err = errors.Join(err, r.recovery.Close())
		r.recovery = nil
	}
	return err
}

// Tx returns the branch of tx on this database. It is a pgx.Tx of which the
// program uses all but the end: Commit and Rollback are refused, for the
// transaction manager ends it. Begin sets a savepoint, and its Tx is ended by the
// program as usual. Like every pgx.Tx it is for one goroutine at a time.
//
// Conn returns the connection with the branch begun on it, for its type map and
// the like. Statements sent through it are part of the branch, but are not
// looked at: a COMMIT there breaks the branch, and is found out only later.
func (r *Resource) Tx(ctx context.Context, tx *troth.Tx) (pgx.Tx, error) {
	s, err := r.session(ctx, tx)
	if err != nil {
		return nil, err
	}
	return &branchTx{s: s}, nil
}

// A Stmt is a statement for [Resource.Queue].
type Stmt struct {
	SQL  string // one statement
	Args []any

	// Rows is how many rows the statement must change (or return, if it is a
	// query), or else the whole transaction is rolled back. Negative: any number.
	Rows int64
}

// Queue hands over statements that are sent when the transaction commits, after
// everything that was sent until then, in one round trip with the vote or the
// commit. Their errors are errors of the commit. The texts are prepared once per
// connection, so use arguments and not ever new texts.
func (r *Resource) Queue(ctx context.Context, tx *troth.Tx, stmts ...Stmt) error {
	s, err := r.session(ctx, tx)
	if err != nil {
		return err
	}
	return s.enqueue(stmts)
}

func (r *Resource) session(ctx context.Context, tx *troth.Tx) (*session, error) {
	b, err := tx.Enlist(ctx, r)
	if err != nil {
		return nil, err
	}
	own, ok := b.(*pgrm.Branch)
	if !ok {
		return nil, fmt.Errorf("pgxtx: resource %s: the branch is a %T", r.Name(), b)
	}
	return own.Session().(*session), nil
}

// Begin is as [troth.Resource] says. It takes a connection out of the pool; BEGIN
// travels with the first statement.
func (r *Resource) Begin(ctx context.Context, cfg troth.BranchConfig) (troth.Branch, error) {
	begin, err := r.BeginSQL(cfg.Isolation)
	if err != nil {
		return nil, &troth.BranchError{Resource: r.Name(), Op: "begin", Err: err}
	}
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return nil, &troth.BranchError{Resource: r.Name(), Op: "begin", Err: err}
	}
	life := cfg.Context
	if life == nil {
		life = context.Background()
	}
	return r.NewBranch(newSession(life, r.Name(), conn, begin), begin), nil
}
