package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/decisiontable"
)

// witnessState is what became of the row that a branch wrote in its own
// transaction (R8).
type witnessState uint8

const (
	witnessAbsent witnessState = iota + 1 // the branch rolled back, or has not come to its vote
	witnessHeld                           // a transaction that has not ended holds the row
	witnessThere                          // the branch has committed
)

// witness looks for the branch's row in this resource's schema; and, unless the
// branch is known to be of that, in all others of the server that this user can
// read. Where it finds the row it looks from then on: f.mine tells that the answer
// "absent" is one.
func (f *finisher) witness(ctx context.Context) (witnessState, error) {
	if f.table == "" {
		f.table = f.o.table.WitnessName()
	}
	w, err := witnessIn(ctx, f.conn, f.table, f.xid)
	if err != nil || w != witnessAbsent || f.mine {
		f.mine = f.mine || err == nil && w != witnessAbsent
		return w, err
	}
	others, err := otherWitnessTables(ctx, f.conn, f.o.schema)
	if err != nil {
		return 0, err
	}
	for _, table := range others {
		w, err := witnessIn(ctx, f.conn, table, f.xid)
		if isCode(err, codeTableDenied, codeDatabaseDenied, codeUnknownTable) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if w != witnessAbsent {
			f.table, f.mine = table, true
			return w, nil
		}
	}
	return witnessAbsent, nil
}

// witnessIn reads the row as it is committed, and if there is none, as it may
// become: a dirty read sees the row of a transaction that has not ended, also of
// one that is prepared and in no list. It takes no lock.
func witnessIn(ctx context.Context, c *sql.Conn, table string, xid troth.XID) (witnessState, error) {
	for _, level := range []string{"READ COMMITTED", "READ UNCOMMITTED", "READ COMMITTED"} {
		if _, err := c.ExecContext(ctx, "SET TRANSACTION ISOLATION LEVEL "+level); err != nil {
			return 0, err
		}
		there, err := finds(ctx, c, selectWitness(table, xid))
		if err != nil {
			return 0, fmt.Errorf("read the witness row: %w", err)
		}
		switch dirty := level == "READ UNCOMMITTED"; {
		case there && !dirty:
			return witnessThere, nil
		case !there && dirty:
			return witnessAbsent, nil
		}
	}
	return witnessHeld, nil // there, and not committed
}

func finds(ctx context.Context, c *sql.Conn, query string) (bool, error) {
	var one int
	err := c.QueryRowContext(ctx, query).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// otherWitnessTables lists the witness tables of the server's other schemas, as far
// as this user may know of them.
func otherWitnessTables(ctx context.Context, c *sql.Conn, own string) ([]string, error) {
	rows, err := c.QueryContext(ctx, "SELECT table_schema, table_name FROM information_schema.tables "+
		"WHERE table_name = 'troth_witness' AND table_type = 'BASE TABLE'")
	if err != nil {
		return nil, fmt.Errorf("list witness tables: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to its end, or the error is Err's
	var tables []string
	for rows.Next() {
		var schema, table string
		if err := rows.Scan(&schema, &table); err != nil {
			return nil, err
		}
		if schema != own {
			tables = append(tables, quotedName(schema)+"."+quotedName(table))
		}
	}
	return tables, rows.Err()
}

// Forget implements [troth.Forgetter].
func (r *Resource) Forget(ctx context.Context, gids []troth.GID) error {
	o, err := r.opened()
	if err != nil {
		return err
	}
	return o.table.ForgetWitnesses(ctx, gids)
}

// Bounds of one Sweep.
const (
	sweepBatch = 500
	sweepTime  = 15 * time.Second
)

// Sweep implements [troth.Sweeper]. A witness row that can be read belongs to a
// branch that committed, so its decision was there; when the register has no
// record of it any more nobody will ask for the witness. minAge must outlast the
// time in which a transaction of one branch may still want to know how it ended:
// those have no record. It goes on until nothing is left to delete, for at most a
// quarter of a minute.
func (r *Resource) Sweep(ctx context.Context, minAge time.Duration, forgotten func(ctx context.Context, place troth.Place, gid troth.GID) (bool, error)) (int, error) {
	o, err := r.opened()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	deleted := 0
	var after decisiontable.Witness
	var failed []error
	for time.Since(start) < sweepTime && len(failed) == 0 {
		batch, err := o.table.Witnesses(ctx, minAge, after, sweepBatch)
		if err != nil {
			return deleted, err
		}
		var gids []troth.GID
		gids, failed = sweepable(ctx, batch, forgotten)
		if len(gids) > 0 {
			if err := o.table.ForgetWitnesses(ctx, gids); err != nil {
				return deleted, errors.Join(append(failed, err)...)
			}
			deleted += len(gids)
		}
		if len(batch) < sweepBatch {
			break
		}
		after = batch[len(batch)-1]
	}
	return deleted, errors.Join(failed...)
}

// sweepable asks once for each transaction of a batch. One whose register does not
// answer is kept (R6).
func sweepable(ctx context.Context, batch []decisiontable.Witness, forgotten func(ctx context.Context, place troth.Place, gid troth.GID) (bool, error)) ([]troth.GID, []error) {
	var gids []troth.GID
	var errs []error
	unreachable := make(map[troth.Place]bool)
	for i, w := range batch {
		if i > 0 && batch[i-1].GID == w.GID || unreachable[w.Home] {
			continue
		}
		ok, err := forgotten(ctx, w.Home, w.GID)
		if err != nil {
			unreachable[w.Home] = true
			errs = append(errs, fmt.Errorf("ask %s about %s: %w", w.Home, w.GID, err))
		} else if ok {
			gids = append(gids, w.GID)
		}
	}
	return gids, errs
}
