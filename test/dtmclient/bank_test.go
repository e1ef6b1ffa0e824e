package dtmclient_test

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
)

// A bank is a participant: one account in a database of its own, and a service that
// changes it with dtm's barrier. The service answers by HTTP and by gRPC alike.
type bank struct {
	t    *testing.T
	db   *sql.DB
	conf dtmcli.DBConf // the same database, in dtm's words

	url string // of the HTTP service
	rpc string // of the gRPC service: host and port

	mu     sync.Mutex
	faults map[string][]fault // what to do at the next calls, by kind of work
	calls  []string           // "01 action", in the order in which they came
}

// A fault is what a participant does instead of its work and a plain answer.
type fault int

const (
	refuses fault = iota + 1 // says that it will not
	isBusy                   // says that it goes on
	breaks                   // answers with an error that was not agreed, and does nothing
	forgets                  // does its work, and the answer is lost
	mutters                  // says "FAILURE" in a body with status 200, as old participants do; by HTTP only
)

// next sets what becomes of the next calls for some work.
func (b *bank) next(work string, faults ...fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults[work] = append(b.faults[work], faults...)
}

// heal takes all faults back that have not happened.
func (b *bank) heal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.faults)
}

// begin notes a call and says what is to become of it.
func (b *bank) begin(branch, work string) fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, branch+" "+work)
	queue := b.faults[work]
	if len(queue) == 0 {
		return 0
	}
	b.faults[work] = queue[1:]
	return queue[0]
}

// count says how often some work was asked for.
func (b *bank) count(work string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.calls {
		if strings.HasSuffix(c, " "+work) {
			n++
		}
	}
	return n
}

func (b *bank) requireCalls(want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.calls, want) {
		b.t.Errorf("calls of the bank: %q, want %q", b.calls, want)
	}
}

var (
	errBroken = errors.New("bank: out of order")
	errLost   = errors.New("bank: done, and the answer is lost")
	errMutter = errors.New("bank: refused in a body")
)

// serve does some work in a barrier: so often as it is called, it happens once.
func (b *bank) serve(work string, call *dtmcli.BranchBarrier, amount int64) error {
	return b.faulty(call.BranchID, work, func() error {
		call.DBType = b.conf.Driver
		return call.CallWithDB(b.db, func(tx *sql.Tx) error { return b.change(tx, work, amount) })
	})
}

func (b *bank) faulty(branch, name string, work func() error) error {
	switch b.begin(branch, name) {
	case refuses:
		return dtmcli.ErrFailure
	case isBusy:
		return dtmcli.ErrOngoing
	case breaks:
		return errBroken
	case mutters:
		return errMutter
	case forgets:
		if err := work(); err != nil {
			return err
		}
		return errLost
	}
	return work()
}

// change does one kind of work. held is the sum of what was tried and is neither
// confirmed nor cancelled.
func (b *bank) change(tx dtmcli.DB, work string, amount int64) error {
	switch work {
	case "action":
		return b.update(tx, "balance = balance + %d WHERE balance + held + %d >= 0", amount, amount)
	case "compensate":
		return b.update(tx, "balance = balance - %d", amount)
	case "try":
		return b.update(tx, "held = held + %d WHERE balance + held + %d >= 0", amount, amount)
	case "confirm":
		return b.update(tx, "balance = balance + %d, held = held - %d", amount, amount)
	case "cancel":
		return b.update(tx, "held = held - %d", amount)
	}
	return fmt.Errorf("bank: work %q", work)
}

// update fails with dtm's failure if there is not enough money.
func (b *bank) update(tx dtmcli.DB, set string, args ...any) error {
	done, err := tx.Exec(fmt.Sprintf("UPDATE account SET "+set, args...))
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, dtmcli.ErrFailure)
	}
	return nil
}

// inXA calls a local XA transaction of dtm's client, with the work of an action. When it
// returns, MariaDB is ready for phase two: it answers "unknown XID" as long as the session
// that prepared is not gone, and dtm's client, which closes that session before it
// returns and does not wait, would take that for success.
func (b *bank) inXA(amount int64, local func(work func(db *sql.DB) error) error) error {
	var session int64
	err := local(func(db *sql.DB) error {
		if b.conf.Driver == "mysql" {
			if err := db.QueryRowContext(b.t.Context(), "SELECT CONNECTION_ID()").Scan(&session); err != nil {
				return err
			}
		}
		return b.change(db, "action", amount)
	})
	for there := session != 0; err == nil && there; {
		there, err = b.hasSession(session)
	}
	return err
}

// hasSession reports whether MariaDB lists a session. information_schema.processlist would
// be shorter to ask, and crashes the server (10.11.19) while sessions come and go.
func (b *bank) hasSession(id int64) (bool, error) {
	rows, err := b.db.QueryContext(b.t.Context(), "SHOW PROCESSLIST")
	if err != nil {
		return false, err
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		return false, err
	}
	var listed int64
	row := make([]any, len(columns))
	for i := range row {
		row[i] = new(sql.RawBytes)
	}
	row[0] = &listed
	for rows.Next() {
		if err := rows.Scan(row...); err != nil {
			return false, err
		}
		if listed == id {
			return true, nil
		}
	}
	return false, rows.Err()
}

// queryPrepared tells whether the local transaction of a message committed.
func (b *bank) queryPrepared(call *dtmcli.BranchBarrier) error {
	return b.faulty(call.BranchID, "query", func() error {
		call.DBType = b.conf.Driver
		return call.QueryPrepared(b.db)
	})
}

// requireMoney fails unless the account has this balance and nothing is held.
func (b *bank) requireMoney(want int64) {
	b.t.Helper()
	var balance, held int64
	if err := b.db.QueryRowContext(b.t.Context(), "SELECT balance, held FROM account").Scan(&balance, &held); err != nil {
		b.t.Fatal(err)
	}
	if balance != want || held != 0 {
		b.t.Errorf("%s: balance %d, held %d; want %d and 0", b.conf.Driver, balance, held, want)
	}
}
