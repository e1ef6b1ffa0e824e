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

// The floor keeps R5 where no database can end the sessions of coordinators.
//
// A recoverer has decided abort, rolled the branches back, and the abort record
// has expired. Now the coordinator wakes up, having been stopped for a day, and
// sends Decide(commit). A home participant's table needs nothing against
// this: the commit travels in the home's own transaction, which the database has
// ended long ago. In a shared register nothing but the abort record is in the way.
//
// So the register keeps a floor for each domain, a GID in troth_meta. GIDs of a
// domain sort by the time when they were made.
//
//	F1  A commit goes in only if its GID is greater than the floor, in one
//	    statement that reads the floor and inserts.
//	F2  The floor never falls.
//	F3  An abort record is dropped only if its GID is at or below the settled
//	    floor: one that was committed as floor at least FloorSettle before.
//
// Claim: no commit goes in for a GID g whose abort record was dropped.
// Suppose that a statement S inserts it. While the abort record stands, S meets
// it on the primary key; so S inserts after the drop. By F3 there was a floor
// f >= g committed FloorSettle before the drop. By F1 and F2 S read the table of
// floors before f was committed, or it would have refused g. So S ran for longer
// than FloorSettle, an hour. But S is a single INSERT of one row, whose only wait
// is bounded by LockWait in the server. (MySQL and SQLite do not even need the
// hour: S locks the floor that it reads.) What is left is a server process that
// its machine stops for an hour within one statement, and then continues.
//
// Clocks are no part of the argument: a coordinator whose clock is slow is
// refused too early, which is unkind, and one whose clock is fast makes abort
// records that are kept longer.
//
// A commit that the floor refuses is answered with Aborted, if it was sent
// once. If an earlier attempt got no answer, that one may have gone in, been
// carried out, and been forgotten since: then the answer is an error, for a
// forgotten GID never answers aborted (R4).

func floorName(domain string, gid troth.GID) string {
	if d := gid.Domain(); d != "" {
		domain = d // its own floor, also if it is not ours
	}
	return "floor." + domain
}

func settledName(domain string) string { return "floor-settled." + domain }
func raisedName(domain string) string  { return "floor-raised." + domain }

// asking notes that a commit is about to be sent that the floor may refuse, and
// reports whether it is the first time since the last answer.
func (t *Table) asking(in insertion) bool {
	if in.floor == "" {
		return true
	}
	_, before := t.asked.LoadOrStore(in.gid, struct{}{})
	return !before
}

// answered notes that a commit got its answer.
func (t *Table) answered(in insertion) {
	if in.floor != "" {
		t.asked.Delete(in.gid)
	}
}

var errFloor = errors.New("the transaction is older than the register remembers, and an earlier attempt to commit got no answer:" +
	" whether it was committed can only be seen in its data")

// refused answers a decision that did not go in although none is there.
func (t *Table) refused(ctx context.Context, c *sql.Conn, n *names, in insertion, first bool) (troth.Outcome, error) {
	if in.floor == "" {
		return troth.Undecided, errVanished
	}
	floor, err := t.metaValue(ctx, c, n, in.floor)
	switch {
	case err != nil:
		return troth.Undecided, err
	case floor < string(in.gid):
		return troth.Undecided, errVanished
	case !first:
		return troth.Undecided, errFloor
	}
	t.answered(in)
	return troth.Aborted, nil
}

// raiseFloor raises the floor of the domain to what would be a GID of the time
// to, unless the last raise is more recent than FloorSettle; before that it
// notes the floor so far as settled (F3). It returns the settled floor, empty if
// there is none. One transaction.
func (t *Table) raiseFloor(ctx context.Context, c *sql.Conn, n *names, now, to time.Time) (settled string, err error) {
	floorKey, settledKey, raisedKey := floorName(n.domain, ""), settledName(n.domain), raisedName(n.domain)
	for _, row := range [][2]string{{floorKey, ""}, {settledKey, ""}, {raisedKey, "0"}} {
		stored, err := t.metaValue(ctx, c, n, row[0])
		if err == nil && stored == "" {
			_, err = c.ExecContext(ctx, t.dialect.insertMeta(n.meta), row[0], row[1])
		}
		if err != nil && !t.dialect.exists(err) && !t.dialect.again(err) {
			return "", err
		}
	}
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	set := func(name, value string) error {
		_, err := tx.ExecContext(ctx, t.dialect.bind("UPDATE "+n.meta+" SET value = ? WHERE name = ?"), value, name)
		return err
	}
	get := func(name string) (value string, err error) {
		err = tx.QueryRowContext(ctx, t.dialect.bind("SELECT value FROM "+n.meta+" WHERE name = ?"), name).Scan(&value)
		return value, err
	}
	// The first statement locks the row of the raise, so that raises take turns.
	_, err = tx.ExecContext(ctx, t.dialect.bind("UPDATE "+n.meta+" SET value = value WHERE name = ?"), raisedKey)
	if err != nil {
		return "", err
	}
	raised, err := get(raisedKey)
	if err != nil {
		return "", err
	}
	raisedAt, err := strconv.ParseInt(raised, 10, 64)
	if err != nil {
		return "", fmt.Errorf("%s in %s is %q, not a number", raisedKey, n.meta, raised)
	}
	if settled, err = get(settledKey); err != nil {
		return "", err
	}
	floor, err := get(floorKey)
	if err != nil || now.Sub(time.UnixMicro(raisedAt)) < t.opts.FloorSettle {
		return settled, err
	}
	if floor > settled {
		settled = floor
		if err := set(settledKey, settled); err != nil {
			return "", err
		}
	}
	if next := string(troth.NewGID(n.domain, to)); next > floor { // F2
		if err := set(floorKey, next); err != nil {
			return "", err
		}
	}
	if err := set(raisedKey, strconv.FormatInt(now.UnixMicro(), 10)); err != nil {
		return "", err
	}
	return settled, tx.Commit()
}
