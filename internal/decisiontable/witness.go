package decisiontable

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/troth-tx/troth"
)

// A Witness is a row that a branch on MySQL or MariaDB wrote in its own
// transaction: it is there if and only if the branch committed (R8).
type Witness struct {
	GID    troth.GID
	Branch int
	Home   troth.Place // where the decision is
	At     time.Time   // when it was written, before prepare, by the database's clock
}

// WitnessSQL is one complete INSERT without placeholders of the witness of a
// branch, for the resource manager to run in the branch. It panics if the Table
// is not open or x is not valid.
func (t *Table) WitnessSQL(x troth.XID) string {
	n := t.names.Load()
	if n == nil || !t.hasWitness() {
		panic("decisiontable: WitnessSQL without an open witness table")
	}
	if _, err := troth.ParseXID(x.String()); err != nil {
		panic("decisiontable: WitnessSQL: " + err.Error())
	}
	return "INSERT INTO " + n.witness + " (gid, branch, home, created_at) VALUES (" + quoteLiteral(string(x.GID)) + ", " +
		strconv.Itoa(x.Branch) + ", " + quoteLiteral(x.Place.String()) + ", UTC_TIMESTAMP(6))"
}

func (t *Table) openedWitness() (*names, error) {
	n, err := t.opened(false)
	if err == nil && !t.hasWitness() {
		err = errors.New("decision table: opened without witnesses")
	}
	return n, err
}

// WitnessExists reports whether a branch left its witness.
func (t *Table) WitnessExists(ctx context.Context, gid troth.GID, branch int) (bool, error) {
	found := false
	n, err := t.openedWitness()
	if err == nil {
		err = t.do(ctx, func(ctx context.Context, c *sql.Conn) error {
			return c.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM "+n.witness+" WHERE gid = ? AND branch = ?)",
				string(gid), branch).Scan(&found)
		})
	}
	if err != nil {
		return false, fmt.Errorf("look for the witness of branch %d of %s: %w", branch, gid, err)
	}
	return found, nil
}

// Witnesses lists up to limit witnesses of the domain that are at least minAge
// old and come after the given one, by GID and branch. The zero Witness begins.
func (t *Table) Witnesses(ctx context.Context, minAge time.Duration, after Witness, limit int) ([]Witness, error) {
	n, err := t.openedWitness()
	if err != nil || limit <= 0 {
		return nil, err
	}
	low, high := domainRange(n.domain)
	low = max(low, string(after.GID))
	text := "SELECT gid, branch, home, " + t.dialect.at() + " FROM " + n.witness +
		" WHERE gid >= ? AND gid < ? AND (gid > ? OR branch > ?) AND " + t.dialect.older() + " ORDER BY gid, branch LIMIT ?"
	args := []any{low, high, low, after.Branch, max(minAge, 0).Microseconds(), limit}
	var list []Witness
	err = t.do(ctx, func(ctx context.Context, c *sql.Conn) error {
		list = nil // f may run twice
		return t.query(ctx, c, text, args, func(rows *sql.Rows) error {
			var gid, home string
			var w Witness
			var micros int64
			if err := rows.Scan(&gid, &w.Branch, &home, &micros); err != nil {
				return err
			}
			x, err := troth.ParseXA(troth.FormatID, gid, home+"."+strconv.Itoa(w.Branch))
			if err != nil {
				return fmt.Errorf("witness of %q, branch %d, home %q: %w", gid, w.Branch, home, err)
			}
			w.GID, w.Home, w.At = x.GID, x.Place, time.UnixMicro(micros)
			list = append(list, w)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list witnesses: %w", err)
	}
	return list, nil
}

// ForgetWitnesses drops all witnesses of transactions.
func (t *Table) ForgetWitnesses(ctx context.Context, gids []troth.GID) error {
	n, err := t.openedWitness()
	if err == nil {
		err = t.deleteGIDs(ctx, n.witness, gids, "")
	}
	if err != nil {
		return fmt.Errorf("forget witnesses: %w", err)
	}
	return nil
}
