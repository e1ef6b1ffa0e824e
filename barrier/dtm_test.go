package barrier_test

import (
	"database/sql"
	"errors"
	"testing"

	"github.com/dtm-labs/client/dtmcli"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/internal/dbtest"
)

// client is one of the two that share a table.
type client struct {
	name  string
	run   func(t *testing.T, w *world, s barrier.Step) error
	query func(t *testing.T, w *world, s barrier.Step) (committed bool)
}

var ours = client{
	name: "troth",
	run:  func(t *testing.T, w *world, s barrier.Step) error { return w.run(t, s) },
	query: func(t *testing.T, w *world, s barrier.Step) bool {
		committed, err := w.QueryPrepared(t.Context(), w.db, s)
		must(t, err)
		return committed
	},
}

var theirs = client{
	name: "dtm",
	run: func(t *testing.T, w *world, s barrier.Step) error {
		return theirBarrier(t, w, s).CallWithDB(w.db, func(tx *sql.Tx) error { return w.insert(t.Context(), tx, s, 1) })
	},
	query: func(t *testing.T, w *world, s barrier.Step) bool {
		err := theirBarrier(t, w, s).QueryPrepared(w.db)
		if err != nil && !errors.Is(err, dtmcli.ErrFailure) {
			t.Fatal(err)
		}
		return err == nil
	},
}

func theirBarrier(t *testing.T, w *world, s barrier.Step) *dtmcli.BranchBarrier {
	t.Helper()
	b, err := dtmcli.BarrierFrom(s.TransType, s.GID, s.Branch, string(s.Op))
	must(t, err)
	switch w.Dialect() {
	case barrier.PostgreSQL:
		b.DBType = dtmcli.DBTypePostgres
	case barrier.MySQL:
		b.DBType = dtmcli.DBTypeMysql
	case barrier.SQLite:
		t.Fatal("dtm has no SQLite")
	}
	return b
}

// dtmTables is the layout that dtm's users have: columns may be null, and PostgreSQL's
// have no time.
var dtmTables = map[barrier.Dialect][]string{
	barrier.PostgreSQL: {
		"CREATE SCHEMA dtm_barrier",
		`CREATE TABLE dtm_barrier.barrier (id bigserial PRIMARY KEY, trans_type varchar(45) DEFAULT '', gid varchar(128) DEFAULT '',
			branch_id varchar(128) DEFAULT '', op varchar(45) DEFAULT '', barrier_id varchar(45) DEFAULT '', reason varchar(45) DEFAULT '',
			create_time timestamptz(0), update_time timestamptz(0), CONSTRAINT uniq_barrier UNIQUE (gid, branch_id, op, barrier_id))`,
	},
	barrier.MySQL: {
		"CREATE DATABASE dtm_barrier CHARSET utf8mb4",
		`CREATE TABLE dtm_barrier.barrier (id bigint PRIMARY KEY AUTO_INCREMENT, trans_type varchar(45) DEFAULT '', gid varchar(128) DEFAULT '',
			branch_id varchar(128) DEFAULT '', op varchar(45) DEFAULT '', barrier_id varchar(45) DEFAULT '', reason varchar(45) DEFAULT '',
			create_time datetime DEFAULT now(), update_time datetime DEFAULT now(), KEY (create_time), KEY (update_time),
			UNIQUE KEY (gid, branch_id, op, barrier_id)) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4`,
	},
}

// dtmWorlds are databases in which the table is ours or dtm's. Those of MariaDB are on
// two servers, since it is one table to all databases of a server.
var dtmWorlds = []struct {
	name string
	open func(t *testing.T) *world
}{
	{"postgres", engines[0].open},
	{"mariadb", engines[1].open},
	{"postgres with dtm's table", func(t *testing.T) *world {
		dsn := dbtest.SharedPostgres(t, 0).NewDatabase(t)
		prepareDTM(t, barrier.PostgreSQL, "pgx", dsn)
		return newWorld(t, barrier.PostgreSQL, "pgx", dsn, "")
	}},
	{"mariadb with dtm's table", func(t *testing.T) *world {
		dsn := dbtest.SharedMariaDB(t, 1).NewDatabase(t)
		prepareDTM(t, barrier.MySQL, "mysql", dsn)
		return newWorld(t, barrier.MySQL, "mysql", dsn, "")
	}},
}

func prepareDTM(t *testing.T, d barrier.Dialect, driver, dsn string) {
	t.Helper()
	db := openDB(t, driver, dsn)
	for _, query := range dtmTables[d] {
		_, err := db.ExecContext(t.Context(), query)
		must(t, err)
	}
}

// Both clients share one table, and either finds the rows of the other.
func TestSharedWithDTM(t *testing.T) {
	t.Parallel()
	for _, e := range dtmWorlds {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			w := e.open(t)
			for _, pair := range [][2]client{{ours, theirs}, {theirs, ours}} {
				first, second := pair[0], pair[1]
				t.Run(first.name+" first", func(t *testing.T) { shareSteps(t, w, first, second); shareMessages(t, w, first, second) })
			}
		})
	}
}

func shareSteps(t *testing.T, w *world, first, second client) {
	for _, test := range []struct {
		ops  []barrier.Op // the first's, the second's, the first's ...
		want map[barrier.Op]int
		rows string
	}{
		{[]barrier.Op{"action", "action", "action"}, map[barrier.Op]int{"action": 1}, "01/action/01=action"},
		{
			[]barrier.Op{"action", "compensate", "compensate", "action"},
			map[barrier.Op]int{"action": 1, "compensate": 1},
			"01/action/01=action 01/compensate/01=compensate",
		},
		{[]barrier.Op{"compensate", "action", "compensate"}, nil, "01/action/01=compensate 01/compensate/01=compensate"},
		{[]barrier.Op{"cancel", "try"}, nil, "01/try/01=cancel 01/cancel/01=cancel"},
		{
			[]barrier.Op{"try", "confirm", "confirm"},
			map[barrier.Op]int{"try": 1, "confirm": 1},
			"01/try/01=try 01/confirm/01=confirm",
		},
		{[]barrier.Op{"rollback", "action"}, nil, "01/action/01=rollback 01/rollback/01=rollback"},
		{
			[]barrier.Op{"action", "rollback", "rollback"},
			map[barrier.Op]int{"action": 1, "rollback": 1},
			"01/action/01=action 01/rollback/01=rollback",
		},
	} {
		gid := newGID()
		for i, op := range test.ops {
			c := [2]client{first, second}[i%2]
			if err := c.run(t, w, step(t, gid, op)); err != nil {
				t.Errorf("%v: call %d, by %s: %v", test.ops, i, c.name, err)
			}
		}
		got := w.counts(t, gid)
		for _, op := range test.ops {
			if got[op] != test.want[op] {
				t.Errorf("%v: effects %v, want %v", test.ops, got, test.want)
			}
		}
		if rows := w.reasons(t, gid); rows != test.rows {
			t.Errorf("%v: rows %q, want %q", test.ops, rows, test.rows)
		}
	}
}

func shareMessages(t *testing.T, w *world, first, second client) {
	s := message(t, newGID())
	must(t, first.run(t, w, s))
	if !second.query(t, w, s) {
		t.Errorf("%s does not know the local transaction of %s", second.name, first.name)
	}
	if err := second.run(t, w, s); !errors.Is(err, barrier.ErrDuplicated) && !errors.Is(err, dtmcli.ErrDuplicated) {
		t.Errorf("%s ran the local transaction again: %v", second.name, err)
	}
	s = message(t, newGID())
	if first.query(t, w, s) {
		t.Errorf("%s invents a local transaction", first.name)
	}
	if err := second.run(t, w, s); !errors.Is(err, barrier.ErrRuledOut) && !errors.Is(err, dtmcli.ErrDuplicated) {
		t.Errorf("%s ran what %s had ruled out: %v", second.name, first.name, err)
	}
	if got := w.counts(t, s.GID); len(got) != 0 {
		t.Errorf("effects %v", got)
	}
}
