package plainsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/lastresource"
	"github.com/troth-tx/troth/internal/pinned"
	"github.com/troth-tx/troth/internal/sqltext"
)

// postgres implements [lastresource.Engine]. Statements that need no arguments and
// no answer are joined with semicolons into one round trip, which every driver
// sends as a simple query.
type postgres struct {
	found atomic.Pointer[postgresTraits] // set by Open
}

// postgresTraits is what a database has of PostgreSQL.
type postgresTraits struct {
	idle    string // the statement that limits idle time in a transaction, "" if none is needed
	marks   bool   // settings of our own, local to a transaction
	durable bool   // synchronous_commit
	assigns string // the query for the transaction's id if it has one, "" if there is none
}

var _ lastresource.Engine = (*postgres)(nil)

func (*postgres) Dialect() sqltext.Dialect { return sqltext.Postgres }

// Open finds out what the database has. A failed probe says that it has not.
func (p *postgres) Open(ctx context.Context, l lastresource.Line, lifeMax time.Duration) error {
	t := new(postgresTraits)
	idle, err := setting(ctx, l, "idle_in_transaction_session_timeout")
	if err != nil {
		return err
	}
	if ms, err := strconv.ParseInt(idle, 10, 64); err == nil && (ms == 0 || ms > lifeMax.Milliseconds()) {
		t.idle = fmt.Sprintf("; SET LOCAL idle_in_transaction_session_timeout = %d", lifeMax.Milliseconds()) // R5
	}
	commit, err := setting(ctx, l, "synchronous_commit")
	if err != nil {
		return err
	}
	t.durable = commit != ""
	t.marks = probe(ctx, l, "BEGIN; SET LOCAL troth.gid = 'x'; SELECT 1/(CASE WHEN current_setting('troth.gid', true) = 'x' THEN 1 ELSE 0 END)")
	for _, query := range []string{"SELECT pg_current_xact_id_if_assigned()::text", "SELECT txid_current_if_assigned()::text"} {
		if t.assigns == "" && probe(ctx, l, query) {
			t.assigns = query
		}
	}
	p.found.Store(t)
	return ctx.Err()
}

// probe reports whether statements work.
func probe(ctx context.Context, l lastresource.Line, statements string) bool {
	err := l.Exec(ctx, statements)
	// The probe may have begun a transaction, or not; without one this only warns.
	return errors.Join(err, l.Exec(ctx, "ROLLBACK")) == nil
}

// setting is "" if the database has none of that name.
func setting(ctx context.Context, l lastresource.Line, name string) (string, error) {
	return l.Text(ctx, "SELECT setting FROM pg_catalog.pg_settings WHERE name = '"+name+"'")
}

// Begin implements [lastresource.Engine].
func (p *postgres) Begin(ctx context.Context, l lastresource.Line, how lastresource.How) (b lastresource.Begun, err error) {
	t := p.found.Load()
	if t == nil {
		return b, errNotOpen
	}
	begin := "BEGIN"
	if how.Isolation != sql.LevelDefault {
		level, err := isolation(how.Isolation)
		if err != nil {
			return b, err
		}
		begin += " ISOLATION LEVEL " + level
	}
	begin += t.idle
	if t.marks {
		begin += "; SET LOCAL troth.gid = " + quote(string(how.GID))
	}
	return lastresource.Begun{GID: how.GID}, l.Exec(ctx, begin)
}

var errNotOpen = errors.New("the resource is not open: pass it to troth.Open")

func isolation(level sql.IsolationLevel) (string, error) {
	switch level {
	case sql.LevelReadUncommitted:
		return "READ UNCOMMITTED", nil
	case sql.LevelReadCommitted:
		return "READ COMMITTED", nil
	case sql.LevelRepeatableRead:
		return "REPEATABLE READ", nil
	case sql.LevelSerializable:
		return "SERIALIZABLE", nil
	case sql.LevelDefault, sql.LevelWriteCommitted, sql.LevelSnapshot, sql.LevelLinearizable:
	}
	return "", fmt.Errorf("isolation level %v is not supported: use read committed, repeatable read or serializable", level)
}

// quote is the one place that puts a GID into SQL text. Its alphabet has nothing
// that ends a literal; that is checked again.
func quote(gid string) string {
	if _, err := troth.ParseGID(gid); err != nil {
		panic("plainsql: " + err.Error())
	}
	return "'" + gid + "'"
}

// Changed implements [lastresource.Engine]. Where the server cannot be asked, a
// function called by SELECT that writes goes unseen; its work is committed all
// the same, after the decision.
func (p *postgres) Changed(ctx context.Context, l lastresource.Line, _ lastresource.Begun, seen pinned.Change) (bool, error) {
	if seen == pinned.ChangeYes {
		return true, nil
	}
	if query := p.found.Load().assigns; query != "" {
		id, err := l.Text(ctx, query)
		return id != "", err
	}
	return seen != pinned.ChangeNo, nil
}

// Record implements [lastresource.Engine]. The mark that Begin left ends with its
// transaction, so its absence divides by zero.
func (p *postgres) Record(ctx context.Context, l lastresource.Line, b lastresource.Begun, insert string) error {
	t := p.found.Load()
	text := insert
	if t.durable { // remote_apply and the like stay
		text = "SELECT CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', true) END; " + text
	}
	if t.marks {
		text = "SELECT 1/(CASE WHEN current_setting('troth.gid', true) = " + quote(string(b.GID)) + " THEN 1 ELSE 0 END); " + text
	}
	return l.Exec(ctx, text)
}

// Commit implements [lastresource.Engine]. It comes after a statement that
// succeeded, so it cannot be the COMMIT of a failed transaction, which PostgreSQL
// answers without an error.
func (*postgres) Commit(ctx context.Context, l lastresource.Line) (never bool, err error) {
	err = l.Exec(ctx, "COMMIT")
	if err == nil {
		return false, nil
	}
	// R10. Constraints (class 23), what deferred triggers find wrong (22, P0) and
	// serialization (40, but for 40003: statement completion unknown) are found
	// before anything is written.
	state := sqlState(err)
	if len(state) != 5 {
		return false, err
	}
	switch state[:2] {
	case "22", "23", "P0":
		return true, err
	case "40":
		return state != "40003", err
	}
	return false, err
}

func (*postgres) Idle(error) bool { return false } // ROLLBACK without a transaction only warns

func (*postgres) Transient(err error) bool {
	switch sqlState(err) {
	case "40001", "40P01", "55P03":
		return true
	}
	return false
}

// sqlState is known by its shape: choosing the driver is the program's.
func sqlState(err error) string {
	if e, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return e.SQLState()
	}
	return ""
}

// Examine implements [lastresource.Engine].
func (*postgres) Examine(ctx context.Context, l lastresource.Line, _ time.Duration) ([]troth.Finding, error) {
	version, err := l.Text(ctx, "SELECT version()")
	if err != nil {
		return nil, err
	}
	findings := []troth.Finding{{Subject: "version", Found: version}}
	for _, s := range []struct{ name, why string }{
		{"fsync", "a crash of the machine may lose decisions and corrupt the database"},
		{"full_page_writes", "a crash of the machine may corrupt the database"},
	} {
		value, err := setting(ctx, l, s.name)
		if err != nil {
			return nil, err
		}
		if value == "off" {
			findings = append(findings, troth.Finding{
				Severity: troth.FindingFatal, Subject: s.name, Found: value, Why: s.why,
				Fix: "ALTER SYSTEM SET " + s.name + " = on; SELECT pg_reload_conf()",
			})
		}
	}
	value, err := setting(ctx, l, "synchronous_commit")
	if err != nil {
		return nil, err
	}
	if value == "off" {
		findings = append(findings, troth.Finding{
			Severity: troth.FindingNote, Subject: "synchronous_commit", Found: value,
			Why: "branches turn it on for themselves; the program's other transactions may be lost in a crash",
		})
	}
	slots, err := setting(ctx, l, "max_prepared_transactions")
	if err != nil {
		return nil, err
	}
	if n, err := strconv.Atoi(slots); err == nil && n > 0 {
		findings = append(findings, troth.Finding{
			Severity: troth.FindingNote, Subject: "max_prepared_transactions", Found: slots,
			Why: "this server can prepare", Fix: "use package postgres instead of plainsql",
		})
	}
	return findings, nil
}
