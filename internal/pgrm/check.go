package pgrm

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"github.com/troth-tx/troth"
)

const (
	versionMin      = 130000 // pg_current_xact_id and xid8
	orphanAge       = 10 * time.Minute
	foreignAge      = time.Hour
	slotsWarnPart   = 5 // warn when less than a fifth is free
	troubleListMax  = 5 // orphans named one by one
	vacuumAgeSevere = 50_000_000
)

// state is what Open and Check read from the server.
type state struct {
	version     int
	versionText string
	standby     bool
	maxPrepared int
	maxConns    int
	prepared    int
	fsync       string
	fullPages   string
	syncCommit  string
	lockTimeout string
	idleTimeout string
	idleMS      int64
	pid         uint32
	role        string
	super       bool
	database    string
	schema      string
	lacks       rights
	needsTables bool // decisions are, or may be, kept here
	system      string
	anotherPID  bool // the server process changed between two statements
	driverPID   uint32
	preparedAge []preparedAge
}

// rights are what the role lacks to keep decisions here, as people read it, and
// the statements that give it.
type rights struct{ missing, grants []string }

type preparedAge struct {
	native, literal, owner string
	age                    time.Duration
	xids                   int64 // transactions begun since
	ours                   bool
}

const stateSQL = `SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
current_setting('max_prepared_transactions')::int, current_setting('max_connections')::int, (SELECT count(*) FROM pg_prepared_xacts),
current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'), current_setting('lock_timeout'),
current_setting('idle_in_transaction_session_timeout'),
(SELECT setting::bigint FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'), pg_backend_pid(), current_user::text,
(SELECT rolsuper FROM pg_roles WHERE rolname = current_user), current_database()::text, coalesce(current_schema()::text, '')`

// Check is as [troth.Checker] says.
func (c *Core) Check(ctx context.Context) ([]troth.Finding, error) {
	_, findings, err := c.examine(ctx, true)
	if err != nil {
		return nil, branchError(c.name, "check", "", err)
	}
	return findings, nil
}

// examine reads the server's state and judges it; thorough adds what does not
// keep Open from going on.
func (c *Core) examine(ctx context.Context, thorough bool) (*state, []troth.Finding, error) {
	st := new(state)
	err := c.Do(ctx, func(ctx context.Context, conn *sql.Conn) error {
		*st = state{}
		err := conn.QueryRowContext(ctx, stateSQL).Scan(&st.version, &st.versionText, &st.standby,
			&st.maxPrepared, &st.maxConns, &st.prepared, &st.fsync, &st.fullPages, &st.syncCommit, &st.lockTimeout,
			&st.idleTimeout, &st.idleMS, &st.pid, &st.role, &st.super, &st.database, &st.schema)
		if err != nil {
			return err
		}
		if err := tryTransaction(ctx, conn); err != nil {
			return err
		}
		if st.system, err = systemIdentifier(ctx, conn); err != nil || !thorough {
			return err
		}
		return c.readMore(ctx, conn, st)
	})
	if err != nil {
		return nil, nil, err
	}
	findings := st.settings()
	if thorough {
		findings = append(findings, st.slots(), st.locks(), st.pooler(), st.rights())
		findings = append(findings, st.orphans()...)
	}
	return st, findings, nil
}

// tryTransaction finds out whether a pooler takes transactions apart. It then ends
// the session, and not every driver tells why.
func tryTransaction(ctx context.Context, conn *sql.Conn) error {
	for _, text := range []string{"BEGIN", "SAVEPOINT troth_try", "ROLLBACK"} {
		if _, err := conn.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("%s is refused (if this is PgBouncer: set pool_mode to transaction or session, not statement): %w", text, err)
		}
	}
	return nil
}

func (c *Core) readMore(ctx context.Context, conn *sql.Conn, st *state) error {
	var pid uint32
	if err := conn.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		return err
	}
	st.anotherPID = pid != st.pid
	err := conn.Raw(func(dc any) error {
		l, err := c.lines.Of(ctx, dc)
		if err == nil {
			st.driverPID = l.PID()
		}
		return err
	})
	if err != nil {
		return err
	}
	if c.opts.Schema != "" {
		st.schema = c.opts.Schema
	}
	st.needsTables = c.can == 0 || c.table != nil // not yet open: nobody knows
	if err := st.readRights(ctx, conn); err != nil {
		return err
	}
	return st.readPrepared(ctx, conn)
}

func (st *state) readPrepared(ctx context.Context, conn *sql.Conn) error {
	rows, err := conn.QueryContext(ctx, `SELECT gid, quote_literal(gid), owner::text, extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction)::bigint
FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var p preparedAge
		var seconds float64
		if err := rows.Scan(&p.native, &p.literal, &p.owner, &seconds, &p.xids); err != nil {
			return err
		}
		p.age = time.Duration(seconds * float64(time.Second))
		_, err := troth.ParseXID(p.native)
		p.ours = err == nil
		st.preparedAge = append(st.preparedAge, p)
	}
	return rows.Err()
}

// settings judges what decides whether transactions are safe.
func (st *state) settings() []troth.Finding {
	list := []troth.Finding{{Subject: "server_version", Found: st.versionText}}
	if st.version < versionMin {
		list[0].Severity = troth.FindingFatal
		list[0].Why = "troth needs pg_current_xact_id and pg_xact_status with 64 bit, which came with version 13"
		list[0].Fix = "upgrade the server to PostgreSQL 13 or later"
	}
	if st.standby {
		list = append(list, troth.Finding{
			Severity: troth.FindingFatal, Subject: "standby", Found: "pg_is_in_recovery() is true",
			Why: "a standby can neither write nor show what is prepared", Fix: "connect to the primary (target_session_attrs=read-write)",
		})
	}
	list = append(list, onOff("fsync", st.fsync, "after a crash of the machine, acknowledged votes and decisions are lost"),
		onOff("full_page_writes", st.fullPages, "after a crash of the machine, torn pages corrupt tables and decisions"))

	sync := troth.Finding{Subject: "synchronous_commit", Found: st.syncCommit}
	if st.syncCommit == "off" {
		sync.Severity = troth.FindingNote
		sync.Why = "ordinary commits may be lost in a crash; troth switches it on for the commit that is the decision, and PREPARE always waits"
		sync.Fix = "ALTER SYSTEM SET synchronous_commit = 'on'; SELECT pg_reload_conf();"
	}
	idle := troth.Finding{
		Subject: "idle_in_transaction_session_timeout", Found: st.idleTimeout,
	}
	if st.idleTimeout == "0" {
		idle.Severity = troth.FindingNote
		idle.Why = "troth sets it for each of its own branches, which takes a moment; other programs' forgotten transactions hold their locks for ever"
		idle.Fix = "ALTER SYSTEM SET idle_in_transaction_session_timeout = '10min'; SELECT pg_reload_conf();"
	}
	prepared := troth.Finding{Subject: "max_prepared_transactions", Found: strconv.Itoa(st.maxPrepared)}
	switch {
	case st.maxPrepared == 0:
		prepared.Severity = troth.FindingNote
		prepared.Why = "this database cannot vote, so it can only be the home of a transaction, and one of a kind in it"
		prepared.Fix = fmt.Sprintf("ALTER SYSTEM SET max_prepared_transactions = %d; then restart the server", max(st.maxConns, 1))
	case st.maxPrepared < st.maxConns:
		prepared.Severity = troth.FindingNote
		prepared.Why = fmt.Sprintf("max_connections is %d: if more sessions than slots prepare at once, the others are rolled back", st.maxConns)
		prepared.Fix = fmt.Sprintf("ALTER SYSTEM SET max_prepared_transactions = %d; then restart the server", st.maxConns)
	}
	return append(list, sync, idle, prepared)
}

func onOff(name, value, why string) troth.Finding {
	f := troth.Finding{Subject: name, Found: value}
	if value == "off" {
		f.Severity, f.Why = troth.FindingFatal, why
		f.Fix = "ALTER SYSTEM SET " + name + " = 'on'; SELECT pg_reload_conf();"
	}
	return f
}

func (st *state) slots() troth.Finding {
	f := troth.Finding{Subject: "prepared transaction slots", Found: fmt.Sprintf("%d of %d in use in the cluster", st.prepared, st.maxPrepared)}
	if st.maxPrepared > 0 && st.maxPrepared-st.prepared < max(st.maxPrepared/slotsWarnPart, 1) {
		f.Severity = troth.FindingWarning
		f.Why = "when the last slot is taken, every transaction with two databases is rolled back"
		f.Fix = fmt.Sprintf("end orphans (see below); or ALTER SYSTEM SET max_prepared_transactions = %d; then restart the server", max(2*st.maxPrepared, st.maxConns))
	}
	return f
}

func (st *state) locks() troth.Finding {
	f := troth.Finding{Subject: "lock_timeout", Found: st.lockTimeout}
	if st.lockTimeout == "0" {
		f.Severity = troth.FindingWarning
		f.Why = "no server sees a deadlock that goes through two databases: only a timeout ends it"
		f.Fix = "ALTER DATABASE " + quotedName(st.database) + " SET lock_timeout = '10s';"
	}
	return f
}

func (st *state) pooler() troth.Finding {
	f := troth.Finding{Subject: "connection pooler", Found: "none seen"}
	switch {
	case st.anotherPID:
		f.Severity, f.Found = troth.FindingWarning, "the server process changed between two statements of one session"
	case st.driverPID != 0 && st.driverPID != st.pid:
		f.Severity, f.Found = troth.FindingWarning, "the server process is not the one that the connection was opened with"
	default:
		return f
	}
	f.Why = "sessions that wait for a prepared branch can use up the pooler's connections, and COMMIT PREPARED then gets none"
	f.Fix = "connect to the server directly, or give troth a pool of its own in the pooler (PgBouncer: pool_mode = transaction or session, never statement)"
	return f
}

// orphans reports what has been prepared for long: it holds locks, and keeps
// vacuum from removing what was deleted since.
func (st *state) orphans() []troth.Finding {
	var list []troth.Finding
	left := 0
	for _, p := range st.preparedAge {
		limit, subject := foreignAge, "prepared transaction of another program"
		if p.ours {
			limit, subject = orphanAge, "prepared branch"
		}
		if p.age < limit {
			continue
		}
		if len(list) == troubleListMax {
			left++
			continue
		}
		f := troth.Finding{
			Severity: troth.FindingWarning, Subject: subject,
			Found: fmt.Sprintf("%s, prepared %v ago by %s, %d transactions begun since", p.native, p.age.Round(time.Second), p.owner, p.xids),
			Why:   "it holds its locks, and vacuum cannot remove what was deleted since",
		}
		if p.xids > vacuumAgeSevere {
			f.Why += "; the server's transaction numbers are running out because of it"
		}
		switch {
		case !p.ours:
			f.Fix = "ask the program that made it; if that is gone: ROLLBACK PREPARED " + p.literal + "; (or COMMIT PREPARED)"
		case p.owner != st.role && !st.super:
			f.Fix = "run recovery as role " + p.owner + ", which prepared it, or as a superuser: troth recover"
		default:
			f.Fix = "troth recover; if it stays: troth tx why " + p.native
		}
		list = append(list, f)
	}
	switch {
	case len(list) == 0:
		list = append(list, troth.Finding{Subject: "orphans", Found: fmt.Sprintf("none (%d prepared in this database)", len(st.preparedAge))})
	case left > 0:
		list = append(list, troth.Finding{
			Severity: troth.FindingWarning, Subject: "orphans", Found: fmt.Sprintf("%d more", left),
			Why: "see above", Fix: "SELECT * FROM pg_prepared_xacts ORDER BY prepared;",
		})
	}
	return list
}
