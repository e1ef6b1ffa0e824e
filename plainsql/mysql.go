package plainsql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/lastresource"
	"github.com/troth-tx/troth/internal/pinned"
	"github.com/troth-tx/troth/internal/sqltext"
)

// savepoint is set as the first thing in a branch's transaction. That it can be
// released at the end proves that the transaction is still the same: a deadlock
// rolls a whole transaction back, a stored procedure may commit it, and what
// follows runs without any.
const savepoint = "troth_branch"

// mysql implements [lastresource.Engine]. Drivers send one statement at a time.
type mysql struct {
	found atomic.Pointer[mysqlTraits] // set by Open
}

// mysqlTraits is what a database has of MySQL.
type mysqlTraits struct{ savepoints bool }

var _ lastresource.Engine = (*mysql)(nil)

func (*mysql) Dialect() sqltext.Dialect { return sqltext.MySQL }

// Open implements [lastresource.Engine].
func (m *mysql) Open(ctx context.Context, l lastresource.Line, _ time.Duration) error {
	if err := l.Exec(ctx, "START TRANSACTION"); err != nil {
		return err
	}
	// Old proxies and TiDB before 6.2 lack them.
	works := l.Exec(ctx, "SAVEPOINT "+savepoint) == nil && l.Exec(ctx, "RELEASE SAVEPOINT "+savepoint) == nil
	m.found.Store(&mysqlTraits{savepoints: works})
	return l.Exec(ctx, "ROLLBACK")
}

// Begin implements [lastresource.Engine].
func (m *mysql) Begin(ctx context.Context, l lastresource.Line, how lastresource.How) (b lastresource.Begun, err error) {
	t := m.found.Load()
	if t == nil {
		return b, errNotOpen
	}
	var begin []string
	if how.Isolation != sql.LevelDefault {
		level, err := isolation(how.Isolation)
		if err != nil {
			return b, err
		}
		begin = append(begin, "SET TRANSACTION ISOLATION LEVEL "+level) // of the next transaction only
	}
	begin = append(begin, "START TRANSACTION")
	if t.savepoints {
		begin = append(begin, "SAVEPOINT "+savepoint)
	}
	for _, statement := range begin {
		if err := l.Exec(ctx, statement); err != nil {
			return b, err
		}
	}
	return b, nil
}

// Changed implements [lastresource.Engine]. The server cannot be asked.
func (*mysql) Changed(_ context.Context, _ lastresource.Line, _ lastresource.Begun, seen pinned.Change) (bool, error) {
	return seen != pinned.ChangeNo, nil
}

// Record implements [lastresource.Engine].
func (m *mysql) Record(ctx context.Context, l lastresource.Line, _ lastresource.Begun, insert string) error {
	if m.found.Load().savepoints {
		if err := l.Exec(ctx, "RELEASE SAVEPOINT "+savepoint); err != nil {
			return fmt.Errorf("the transaction has ended before its time, by a deadlock or by a COMMIT in a stored procedure: %w", err)
		}
	}
	return l.Exec(ctx, insert)
}

// Commit implements [lastresource.Engine]. No error of COMMIT is definite (R10):
// in this family it may come from the binary log, a cluster or a proxy.
func (*mysql) Commit(ctx context.Context, l lastresource.Line) (never bool, err error) {
	return false, l.Exec(ctx, "COMMIT")
}

func (*mysql) Idle(error) bool { return false } // ROLLBACK without a transaction is no error

// Transient implements [lastresource.Engine]: a lock timeout, a deadlock, and TiDB's
// conflicts.
func (*mysql) Transient(err error) bool {
	switch errorNumber(err) {
	case 1205, 1213, 8002, 8022, 9007:
		return true
	}
	return false
}

// errorNumber is the field Number of *mysql.MySQLError, which no method gives;
// it is known by its shape, since choosing the driver is the program's.
func errorNumber(err error) uint64 {
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.Indirect(reflect.ValueOf(err))
		if v.Kind() != reflect.Struct {
			continue
		}
		if n := v.FieldByName("Number"); n.IsValid() && n.CanUint() {
			return n.Uint()
		}
	}
	return 0
}

// Examine implements [lastresource.Engine].
func (*mysql) Examine(ctx context.Context, l lastresource.Line, lifeMax time.Duration) ([]troth.Finding, error) {
	rows, err := l.Query(ctx, "SHOW VARIABLES WHERE Variable_name IN ('version', 'innodb_flush_log_at_trx_commit', "+
		"'log_bin', 'sync_binlog', 'completion_type', 'wait_timeout', 'wsrep_on')")
	if err != nil {
		return nil, err
	}
	value := make(map[string]string, len(rows))
	for _, row := range rows {
		value[strings.ToLower(row[0])] = row[1]
	}
	findings := []troth.Finding{{Subject: "version", Found: value["version"]}}
	add := func(severity troth.Severity, subject, why, fix string) {
		findings = append(findings, troth.Finding{Severity: severity, Subject: subject, Found: value[subject], Why: why, Fix: fix})
	}
	// Databases that only resemble MySQL have other logs, and other values there.
	if v := value["innodb_flush_log_at_trx_commit"]; v == "0" || v == "2" {
		add(troth.FindingFatal, "innodb_flush_log_at_trx_commit", "a power cut may lose decisions",
			"SET GLOBAL innodb_flush_log_at_trx_commit = 1")
	}
	if v := value["sync_binlog"]; v != "" && v != "1" && value["log_bin"] == "ON" {
		add(troth.FindingFatal, "sync_binlog", "a power cut may lose decisions or part the binary log from the data",
			"SET GLOBAL sync_binlog = 1")
	}
	if v := value["completion_type"]; v != "" && v != "NO_CHAIN" && v != "0" {
		add(troth.FindingFatal, "completion_type", "COMMIT would begin another transaction, or end the session",
			"SET GLOBAL completion_type = NO_CHAIN")
	}
	if value["wsrep_on"] == "ON" {
		add(troth.FindingWarning, "wsrep_on",
			"on a Galera cluster two nodes may accept a commit and an abort of one transaction at the same time until one is certified",
			"let the programs and recovery use one node")
	}
	// R5: abort records are kept for ten times LifeMax.
	if s, err := strconv.ParseInt(value["wait_timeout"], 10, 64); err == nil && lifeMax > 0 && time.Duration(s)*time.Second > 10*lifeMax {
		limit := strconv.FormatInt(int64(lifeMax/time.Second), 10)
		add(troth.FindingFatal, "wait_timeout", "a transaction could sit idle for longer than the record of its abort is kept",
			"wait_timeout="+limit+" in the DSN, or a longer Config.LifeMax")
	}
	return findings, nil
}
