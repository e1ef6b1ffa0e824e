package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/troth-tx/troth"
)

// facts are what doctor compares between databases.
type facts struct {
	server   string // tells servers apart; empty if it is not known
	database string // tells the databases of one server apart
	file     os.FileInfo
	prepares bool // it can vote first and commit later
	slots    int  // how many transactions may be prepared at once; 0: no such limit
}

func readFacts(ctx context.Context, t target, db *sql.DB) (facts, error) {
	switch t.engine {
	case enginePostgres:
		return postgresFacts(ctx, db)
	case engineMySQL:
		return mysqlFacts(ctx, db)
	case engineSQLite:
		info, err := os.Stat(strings.TrimPrefix(t.shown, "sqlite:"))
		return facts{file: info}, err
	}
	return facts{}, nil
}

func postgresFacts(ctx context.Context, db *sql.DB) (facts, error) {
	var f facts
	err := db.QueryRowContext(ctx, `SELECT current_database()::text, current_setting('max_prepared_transactions')::int`).Scan(&f.database, &f.slots)
	f.prepares = f.slots > 0
	if err != nil {
		return f, err
	}
	err = db.QueryRowContext(ctx, `SELECT system_identifier::text FROM pg_control_system()`).Scan(&f.server)
	if err != nil && ctx.Err() == nil {
		err = nil // some services take the right away; then two names of one database go unnoticed
	}
	return f, err
}

// mysqlFacts asks for the identity of the server: MySQL has server_uuid, MariaDB
// server_uid since 10.10; older ones are told apart by where they run.
func mysqlFacts(ctx context.Context, db *sql.DB) (facts, error) {
	f := facts{prepares: true}
	var where string
	err := db.QueryRowContext(ctx, "SELECT CONCAT(@@hostname, ' ', @@port, ' ', @@datadir), COALESCE(DATABASE(), '')").Scan(&where, &f.database)
	if err != nil {
		return f, err
	}
	var name string
	err = db.QueryRowContext(ctx, "SHOW GLOBAL VARIABLES WHERE variable_name IN ('server_uuid', 'server_uid')").Scan(&name, &f.server)
	if errors.Is(err, sql.ErrNoRows) || err == nil && f.server == "" {
		f.server, err = where, nil
	}
	return f, err
}

// same reports whether two databases are one.
func (f facts) same(other facts) bool {
	if f.file != nil && other.file != nil {
		return os.SameFile(f.file, other.file)
	}
	return f.server != "" && f.server == other.server && f.database == other.database
}

// compare finds what no database can see by itself.
func compare(exams []exam) []troth.Finding {
	var list []troth.Finding
	var cannot []string
	smallest := -1
	for i, x := range exams {
		if x.status != examChecked {
			continue
		}
		if !x.facts.prepares {
			cannot = append(cannot, x.name)
		}
		if x.facts.slots > 0 && (smallest < 0 || x.facts.slots < exams[smallest].facts.slots) {
			smallest = i
		}
		for _, y := range exams[:i] {
			if y.status == examChecked && x.engine == y.engine && x.facts.same(y.facts) {
				list = append(list, troth.Finding{
					Severity: troth.FindingFatal, Subject: "one database, two names", Found: names([]string{y.name, x.name}),
					Why: "two branches of one transaction would wait for each other's locks for ever; programs refuse to start",
					Fix: "remove one of them: a transaction shares one resource among its users",
				})
			}
		}
	}
	if len(cannot) > 1 {
		list = append(list, troth.Finding{
			Severity: troth.FindingWarning, Subject: "databases that cannot prepare", Found: names(cannot),
			Why: "a transaction can write to one of them at most: that one commits the decision with its own work",
			Fix: "keep them in separate transactions; a PostgreSQL among them learns it with ALTER SYSTEM SET max_prepared_transactions = 100 and a restart",
		})
	}
	if smallest >= 0 {
		x := exams[smallest]
		list = append(list, troth.Finding{
			Subject: "transactions in the vote at once",
			Found:   fmt.Sprintf("%d at most, by %s, which has the fewest slots", x.facts.slots, x.name),
		})
	}
	return list
}

// durability are the subjects of findings that matter to a database that only
// keeps decisions.
var durability = []string{
	"server_version", "standby", "fsync", "full_page_writes", "version", "wsrep_on", "innodb_flush_log_at_trx_commit",
	"sync_binlog", "innodb_doublewrite", "read_only", "database file", "file permissions", "file system", "journal_mode", "query_only",
}

// withoutDecisions leaves out what matters to databases that keep decisions, when
// these are in a register of their own. One that cannot prepare keeps them still.
func withoutDecisions(exams []exam) []exam {
	for i := range exams {
		x := &exams[i]
		if !x.facts.prepares {
			continue
		}
		x.findings = slices.DeleteFunc(x.findings, func(f troth.Finding) bool {
			switch x.engine {
			case enginePostgres:
				return strings.HasPrefix(f.Subject, "rights of role ")
			case engineMySQL:
				return f.Subject == "rights on troth_decision"
			case engineSQLite:
			}
			return false
		})
	}
	return exams
}

// examineRegister looks at where decisions are kept: nil if that is in the
// databases themselves. It does not open a file log, which has one owner, and that
// is not us.
func examineRegister(ctx context.Context, r registerAddress) *exam {
	switch {
	case r.none():
		return nil
	case r.db == nil:
		return &exam{target: target{address: address{shown: r.shown()}}, status: examChecked, findings: examineLog(r)}
	}
	x := examine(ctx, target{"register", *r.db})
	x.findings = slices.DeleteFunc(x.findings, func(f troth.Finding) bool { return !slices.Contains(durability, f.Subject) })
	return &x
}

func examineLog(r registerAddress) []troth.Finding {
	f := troth.Finding{Subject: "directory", Found: "there"}
	info, err := os.Stat(r.dir)
	switch {
	case err != nil:
		f.Severity, f.Found = troth.FindingWarning, err.Error()
		f.Why = "the program makes the log when it starts; if it has run before, its decisions are lost"
		f.Fix = "correct the address, or bring the directory back from where it went"
	case !info.IsDir():
		f.Severity, f.Found = troth.FindingFatal, "not a directory"
		f.Why, f.Fix = "the log is a directory of files", "correct the address"
	case info.Mode().Perm()&0o022 != 0:
		f.Severity, f.Found = troth.FindingWarning, fmt.Sprintf("mode %04o", info.Mode().Perm())
		f.Why, f.Fix = "others may change the log, and with it decisions", "chmod 700 "+shellQuote(r.dir)
	}
	return []troth.Finding{f}
}
