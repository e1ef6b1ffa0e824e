package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	driversql "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	_ "github.com/lib/pq"              // database/sql driver "postgres"
	_ "modernc.org/sqlite"             // database/sql driver "sqlite"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/pgxtx"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlite"
)

// A flavour is one of the ways in which a program may use a database with troth.
type flavour string

// The flavours.
const (
	flavourPgx    flavour = "postgres/pgx"
	flavourPq     flavour = "postgres/pq"
	flavourPgxtx  flavour = "pgxtx"
	flavourMySQL  flavour = "mysql"
	flavourMulti  flavour = "mysql/multi" // several statements in one request
	flavourSQLite flavour = "sqlite"
)

// A participant is a database as a manager's clients use it.
type participant struct {
	flavour flavour
	res     troth.Resource
	enlist  func(ctx context.Context, tx *troth.Tx) (session, error)
	queue   func(ctx context.Context, tx *troth.Tx, st ...statement) error // nil unless pgxtx
}

// A session is what an op needs of a branch.
type session interface {
	exec(ctx context.Context, query string, args ...any) error
	text(ctx context.Context, query string, args ...any) (string, error) // the one value of one row
	undone(ctx context.Context, query string, args ...any) error         // fails in a savepoint, which is rolled back
}

// errHarmless: a statement that had to fail did not.
var errHarmless = errors.New("torture: a statement that must fail did not")

// A statement that must change one row.
type statement struct {
	query string
	args  []any
}

// openParticipant makes a resource. Nothing is sent to the database yet.
func openParticipant(name string, f flavour, dsn string, sessions int) (*participant, error) {
	p := &participant{flavour: f}
	if f == flavourPgxtx {
		return p, p.openPgxtx(name, dsn, sessions)
	}
	driver := map[flavour]string{
		flavourPgx: "pgx", flavourPq: "postgres", flavourMySQL: "mysql", flavourMulti: "mysql", flavourSQLite: "sqlite",
	}[f]
	db, err := openHandle(driver, dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(sessions)
	db.SetMaxIdleConns(sessions)
	var handle func(context.Context, *troth.Tx) (*sql.DB, error)
	numbered := false
	switch f {
	case flavourPgx, flavourPq:
		r := postgres.New(name, db)
		p.res, handle, numbered = r, r.DB, true
	case flavourMySQL, flavourMulti:
		r := mysql.New(name, db)
		p.res, handle = r, r.DB
	case flavourSQLite:
		r := sqlite.New(name, db)
		p.res, handle = r, r.DB
	case flavourPgxtx: // above
	}
	p.enlist = func(ctx context.Context, tx *troth.Tx) (session, error) {
		branch, err := handle(ctx, tx)
		return sqlSession{branch, numbered}, err
	}
	return p, nil
}

func openHandle(driver, dsn string) (*sql.DB, error) {
	if driver == "mysql" {
		cfg, err := driversql.ParseDSN(dsn)
		if err != nil {
			return nil, err
		}
		cfg.Logger = &driversql.NopLogger{} // broken connections are no news here
		connector, err := driversql.NewConnector(cfg)
		if err != nil {
			return nil, err
		}
		return sql.OpenDB(connector), nil
	}
	return sql.Open(driver, dsn)
}

func (p *participant) openPgxtx(name, dsn string, sessions int) error {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return err
	}
	cfg.MaxConns = int32(sessions)
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return err
	}
	r := pgxtx.New(name, pool)
	p.res = r
	p.enlist = func(ctx context.Context, tx *troth.Tx) (session, error) {
		branch, err := r.Tx(ctx, tx)
		return pgxSession{branch}, err
	}
	p.queue = func(ctx context.Context, tx *troth.Tx, statements ...statement) error {
		out := make([]pgxtx.Stmt, len(statements))
		for i, s := range statements {
			out[i] = pgxtx.Stmt{SQL: number(s.query), Args: s.args, Rows: 1}
		}
		return r.Queue(ctx, tx, out...)
	}
	return nil
}

type sqlSession struct {
	db       *sql.DB
	numbered bool
}

func (s sqlSession) query(q string) string {
	if s.numbered {
		return number(q)
	}
	return q
}

func (s sqlSession) exec(ctx context.Context, query string, args ...any) error {
	res, err := s.db.ExecContext(ctx, s.query(query), args...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	return oneRow(n, err)
}

func (s sqlSession) text(ctx context.Context, query string, args ...any) (string, error) {
	var v string
	err := s.db.QueryRowContext(ctx, s.query(query), args...).Scan(&v)
	return v, err
}

func (s sqlSession) undone(ctx context.Context, query string, args ...any) error {
	nested, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := nested.ExecContext(ctx, s.query(query), args...); err == nil {
		return errors.Join(errHarmless, nested.Rollback())
	}
	return nested.Rollback()
}

type pgxSession struct{ tx pgx.Tx }

func (s pgxSession) exec(ctx context.Context, query string, args ...any) error {
	tag, err := s.tx.Exec(ctx, number(query), args...)
	return oneRow(tag.RowsAffected(), err)
}

func (s pgxSession) text(ctx context.Context, query string, args ...any) (string, error) {
	var v string
	err := s.tx.QueryRow(ctx, number(query), args...).Scan(&v)
	return v, err
}

func (s pgxSession) undone(ctx context.Context, query string, args ...any) error {
	nested, err := s.tx.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := nested.Exec(ctx, number(query), args...); err == nil {
		return errors.Join(errHarmless, nested.Rollback(ctx))
	}
	return nested.Rollback(ctx)
}

func oneRow(n int64, err error) error {
	if err == nil && n != 1 {
		return fmt.Errorf("torture: %d rows changed instead of one", n)
	}
	return err
}

// number turns the placeholders "?" into PostgreSQL's.
func number(query string) string {
	var b strings.Builder
	n := 0
	for _, c := range query {
		if c != '?' {
			b.WriteRune(c)
			continue
		}
		n++
		b.WriteString("$" + strconv.Itoa(n))
	}
	return b.String()
}
