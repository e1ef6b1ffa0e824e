package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/filelog"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/pgxtx"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlregister"
)

// A way is one way of moving money from one database to another.
type way struct {
	name string
	// transfer moves 1 from account from in the first database to account to in the
	// second, as transaction no.
	transfer func(ctx context.Context, from, to int, no int64) error
	close    func() error
}

const (
	pay     = "UPDATE account SET balance = balance - 1 WHERE id = "
	receive = "UPDATE account SET balance = balance + 1 WHERE id = "
)

// statement is the update as text, without arguments, so that every driver sends
// it in one round trip.
func statement(text string, id int) string { return fmt.Sprintf("%s%d", text, id) }

// ways lists what is compared on a pair of engines.
func (w *world) ways(ctx context.Context, pair [2]engine) (out []way, err error) {
	defer func() {
		if err != nil {
			for _, y := range out {
				err = errors.Join(err, y.close())
			}
			out = nil
		}
	}()
	add := func(y way, e error) {
		if e == nil {
			out = append(out, y)
		}
		err = errors.Join(err, e)
	}
	add(w.dual(pair, driverDefault))
	add(w.sequential("sequential-2pc", pair, driverDefault))
	add(w.sequential("sequential-2pc/plain", pair, driverPlain))
	add(w.troth(ctx, "troth/plain", pair, driverPlain, nil))
	add(w.troth(ctx, "troth", pair, driverDefault, nil))
	add(w.troth(ctx, "troth@decision", pair, driverDefault, nil, troth.ReturnAtDecision()))
	add(w.trothFile(ctx, pair))
	add(w.trothSQL(ctx, pair))
	if pair == [2]engine{postgresEngine, postgresEngine} {
		add(w.pgxtx(ctx, "pgxtx", false))
		add(w.pgxtx(ctx, "pgxtx@decision", false, troth.ReturnAtDecision()))
		add(w.pgxtx(ctx, "pgxtx queued", true))
		add(w.pgxtx(ctx, "pgxtx queued@decision", true, troth.ReturnAtDecision()))
	}
	return out, err
}

func (w *world) openPair(pair [2]engine, kind driverKind) (dbs [2]*sql.DB, closeAll func() error, err error) {
	for i, e := range pair {
		if dbs[i], err = w.open(e, i, kind); err != nil {
			return dbs, nil, err
		}
	}
	return dbs, func() error { return errors.Join(dbs[0].Close(), dbs[1].Close()) }, nil
}

// dual is two independent commits: a crash between them loses money.
func (w *world) dual(pair [2]engine, kind driverKind) (way, error) {
	dbs, closeAll, err := w.openPair(pair, kind)
	return way{name: "dual-unsafe", close: closeAll, transfer: func(ctx context.Context, from, to int, _ int64) error {
		a, err := dbs[0].BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = a.Rollback() }()
		if _, err := a.ExecContext(ctx, statement(pay, from)); err != nil {
			return err
		}
		b, err := dbs[1].BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = b.Rollback() }()
		if _, err := b.ExecContext(ctx, statement(receive, to)); err != nil {
			return err
		}
		if err := a.Commit(); err != nil {
			return err
		}
		return b.Commit()
	}}, err
}

// sequential is gosql2pc's way: work and prepare on one database after the other,
// commit on one after the other, no decision record.
func (w *world) sequential(name string, pair [2]engine, kind driverKind) (way, error) {
	dbs, closeAll, err := w.openPair(pair, kind)
	run := time.Now().UnixNano()
	return way{name: name, close: closeAll, transfer: func(ctx context.Context, from, to int, no int64) error {
		var conns [2]*sql.Conn
		work := [2]string{statement(pay, from), statement(receive, to)}
		names := [2]string{fmt.Sprintf("seq-%d-%d-0", run, no), fmt.Sprintf("seq-%d-%d-1", run, no)}
		for i, e := range pair {
			c, err := dbs[i].Conn(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			conns[i] = c
			for _, s := range e.prepare(names[i], work[i]) {
				if _, err := c.ExecContext(ctx, s); err != nil {
					return err
				}
			}
		}
		for i, e := range pair {
			if _, err := conns[i].ExecContext(ctx, e.commitPrepared(names[i])); err != nil {
				return err
			}
		}
		return nil
	}}, err
}

func (e engine) prepare(name, work string) []string {
	if e == postgresEngine {
		return []string{"BEGIN", work, "PREPARE TRANSACTION '" + name + "'"}
	}
	return []string{"XA START '" + name + "'", work, "XA END '" + name + "'", "XA PREPARE '" + name + "'"}
}

func (e engine) commitPrepared(name string) string {
	if e == postgresEngine {
		return "COMMIT PREPARED '" + name + "'"
	}
	return "XA COMMIT '" + name + "'"
}

// resource is what postgres and mysql have in common here.
type resource interface {
	troth.Resource
	DB(ctx context.Context, tx *troth.Tx) (*sql.DB, error)
}

func (w *world) troth(ctx context.Context, name string, pair [2]engine, kind driverKind, reg troth.Register, opts ...troth.TxOption) (way, error) {
	dbs, closeAll, err := w.openPair(pair, kind)
	if err != nil {
		return way{}, err
	}
	var rs [2]resource
	for i, e := range pair {
		if e == postgresEngine {
			rs[i] = postgres.New([]string{"athos", "porthos"}[i], dbs[i])
		} else {
			rs[i] = mysql.New([]string{"athos", "porthos"}[i], dbs[i])
		}
	}
	mgr, err := open(ctx, reg, rs[0], rs[1])
	if err != nil {
		return way{}, errors.Join(err, closeAll())
	}
	y := way{name: name, close: func() error { return errors.Join(mgr.Close(ctx), closeAll()) }}
	y.transfer = func(ctx context.Context, from, to int, _ int64) error {
		return mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
			a, err := rs[0].DB(ctx, tx)
			if err != nil {
				return err
			}
			if _, err := a.ExecContext(ctx, statement(pay, from)); err != nil {
				return err
			}
			b, err := rs[1].DB(ctx, tx)
			if err != nil {
				return err
			}
			_, err = b.ExecContext(ctx, statement(receive, to))
			return err
		}, opts...)
	}
	return y, nil
}

// open opens a Manager that forgets its records at once, so that forgetting is
// part of what is measured.
func open(ctx context.Context, reg troth.Register, rs ...troth.Resource) (*troth.Manager, error) {
	return troth.Open(ctx, troth.Config{Domain: "bench", Resources: rs, Register: reg, KeepDecisions: -1})
}

func (w *world) trothFile(ctx context.Context, pair [2]engine) (way, error) {
	log, err := filelog.Open(w.logDir(string(pair[0]+pair[1])), filelog.WithSyncDelay(w.profile.Sync), filelog.WithUnsafeFileSystem())
	if err != nil {
		return way{}, err
	}
	return w.troth(ctx, "troth+filelog", pair, driverDefault, log)
}

// trothSQL keeps decisions in a database of its own on the first server.
func (w *world) trothSQL(ctx context.Context, pair [2]engine) (way, error) {
	db, err := w.open(pair[0], 0, driverDefault)
	if err != nil {
		return way{}, err
	}
	y, err := w.troth(ctx, "troth+sql", pair, driverDefault, sqlregister.New(db))
	inner := y.close
	y.close = func() error { return errors.Join(inner(), db.Close()) }
	return y, err
}

func (w *world) pgxtx(ctx context.Context, name string, queued bool, opts ...troth.TxOption) (way, error) {
	var rs [2]*pgxtx.Resource
	var closers []func() error
	for i := range rs {
		pool, err := w.openPool(ctx, i)
		if err != nil {
			return way{}, err
		}
		closers = append(closers, func() error { pool.Close(); return nil })
		rs[i] = pgxtx.New([]string{"athos", "porthos"}[i], pool)
	}
	mgr, err := open(ctx, nil, rs[0], rs[1])
	if err != nil {
		return way{}, err
	}
	y := way{name: name, close: func() error { return errors.Join(mgr.Close(ctx), closers[0](), closers[1]()) }}
	work := func(ctx context.Context, r *pgxtx.Resource, tx *troth.Tx, text string, id int) error {
		if queued {
			return r.Queue(ctx, tx, pgxtx.Stmt{SQL: text + "$1", Args: []any{id}, Rows: 1})
		}
		t, err := r.Tx(ctx, tx)
		if err != nil {
			return err
		}
		_, err = t.Exec(ctx, text+"$1", id)
		return err
	}
	y.transfer = func(ctx context.Context, from, to int, _ int64) error {
		return mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
			if err := work(ctx, rs[0], tx, pay, from); err != nil {
				return err
			}
			return work(ctx, rs[1], tx, receive, to)
		}, opts...)
	}
	return y, nil
}
