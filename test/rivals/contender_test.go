package rivals

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/twophase"
)

// A contender is a way of doing work in two databases as if it were one
// transaction.
type contender struct {
	name string
	open func(ctx context.Context, dbs [2]*database) (bank, error)

	// ready is the message whose answer is the last that the program gets before its
	// first commit.
	ready moment
}

// A bank is a contender at work on a pair of databases.
type bank interface {
	// transfer does the job once. What its error says is for told to read.
	transfer(ctx context.Context, j job) error

	// recover ends what earlier processes left behind, as far as this way has means
	// for that, and may be called again and again.
	recover(ctx context.Context) error

	close() error
}

// A job is what one transfer does in each database.
type job [2]func(ctx context.Context, db execer) error

// An execer is an *sql.Tx, an *sql.Conn or a pinned *sql.DB.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

var contenders = []contender{
	{"two commits", openPlain, moment{receiving, 1}},
	{"prepare, commit in sequence", openSequential, moment{voting, 2}},
	{"troth", openTroth, moment{voting, 1}},
	{"twophase", openTwophase, moment{voting, 1}},
}

// plain is two local transactions, committed one after the other.
type plain struct{ dbs [2]*sql.DB }

func openPlain(_ context.Context, dbs [2]*database) (bank, error) {
	pools, err := openPools(dbs)
	return plain{pools}, err
}

func (p plain) transfer(ctx context.Context, j job) error {
	var txs [2]*sql.Tx
	for i, db := range p.dbs {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // does nothing after Commit
		if err := j[i](ctx, tx); err != nil {
			return err
		}
		txs[i] = tx
	}
	if err := txs[0].Commit(); err != nil {
		return err
	}
	return txs[1].Commit()
}

func (p plain) recover(context.Context) error { return nil }
func (p plain) close() error                  { return closePools(p.dbs) }

// sequential is two-phase commit without a record of the decision, as gosql2pc
// does it: work and vote on one database after the other, then commit one after
// the other, whatever became of ctx meanwhile; after any error roll back all that
// may be prepared and is not known to be committed. gosql2pc serves PostgreSQL only; for MariaDB this is
// the same with XA, where the session that prepared must end the branch.
type sequential struct {
	dbs [2]*sql.DB
	as  [2]dialect
}

func openSequential(_ context.Context, dbs [2]*database) (bank, error) {
	pools, err := openPools(dbs)
	return sequential{pools, [2]dialect{dbs[0].dialect, dbs[1].dialect}}, err
}

var errCommitFailed = errors.New("commit failed")

func (s sequential) transfer(ctx context.Context, j job) (err error) {
	name := "rival-" + rand.Text()
	var asked [2]*sql.Conn // those that may have voted, and are not known to have committed
	defer func() {
		for i, c := range asked {
			if c != nil {
				s.rollback(i, c, name)
			}
		}
	}()
	for i, db := range s.dbs {
		c, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if err := s.work(ctx, i, c, name, j[i]); err != nil {
			return err
		}
		asked[i] = c
		for _, text := range s.as[i].prepare(name) {
			if _, err := c.ExecContext(ctx, text); err != nil {
				return err
			}
		}
	}
	for i, c := range asked {
		if _, err := c.ExecContext(context.Background(), s.as[i].commit(name)); err != nil {
			return fmt.Errorf("%w: %w", errCommitFailed, err)
		}
		asked[i] = nil
	}
	return nil
}

func (s sequential) work(ctx context.Context, i int, c *sql.Conn, name string, f func(context.Context, execer) error) error {
	_, err := c.ExecContext(ctx, s.as[i].begin(name))
	if err == nil {
		err = f(ctx, c)
	}
	if err != nil { // the end of its session undoes it
		_ = c.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err
}

// rollback ends a branch: on its own session or, if that is gone, on another, for a second
// or as long as a server lists it. MariaDB does not let it before the lost session has left
// the server.
func (s sequential) rollback(i int, c *sql.Conn, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	_, err := c.ExecContext(ctx, s.as[i].rollback(name))
	for err != nil && (time.Since(began) < time.Second || s.listed(ctx, i)) {
		_, err = s.dbs[i].ExecContext(ctx, s.as[i].rollback(name))
		time.Sleep(20 * time.Millisecond) // nobody tells when a session has left
	}
}

// listed reports whether a server answers, and lists what is prepared; nobody else
// prepares anything there.
func (s sequential) listed(ctx context.Context, i int) bool {
	rows, err := s.dbs[i].QueryContext(ctx, s.as[i].list)
	if err != nil {
		return false
	}
	defer func() { _ = rows.Close() }()
	return rows.Next() && rows.Err() == nil
}

func (s sequential) recover(context.Context) error { return nil }
func (s sequential) close() error                  { return closePools(s.dbs) }

// A dialect is how an engine spells two-phase commit.
type dialect struct {
	begin    func(name string) string
	prepare  func(name string) []string
	commit   func(name string) string
	rollback func(name string) string
	list     string // of what is prepared
}

var (
	postgresDialect = dialect{
		begin:    func(string) string { return "BEGIN" },
		prepare:  func(name string) []string { return []string{"PREPARE TRANSACTION '" + name + "'"} },
		commit:   func(name string) string { return "COMMIT PREPARED '" + name + "'" },
		rollback: func(name string) string { return "ROLLBACK PREPARED '" + name + "'" },
		list:     "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()",
	}
	mariaDialect = dialect{
		begin:    func(name string) string { return "XA START '" + name + "'" },
		prepare:  func(name string) []string { return []string{"XA END '" + name + "'", "XA PREPARE '" + name + "'"} },
		commit:   func(name string) string { return "XA COMMIT '" + name + "'" },
		rollback: func(name string) string { return "XA ROLLBACK '" + name + "'" },
		list:     "XA RECOVER",
	}
)

// managed is troth, with what a user gets who configures nothing.
type managed struct {
	dbs [2]*sql.DB
	mgr *troth.Manager
	on  [2]func(context.Context, *troth.Tx) (*sql.DB, error)
}

func openTroth(ctx context.Context, dbs [2]*database) (bank, error) {
	pools, err := openPools(dbs)
	if err != nil {
		return nil, err
	}
	m := &managed{dbs: pools}
	cfg := troth.Config{Domain: "rivals"}
	for i, db := range pools {
		if dbs[i].driver == "mysql" {
			r := mysql.New(dbs[i].name, db)
			m.on[i], cfg.Resources = r.DB, append(cfg.Resources, r)
		} else {
			r := postgres.New(dbs[i].name, db)
			m.on[i], cfg.Resources = r.DB, append(cfg.Resources, r)
		}
	}
	if m.mgr, err = troth.Open(ctx, cfg); err != nil {
		return nil, errors.Join(err, closePools(pools))
	}
	return m, nil
}

func (m *managed) transfer(ctx context.Context, j job) error {
	return m.mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		for i, on := range m.on {
			db, err := on(ctx, tx)
			if err != nil {
				return err
			}
			if err := j[i](ctx, db); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *managed) recover(ctx context.Context) error {
	_, err := m.mgr.Recover(ctx)
	return err
}

func (m *managed) close() error {
	return errors.Join(m.mgr.Close(context.Background()), closePools(m.dbs))
}

// dropIn is troth behind gosql2pc's interface.
type dropIn struct{ dbs [2]*sql.DB }

func openTwophase(_ context.Context, dbs [2]*database) (bank, error) {
	pools, err := openPools(dbs)
	return dropIn{pools}, err
}

func (d dropIn) transfer(ctx context.Context, j job) error {
	var params twophase.Params
	for i, db := range d.dbs {
		params.Participants = append(params.Participants, twophase.NewParticipant(db, func(ctx context.Context, tx *sql.Tx) error {
			return j[i](ctx, tx)
		}))
	}
	return twophase.Do(ctx, params)
}

func (d dropIn) recover(ctx context.Context) error {
	_, err := twophase.Recover(ctx, d.dbs[:]...)
	return err
}

func (d dropIn) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(twophase.Shutdown(ctx, d.dbs[:]...), closePools(d.dbs))
}

func openPools(dbs [2]*database) (pools [2]*sql.DB, err error) {
	for i, d := range dbs {
		if pools[i], err = sql.Open(d.driver, d.dsn); err != nil {
			return pools, err
		}
	}
	return pools, nil
}

func closePools(pools [2]*sql.DB) error { return errors.Join(pools[0].Close(), pools[1].Close()) }
