package pgrm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/mistake"
)

// preparedSQL lists what is prepared in this database, whoever did it. The list
// is the cluster's; branches of another database cannot be ended from here.
const preparedSQL = `SELECT gid, database::text, owner::text, extract(epoch FROM clock_timestamp() - prepared)::float8
FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared`

// errStandby: the list of a standby is empty whatever is prepared (R6).
var errStandby = errors.New("the server is a standby (pg_is_in_recovery): connect to the primary")

// Recover is as [troth.Resource] says. Ages are by the server's clock.
func (c *Core) Recover(ctx context.Context) ([]troth.Prepared, error) {
	var list []troth.Prepared
	err := c.Do(ctx, func(ctx context.Context, conn *sql.Conn) error {
		list = nil
		if err := notStandby(ctx, conn); err != nil {
			return err
		}
		rows, err := conn.QueryContext(ctx, preparedSQL)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var p troth.Prepared
			var age float64
			if err := rows.Scan(&p.Native, &p.Database, &p.Owner, &age); err != nil {
				return err
			}
			p.Age = time.Duration(max(age, 0) * float64(time.Second))
			if xid, err := troth.ParseXID(p.Native); err == nil { // R7: an exact match, or not ours
				p.XID, p.Ours = xid, true
			}
			list = append(list, p)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, branchError(c.name, "recover", "", err)
	}
	return list, nil
}

func notStandby(ctx context.Context, conn *sql.Conn) error {
	var standby bool
	if err := conn.QueryRowContext(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil {
		return err
	}
	if standby {
		return errStandby
	}
	return nil
}

// Finish is as [troth.Resource] says.
func (c *Core) Finish(ctx context.Context, xid troth.XID, outcome troth.Outcome, evidence string) error {
	var statement string
	switch outcome {
	case troth.Committed:
		statement = commitPreparedSQL(xid)
	case troth.Aborted:
		statement = rollbackPreparedSQL(xid)
	case troth.Undecided:
		return fmt.Errorf("troth: Finish %s: the transaction is not decided", xid)
	}
	err := c.Do(ctx, func(ctx context.Context, conn *sql.Conn) error {
		// Without arguments: pgx then uses the simple protocol and caches nothing.
		_, err := conn.ExecContext(ctx, statement)
		if SQLState(err) == codeUndefinedObject {
			faultpoint.Hit("recover.before-proof")
			return c.prove(ctx, conn, xid, outcome, evidence)
		}
		return err
	})
	var h *troth.HeuristicError
	if err == nil || errors.As(err, &h) {
		return err
	}
	return branchError(c.name, "recover", xid.String(), err)
}

// prove finds out how a branch ended that is not in the list any more (R8). nil:
// as the outcome demands.
func (c *Core) prove(ctx context.Context, conn *sql.Conn, xid troth.XID, outcome troth.Outcome, evidence string) error {
	if err := notStandby(ctx, conn); err != nil {
		return err
	}
	xact, system, ok := parseEvidence(evidence)
	if !ok {
		if outcome == troth.Aborted {
			return nil // nothing is there, and nothing was promised about it: presumed abort
		}
		return troth.ErrNoEvidence
	}
	if here, err := systemIdentifier(ctx, conn); err != nil {
		return err
	} else if system != "" && here != "" && here != system {
		return fmt.Errorf("the branch was prepared on the cluster with the system identifier %s (hexadecimal), but the one that answers is %s: connect resource %s to the right server",
			system, here, c.name)
	}
	status, err := xactStatus(ctx, conn, xact)
	if err != nil {
		return err
	}
	var ended troth.Outcome
	switch status {
	case "committed":
		ended = troth.Committed
	case "aborted":
		ended = troth.Aborted
	case "in progress": // still preparing, or still being ended
		return fmt.Errorf("transaction %s is in progress", xact)
	default: // too old for the server to remember
		if outcome == troth.Aborted {
			return nil
		}
		return troth.ErrNoEvidence
	}
	if ended == outcome || mistake.On("heuristic-swallowed") {
		return nil
	}
	return &troth.HeuristicError{GID: xid.GID, Decision: outcome, Branches: []troth.HeuristicBranch{{
		Resource: c.name, XID: xid.String(), Ended: ended,
		Evidence: "pg_xact_status('" + xact + "') says " + status,
	}}}
}

// xactStatus is "" if the server does not remember.
func xactStatus(ctx context.Context, conn *sql.Conn, xact string) (string, error) {
	var status sql.NullString
	err := conn.QueryRowContext(ctx, "SELECT pg_xact_status("+quote(xact)+"::xid8)").Scan(&status)
	if SQLState(err) == codeInvalidParameter { // "transaction ID ... is in the future"
		return "", fmt.Errorf("%w: the server never gave out transaction %s: is it another cluster, or restored from a backup?", troth.ErrNoEvidence, xact)
	}
	return status.String, err
}

func systemIdentifier(ctx context.Context, conn *sql.Conn) (string, error) {
	var id int64
	err := conn.QueryRowContext(ctx, "SELECT system_identifier FROM pg_control_system()").Scan(&id)
	if SQLState(err) == codeNotAllowed {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", uint64(id)), nil
}

// settle finds out how a transaction ended whose COMMIT was sent and not answered.
// b is the server process that got it.
func (c *Core) settle(ctx context.Context, xact string, b backend) (troth.Outcome, error) {
	outcome := troth.Undecided
	err := c.Do(ctx, func(ctx context.Context, conn *sql.Conn) error {
		for attempt := 0; ; attempt++ {
			if err := notStandby(ctx, conn); err != nil {
				return err
			}
			status, err := xactStatus(ctx, conn, xact)
			if err != nil {
				return err
			}
			switch status {
			case "committed":
				if err := neverCrashed(ctx, conn, xact, b.since); err != nil {
					return err
				}
				outcome = troth.Committed
				return nil
			case "aborted": // whoever had the number
				outcome = troth.Aborted
				return nil
			case "in progress":
				if mistake.On("in-progress-is-aborted") {
					outcome = troth.Aborted
					return nil
				}
			case "":
				return troth.ErrNoEvidence
			}
			if b.pid == 0 || attempt > 0 {
				return fmt.Errorf("transaction %s is in progress", xact)
			}
			// Its session is cut off from us, and perhaps nobody told it. A COMMIT
			// that reached the server is finished all the same (facts: a flush
			// cannot be interrupted).
			if err := terminate(ctx, conn, b.condition()); err != nil {
				return err
			}
		}
	})
	return outcome, err
}

// neverCrashed fails if the server may have crashed since the time, by our clock, at
// which a transaction began. A crash forgets the numbers of transactions of which
// nothing had reached the disk and gives them out again, so "committed" may be the
// truth about another transaction. (One that is prepared is on disk, and its number
// with it.) A crash discards the statistics, also one after which the postmaster
// goes on.
func neverCrashed(ctx context.Context, conn *sql.Conn, xact string, since time.Time) error {
	var up float64 // seconds; asked after the status, so that no crash comes between
	err := conn.QueryRowContext(ctx, `SELECT extract(epoch FROM clock_timestamp() -
greatest(pg_postmaster_start_time(), (SELECT stats_reset FROM pg_stat_bgwriter)))::float8`).Scan(&up)
	if err != nil {
		return err
	}
	if up <= time.Since(since).Seconds() {
		return fmt.Errorf("%w: the server may have crashed since transaction %s began, and have given its number to another: whether it was committed can only be seen in its data",
			troth.ErrNoEvidence, xact)
	}
	return nil
}

// A backend is the server process of a branch's session.
type backend struct {
	pid   uint32    // 0 if not known
	since time.Time // it was running then, by our clock
}

// condition selects it in pg_stat_activity. Process numbers are used again, and a
// pooler's are not real: it must be our role's, in this database, in a
// transaction, and older than the branch.
func (b backend) condition() string {
	return fmt.Sprintf("(pid = %d AND backend_start < clock_timestamp() - make_interval(secs => %.3f) AND state <> 'idle')",
		b.pid, time.Since(b.since).Seconds())
}

// terminate ends the server processes of a lost session and waits up to 5 s for
// their end. A COMMIT or PREPARE that is being flushed is finished all the same.
func terminate(ctx context.Context, conn *sql.Conn, condition string) error {
	var n int
	err := conn.QueryRowContext(ctx, `SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND usename = current_user AND datname = current_database() AND `+condition).Scan(&n)
	if err != nil {
		return fmt.Errorf("end the lost session: %w", err)
	}
	faultpoint.Hit("late.backend-ended")
	return nil
}

// rollbackLate rolls back a branch whose PREPARE may still be under way (the late
// PREPARE: a server does not notice that its client is gone while it works). It
// first ends the process that works on it. Where neither the driver
// shows the process nor the transaction's number is known, and the server has not read the request yet, the gap stays open for
// that moment: the next scans then find the branch, undecided, and roll it back.
func (c *Core) rollbackLate(ctx context.Context, xid troth.XID, xact string, b backend) error {
	return c.Do(ctx, func(ctx context.Context, conn *sql.Conn) error {
		if err := notStandby(ctx, conn); err != nil {
			return err
		}
		// What travelled with PREPARE shows its text.
		condition := "position(" + quote(xid.String()) + " in query) > 0 AND state <> 'idle'"
		if b.pid != 0 {
			condition += " OR " + b.condition()
		}
		if xact != "" {
			condition += " OR backend_xid = " + quote(xact) + "::xid8::xid"
		}
		condition = "(" + condition + ")"
		if err := terminate(ctx, conn, condition); err != nil {
			return err
		}
		_, err := conn.ExecContext(ctx, rollbackPreparedSQL(xid))
		if SQLState(err) == codeUndefinedObject {
			return nil
		}
		return err
	})
}
