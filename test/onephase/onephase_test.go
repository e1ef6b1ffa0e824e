// Package onephase kills MariaDB servers with a binary log under one-phase commits.
package onephase

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
	trothmysql "github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlregister"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// With its binary log on, MariaDB 10.11 acknowledges XA COMMIT ... ONE PHASE and,
// killed soon after, comes back with the branch prepared: 39 of 9395 in twelve
// kills, none without the binary log. Whoever was told "committed" must be right
// all the same, and nothing may stay in doubt. Found by torture random.
func TestOnePhaseCommitThatComesBackPrepared(t *testing.T) {
	for _, c := range []struct {
		name     string
		register bool // decisions in a database of their own
		both     bool // both databases take part, MariaDB as the home; else MariaDB alone
	}{
		{name: "home", both: true},
		{name: "sole with its own record"},
		{name: "sole with a shared register", register: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newOnePhaseWorld(t, c.register)
			for round := range 4 {
				acked := w.killUnderLoad(t, round, c.both)
				w.settle(t)
				for _, d := range w.taking(c.both) {
					w.require(t, d, acked)
				}
				if t.Failed() {
					t.Fatalf("in round %d", round)
				}
			}
		})
	}
}

type onePhaseWorld struct {
	maria   *dbtest.MariaDB
	mgr     *troth.Manager
	home    *trothmysql.Resource
	other   *postgres.Resource
	ma, pg  *sql.DB // from outside
	clients int
}

func newOnePhaseWorld(t *testing.T, register bool) *onePhaseWorld {
	t.Helper()
	w := &onePhaseWorld{clients: 16}
	var err error
	if w.maria, err = dbtest.StartMariaDB(t.Context(), dbtest.MariaDBConfig{LogBin: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.maria.Close() })
	pg := dbtest.SharedPostgres(t, 0)
	open := func(driver, dsn string) *sql.DB {
		db, err := sql.Open(driver, dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	maDSN, pgDSN := w.maria.NewDatabase(t), pg.NewDatabase(t)
	w.ma, w.pg = open("mysql", maDSN), open("pgx", pgDSN)
	w.ma.SetMaxIdleConns(0)
	w.home, w.other = trothmysql.New("ma", open("mysql", maDSN)), postgres.New("pg", open("pgx", pgDSN))
	for _, db := range []*sql.DB{w.ma, w.pg} {
		if _, err := db.ExecContext(t.Context(), "CREATE TABLE work (gid VARCHAR(64) PRIMARY KEY)"); err != nil {
			t.Fatal(err)
		}
	}
	cfg := troth.Config{
		Domain: "onephase", Resources: []troth.Resource{w.home, w.other},
		Grace: 200 * time.Millisecond, RecoverEvery: 200 * time.Millisecond, AckTimeout: 100 * time.Millisecond,
	}
	if register {
		cfg.Register = sqlregister.New(open("pgx", pg.NewDatabase(t)))
	}
	if w.mgr, err = troth.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = w.mgr.Close(ctx)
	})
	return w
}

// killUnderLoad kills the server while clients commit, starts it again, and
// returns what was acknowledged.
func (w *onePhaseWorld) killUnderLoad(t *testing.T, round int, both bool) []troth.GID {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	var acked []troth.GID
	var wg sync.WaitGroup
	enough := make(chan struct{})
	for range w.clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				gid, err := w.transact(ctx, both)
				if err != nil {
					continue
				}
				mu.Lock()
				if acked = append(acked, gid); len(acked) == 300 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(5 * time.Minute):
		t.Fatalf("round %d: the clients do not get on", round)
	}
	if err := w.maria.Kill(); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := w.maria.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	return acked
}

func (w *onePhaseWorld) transact(ctx context.Context, both bool) (troth.GID, error) {
	var gid troth.GID
	err := w.mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		gid = tx.ID()
		db, err := w.home.DB(ctx, tx)
		if err != nil {
			return err
		}
		insert := fmt.Sprintf("INSERT INTO work VALUES ('%s')", gid)
		if _, err := db.ExecContext(ctx, insert); err != nil || !both {
			return err
		}
		if db, err = w.other.DB(ctx, tx); err != nil {
			return err
		}
		_, err = db.ExecContext(ctx, insert)
		return err
	}, troth.Timeout(time.Minute))
	return gid, err
}

func (w *onePhaseWorld) taking(both bool) []*sql.DB {
	if both {
		return []*sql.DB{w.ma, w.pg}
	}
	return []*sql.DB{w.ma}
}

// settle waits until nothing is in doubt.
func (w *onePhaseWorld) settle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		list, err := w.mgr.InDoubt(ctx)
		if err == nil && len(list) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			for _, b := range list {
				t.Log(b.Resource, b.Native, b.Verdict)
			}
			t.Fatalf("%d branches stay in doubt after the restart: %v", len(list), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// require checks that what was acknowledged is there.
func (w *onePhaseWorld) require(t *testing.T, db *sql.DB, acked []troth.GID) {
	t.Helper()
	there := make(map[string]bool)
	rows, err := db.QueryContext(t.Context(), "SELECT gid FROM work")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var gid string
		if err := rows.Scan(&gid); err != nil {
			t.Fatal(err)
		}
		there[gid] = true
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, gid := range acked {
		if !there[string(gid)] {
			t.Errorf("I2: %s was reported committed, and is not there", gid)
		}
	}
}
