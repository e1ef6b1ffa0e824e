package barrier_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/troth-tx/troth/barrier"
)

// Each line is a sequence of calls, one committed transaction each, with the verdict
// that each is to get.
func TestSequences(t *testing.T) {
	const proceed, repeat, empty, late = barrier.Proceed, barrier.Repeat, barrier.Empty, barrier.Late
	type call struct {
		op   barrier.Op
		want barrier.Verdict
	}
	sequences := [][]call{
		{{barrier.Action, proceed}, {barrier.Action, repeat}, {barrier.Action, repeat}},
		{{barrier.Action, proceed}, {barrier.Compensate, proceed}, {barrier.Compensate, repeat}, {barrier.Action, repeat}},
		{{barrier.Compensate, empty}, {barrier.Action, late}, {barrier.Action, late}, {barrier.Compensate, repeat}},
		{{barrier.Compensate, empty}, {barrier.Compensate, repeat}, {barrier.Action, late}},
		{{barrier.Try, proceed}, {barrier.Try, repeat}, {barrier.Confirm, proceed}, {barrier.Confirm, repeat}},
		{{barrier.Try, proceed}, {barrier.Cancel, proceed}, {barrier.Cancel, repeat}, {barrier.Try, repeat}},
		{{barrier.Cancel, empty}, {barrier.Try, late}, {barrier.Cancel, repeat}},
		{{barrier.Action, proceed}, {barrier.Rollback, proceed}, {barrier.Rollback, repeat}},
		{{barrier.Rollback, empty}, {barrier.Action, late}, {barrier.Rollback, repeat}},
		{{barrier.Action, proceed}, {barrier.Commit, proceed}, {barrier.Commit, repeat}},
	}
	eachEngine(t, func(t *testing.T, w *world) {
		for _, sequence := range sequences {
			gid := newGID()
			want := map[barrier.Op]int{}
			for i, c := range sequence {
				s := step(t, gid, c.op)
				var got barrier.Verdict
				// The user's own transaction, which the barrier must not end.
				tx, err := w.db.BeginTx(t.Context(), nil)
				must(t, err)
				got, err = w.Enter(t.Context(), tx, s)
				must(t, err)
				if got == proceed {
					must(t, w.insert(t.Context(), tx, s, 1))
					want[c.op]++
				}
				must(t, tx.Commit())
				if got != c.want {
					t.Errorf("call %d of %v: got %v", i, sequence, got)
				}
			}
			if got := w.counts(t, gid); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%v: effects %v, want %v", sequence, got, want)
			}
		}
	})
}

// Rows are those that dtm's client writes.
func TestRows(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		for _, test := range []struct {
			ops  []barrier.Op
			want string
		}{
			{[]barrier.Op{"action", "compensate"}, "01/action/01=action 01/compensate/01=compensate"},
			{[]barrier.Op{"compensate", "action"}, "01/action/01=compensate 01/compensate/01=compensate"},
			{[]barrier.Op{"cancel"}, "01/try/01=cancel 01/cancel/01=cancel"},
			{[]barrier.Op{"rollback"}, "01/action/01=rollback 01/rollback/01=rollback"},
			{[]barrier.Op{"try", "confirm"}, "01/try/01=try 01/confirm/01=confirm"},
			{[]barrier.Op{"msg"}, "00/msg/01=msg"},
		} {
			gid := newGID()
			for _, op := range test.ops {
				must(t, w.run(t, step(t, gid, op)))
			}
			if got := w.reasons(t, gid); got != test.want {
				t.Errorf("%v wrote %q, want %q", test.ops, got, test.want)
			}
		}
	})
}

func TestAHundredRepetitions(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		gid := newGID()
		for range 100 {
			must(t, w.run(t, step(t, gid, barrier.Action)))
		}
		for range 100 {
			must(t, w.run(t, step(t, gid, barrier.Compensate)))
		}
		if got := w.counts(t, gid); got[barrier.Action] != 1 || got[barrier.Compensate] != 1 {
			t.Errorf("effects %v", got)
		}
	})
}

// A step that failed leaves nothing, so that it may come again.
func TestFailedStepMayComeAgain(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		gid := newGID()
		refused := errors.New("refused")
		for _, op := range []barrier.Op{barrier.Action, barrier.Compensate} {
			s := step(t, gid, op)
			err := w.Run(t.Context(), w.db, s, func(ctx context.Context, tx *sql.Tx) error {
				must(t, w.insert(ctx, tx, s, 1))
				return refused
			})
			requireIs(t, err, refused)
			if n := w.counts(t, gid)[op]; n != 0 {
				t.Errorf("%v failed and took effect", op)
			}
			must(t, w.run(t, s))
			must(t, w.run(t, s))
		}
		if got := w.counts(t, gid); got[barrier.Action] != 1 || got[barrier.Compensate] != 1 {
			t.Errorf("effects %v", got)
		}
	})
}

func TestPanicRollsBack(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		s := step(t, newGID(), barrier.Action)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic did not reach the caller")
				}
			}()
			_ = w.Run(t.Context(), w.db, s, func(ctx context.Context, tx *sql.Tx) error {
				must(t, w.insert(ctx, tx, s, 1))
				panic("business")
			})
		}()
		must(t, w.run(t, s))
		if got := w.counts(t, s.GID); got[barrier.Action] != 1 {
			t.Errorf("effects %v", got)
		}
	})
}

// Branches, parts and transactions do not get into each other's way.
func TestOtherStepsAreOthers(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		gid := newGID()
		for _, other := range []string{gid, gid + "0", strings.ToLower(gid), gid[:len(gid)-1]} {
			for _, branch := range []string{"01", "02", "0101"} {
				s, err := barrier.NewStep("saga", other, branch, barrier.Action)
				must(t, err)
				for part := 1; part <= 3; part++ {
					s := s.Part(part)
					for range 2 {
						must(t, w.Run(t.Context(), w.db, s, w.effect(s, part)))
					}
				}
			}
			if got := w.counts(t, other); got[barrier.Action] != 9 {
				t.Errorf("%s: %v, want 9 effects: 3 branches of 3 parts", other, got)
			}
		}
		if got := w.reasons(t, gid); !strings.HasPrefix(got, "01/action/01=action 01/action/02=action 01/action/03=action 02/action/01") {
			t.Errorf("rows %q", got)
		}
	})
}

// A transaction that was begun with SQL on a connection of one's own will do.
func TestEnterOnAConn(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		conn, err := w.db.Conn(t.Context())
		must(t, err)
		defer func() { _ = conn.Close() }()
		s := step(t, newGID(), barrier.Action)
		for i, end := range []string{"ROLLBACK", "COMMIT", "COMMIT"} {
			_, err := conn.ExecContext(t.Context(), "BEGIN")
			must(t, err)
			v, err := w.Enter(t.Context(), conn, s)
			must(t, err)
			if want := []barrier.Verdict{barrier.Proceed, barrier.Proceed, barrier.Repeat}[i]; v != want {
				t.Errorf("transaction %d: got %v, want %v", i, v, want)
			}
			_, err = conn.ExecContext(t.Context(), end)
			must(t, err)
		}
	})
}

// A compensation whose Enter was cut off half-way and which was committed all the same
// must not take the row it planted itself for an action that was done.
func TestHalfWrittenCompensationStaysEmpty(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		gid := newGID()
		_, err := w.db.ExecContext(t.Context(), "INSERT INTO "+w.Name()+
			" (trans_type, gid, branch_id, op, barrier_id, reason) VALUES ('saga', '"+gid+"', '01', 'action', '01', 'compensate')")
		must(t, err)
		must(t, w.run(t, step(t, gid, barrier.Compensate)))
		must(t, w.run(t, step(t, gid, barrier.Action)))
		if got := w.counts(t, gid); len(got) != 0 {
			t.Errorf("effects %v of an action that was never done", got)
		}
	})
}

// Whatever the isolation, also when the transaction has looked around before it enters:
// its snapshot is then older than the row it finds in its way.
func TestEnterWithAnOlderSnapshot(t *testing.T) {
	eachEngine(t, func(t *testing.T, w *world) {
		for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelRepeatableRead, sql.LevelSerializable} {
			if w.Dialect() == barrier.SQLite && level == sql.LevelRepeatableRead {
				continue // the driver does not have it
			}
			s := step(t, newGID(), barrier.Action)
			attempts := 0
			var v barrier.Verdict
			must(t, barrier.Attempts(t.Context(), func() error {
				attempts++
				tx, err := w.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
				must(t, err)
				defer func() { _ = tx.Rollback() }()
				var n int
				must(t, tx.QueryRowContext(t.Context(), "SELECT count(*) FROM quiet").Scan(&n))
				if attempts == 1 {
					must(t, w.run(t, s)) // another transaction does the step meanwhile
				}
				v, err = w.Enter(t.Context(), tx, s)
				return err
			}))
			if v != barrier.Repeat {
				t.Errorf("%v: got %v after %d attempts, want repeat", level, v, attempts)
			}
		}
	})
}

func TestMisuseIsAnErrorAndNoPanic(t *testing.T) {
	t.Parallel()
	table, err := barrier.NewTable(barrier.SQLite, nil)
	must(t, err)
	db := openDB(t, "sqlite", sqliteDSN(t))
	must(t, table.Create(t.Context(), db))
	s := step(t, newGID(), barrier.Action)
	ctx := t.Context()
	var none *barrier.Table
	nothing := func(context.Context, *sql.Tx) error { return nil }
	for name, call := range map[string]func() error{
		"nil tx":        func() error { _, err := table.Enter(ctx, (*sql.Tx)(nil), s); return err },
		"no tx":         func() error { _, err := table.Enter(ctx, nil, s); return err },
		"nil table":     func() error { _, err := none.Enter(ctx, db, s); return err },
		"zero table":    func() error { return (&barrier.Table{}).Run(ctx, db, s, nothing) },
		"zero step":     func() error { _, err := table.Enter(ctx, db, barrier.Step{}); return err },
		"nil db":        func() error { return table.Run(ctx, (*sql.DB)(nil), s, nothing) },
		"nil function":  func() error { return table.Run(ctx, db, s, nil) },
		"part 0":        func() error { return table.Run(ctx, db, s.Part(0), nothing) },
		"part 100":      func() error { return table.Run(ctx, db, s.Part(100), nothing) },
		"query nil db":  func() error { _, err := table.QueryPrepared(ctx, nil, s); return err },
		"query nothing": func() error { _, err := table.QueryPrepared(ctx, db, barrier.Step{}); return err },
		"create nil":    func() error { return table.Create(ctx, nil) },
		"check nil":     func() error { return table.Check(ctx, nil) },
		"clean nil":     func() error { _, err := table.Clean(ctx, nil, barrier.CleanAgeMin); return err },
		"clean at once": func() error { _, err := table.Clean(ctx, db, 0); return err },
	} {
		if err := call(); !errors.Is(err, barrier.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}
