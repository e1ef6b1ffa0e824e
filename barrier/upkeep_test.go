package barrier_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/internal/dbtest"
)

// ownEngines have the table under another name in a database of the test's own, where
// it may be emptied and spoiled.
var ownEngines = []struct {
	name string
	open func(t *testing.T) *world
}{
	{"postgres", func(t *testing.T) *world {
		return newWorld(t, barrier.PostgreSQL, "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t), "Own.Steps_1")
	}},
	{"mariadb", func(t *testing.T) *world {
		return newWorld(t, barrier.MySQL, "mysql", dbtest.SharedMariaDB(t, 0).NewDatabase(t), "steps_1")
	}},
	{"sqlite", func(t *testing.T) *world {
		return newWorld(t, barrier.SQLite, "sqlite", sqliteDSN(t), "main.steps_1")
	}},
}

func eachOwnEngine(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, e := range ownEngines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(t, e.open(t))
		})
	}
}

func TestCreateAtOnceAndAgain(t *testing.T) {
	eachOwnEngine(t, func(t *testing.T, w *world) {
		_, err := w.db.ExecContext(t.Context(), "DROP TABLE "+w.Name())
		must(t, err)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := w.Create(t.Context(), w.db); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		must(t, w.Check(t.Context(), w.db))
		must(t, w.run(t, step(t, newGID(), barrier.Action)))
	})
}

func TestCheckLeavesNothingAndFindsWhatIsWrong(t *testing.T) {
	eachOwnEngine(t, func(t *testing.T, w *world) {
		must(t, w.Check(t.Context(), w.db))
		if n := w.rows(t, w.Name()); n != 0 {
			t.Errorf("the check left %d rows", n)
		}
		drop := map[barrier.Dialect]string{
			barrier.PostgreSQL: "ALTER TABLE " + w.Name() + " DROP CONSTRAINT uniq_barrier",
			barrier.MySQL:      "ALTER TABLE " + w.Name() + " DROP INDEX uniq_barrier",
			barrier.SQLite:     "DROP TABLE " + w.Name(),
		}[w.Dialect()]
		_, err := w.db.ExecContext(t.Context(), drop)
		must(t, err)
		if err := w.Check(t.Context(), w.db); err == nil {
			t.Error("the check passes a table without its key")
		}
	})
}

// dtm's own table for MySQL compares without regard to case. Two transactions whose gids
// differ in that alone must not be taken for one.
func TestTableThatIgnoresCase(t *testing.T) {
	t.Parallel()
	w := ownEngines[1].open(t)
	_, err := w.db.ExecContext(t.Context(), "ALTER TABLE "+w.Name()+" CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
	must(t, err)
	requireIs(t, w.Check(t.Context(), w.db), barrier.ErrTable)
	gid := newGID()
	must(t, w.run(t, step(t, gid, barrier.Action)))
	must(t, w.run(t, step(t, gid, barrier.Action)))
	requireIs(t, w.run(t, step(t, strings.ToLower(gid), barrier.Action)), barrier.ErrTable)
}

// MariaDB rolls back all of a transaction because of a deadlock and takes a COMMIT then,
// so that business which swallows the error would be done without its row.
func TestSwallowedDeadlock(t *testing.T) {
	t.Parallel()
	w := ownEngines[1].open(t)
	s := step(t, newGID(), barrier.Action)
	err := w.Run(t.Context(), w.db, s, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "ROLLBACK") // what the server does on its own
		return err
	})
	requireIs(t, err, barrier.ErrLost)
}

func TestClean(t *testing.T) {
	eachOwnEngine(t, func(t *testing.T, w *world) {
		const old, young = 2*barrier.CleanBatch + 1, 7
		ago := func(age time.Duration) string {
			hours := int(age / time.Hour)
			switch w.Dialect() {
			case barrier.PostgreSQL:
				return fmt.Sprintf("now() - interval '%d hours'", hours)
			case barrier.MySQL:
				return fmt.Sprintf("now() - INTERVAL %d HOUR", hours)
			case barrier.SQLite:
				return fmt.Sprintf("datetime('now', '-%d hours')", hours)
			}
			return ""
		}
		insert := func(prefix string, n int, time string) {
			values := make([]string, n)
			for i := range values {
				values[i] = fmt.Sprintf("('saga', '%s%d', '01', 'action', '01', 'action', %s)", prefix, i, time)
			}
			_, err := w.db.ExecContext(t.Context(), "INSERT INTO "+w.Name()+
				" (trans_type, gid, branch_id, op, barrier_id, reason, create_time) VALUES "+strings.Join(values, ", "))
			must(t, err)
		}
		insert("old", old, ago(73*time.Hour))
		insert("young", young, ago(71*time.Hour))
		insert("timeless", young, "NULL")
		must(t, w.run(t, step(t, newGID(), barrier.Action)))
		for _, want := range []int64{old, 0} {
			n, err := w.Clean(t.Context(), w.db, 72*time.Hour)
			must(t, err)
			if n != want {
				t.Errorf("deleted %d rows, want %d", n, want)
			}
		}
		if n := w.rows(t, w.Name()); n != 2*young+1 {
			t.Errorf("%d rows are left, want %d", n, 2*young+1)
		}
	})
}

func (w *world) rows(t *testing.T, table string) (n int) {
	t.Helper()
	must(t, w.db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}
