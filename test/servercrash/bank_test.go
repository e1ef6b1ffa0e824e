//go:build linux

package servercrash

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/internal/dbtest"
)

// accounts is how many accounts a bank has, each with startBalance at first.
const accounts, startBalance = 16, 1000

// A bank keeps accounts in a database, with the barrier's table beside them. An entry in
// its journal is one effect of one operation, in the local transaction that has it.
type bank struct {
	db    *sql.DB
	table *barrier.Table
	clock *atomic.Int64 // numbers the effects of all banks in the order in which they happen
}

// newSQLiteBank keeps the money in a file. It is not synced: this process does not die.
func newSQLiteBank(t *testing.T, clock *atomic.Int64) *bank {
	t.Helper()
	dsn := "file:" + filepath.Join(t.TempDir(), "bank") + "?" + url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(OFF)"}, "_txlock": {"immediate"},
	}.Encode()
	return newBank(t, barrier.SQLite, "sqlite", dsn, clock)
}

func newPostgresBank(t *testing.T, clock *atomic.Int64) *bank {
	t.Helper()
	return newBank(t, barrier.PostgreSQL, "pgx", dbtest.SharedPostgres(t, 0).NewDatabase(t), clock)
}

func newBank(t *testing.T, d barrier.Dialect, driver, dsn string, clock *atomic.Int64) *bank {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(16)
	table, err := barrier.NewTable(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Create(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	var values []string
	for id := range accounts {
		values = append(values, fmt.Sprintf("(%d, %d, 0)", id, startBalance))
	}
	for _, statement := range []string{
		"CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL, held bigint NOT NULL)",
		"CREATE TABLE journal (seq bigint NOT NULL, gid varchar(128) NOT NULL, branch varchar(128) NOT NULL, op varchar(45) NOT NULL)",
		"INSERT INTO account VALUES " + strings.Join(values, ", "),
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return &bank{db: db, table: table, clock: clock}
}

// A move is money that comes to an account, or goes if it is negative. It is the payload
// of branches.
type move struct {
	Account int   `json:"account"`
	Amount  int64 `json:"amount"`
	Refuse  bool  `json:"refuse"` // the participant says no to the action, or the try

	Slow time.Duration `json:"slow"` // what the answer to the action takes, once it is done
}

// drawMove draws an account.
func drawMove(rng *rand.Rand, amount int64) move {
	return move{Account: rng.IntN(accounts), Amount: amount}
}

// book is what a step does with the money, in its local transaction. A try takes what
// goes and holds it; what comes is there after the confirmation.
func (b *bank) book(ctx context.Context, tx execer, s barrier.Step, m move) error {
	balance, held := m.Amount, int64(0)
	switch s.Op {
	case barrier.Compensate, barrier.Rollback:
		balance = -m.Amount
	case barrier.Try:
		balance = min(m.Amount, 0)
		held = -balance
	case barrier.Confirm:
		balance = max(m.Amount, 0)
		held = min(m.Amount, 0)
	case barrier.Cancel:
		balance = -min(m.Amount, 0)
		held = -balance
	case barrier.Action, barrier.Commit, barrier.Message:
	}
	if _, err := tx.ExecContext(ctx, b.sql("UPDATE account SET balance = balance + ?, held = held + ? WHERE id = ?"), balance, held, m.Account); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, b.sql("INSERT INTO journal VALUES (?, ?, ?, ?)"), b.clock.Add(1), s.GID, s.Branch, string(s.Op))
	return err
}

// An execer is a transaction, or a handle to a branch.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (b *bank) postgres() bool { return b.table.Dialect() == barrier.PostgreSQL }

// sql writes the placeholders as the database wants them.
func (b *bank) sql(text string) string {
	if !b.postgres() {
		return text
	}
	for n := 1; strings.Contains(text, "?"); n++ {
		text = strings.Replace(text, "?", fmt.Sprint("$", n), 1)
	}
	return text
}

// do is a participant's operation, behind the barrier.
func (b *bank) do(ctx context.Context, s barrier.Step, m move) error {
	return b.table.Run(ctx, b.db, s, func(ctx context.Context, tx *sql.Tx) error { return b.book(ctx, tx, s, m) })
}

// total is what is in all accounts, and of that what is held.
func (b *bank) total(ctx context.Context) (all, held int64, err error) {
	err = b.db.QueryRowContext(ctx, "SELECT SUM(balance) + SUM(held), SUM(ABS(held)) FROM account").Scan(&all, &held)
	return all, held, err
}

// An entry of a journal.
type entry struct {
	seq             int64
	gid, branch, op string
}

func (b *bank) journal(ctx context.Context) (all []entry, err error) {
	rows, err := b.db.QueryContext(ctx, "SELECT seq, gid, branch, op FROM journal")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var e entry
		if err := rows.Scan(&e.seq, &e.gid, &e.branch, &e.op); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, rows.Err()
}
