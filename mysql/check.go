package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/troth-tx/troth"
)

// Check implements [troth.Checker]. It uses a session of the pool, and works on a
// resource that is not open.
func (r *Resource) Check(ctx context.Context) ([]troth.Finding, error) {
	c, err := r.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("mysql: resource %s: %w", r.name, err)
	}
	defer func() { _ = c.Close() }() // back to the pool; nothing was changed on it
	e, err := probe(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("mysql: resource %s: %w", r.name, err)
	}
	findings, err := checkSettings(ctx, c, e)
	if err != nil {
		return nil, fmt.Errorf("mysql: resource %s: %w", r.name, err)
	}
	for _, check := range []func(context.Context, *sql.Conn, engine) ([]troth.Finding, error){
		r.checkSpeed, checkPool(r.db), checkLimits, checkTables, r.checkRights, checkBranches, checkLostBranches,
	} {
		more, err := check(ctx, c, e)
		if err != nil {
			return nil, fmt.Errorf("mysql: resource %s: %w", r.name, err)
		}
		findings = append(findings, more...)
	}
	return findings, nil
}

// A setting is a server variable that transactions depend on.
type setting struct {
	name     string
	good     func(value string) bool
	severity troth.Severity // if it is not good
	why, fix string
	set      string // instead of fix: the assignment that mends it, on a running server
	when     string // the check counts only while this other variable is on
}

// mend is what to do about the setting, so that it outlives a restart.
func (s setting) mend(e engine) string {
	switch {
	case s.set == "":
		return s.fix
	case e.maria:
		return "SET GLOBAL " + s.set + ", and the line " + s.set + " below [mysqld] in my.cnf, or a restart loses it"
	}
	return "SET PERSIST " + s.set
}

func is(values ...string) func(string) bool {
	return func(v string) bool {
		for _, want := range values {
			if strings.EqualFold(v, want) {
				return true
			}
		}
		return false
	}
}

var settings = []setting{
	{
		name: "wsrep_on", good: is("", "OFF", "0"), severity: troth.FindingFatal,
		why: "Galera does not support XA transactions: a prepared branch is not replicated and can be lost",
		fix: "use a server that is not part of a Galera cluster",
	},
	{
		name: "innodb_flush_log_at_trx_commit", good: is("1"), severity: troth.FindingFatal,
		why: "a branch that voted commit can be lost in a crash",
		set: "innodb_flush_log_at_trx_commit = 1",
	},
	{
		name: "sync_binlog", good: is("1"), severity: troth.FindingFatal, when: "log_bin",
		why: "the binary log, which recovery of the server goes by, can lose a branch that voted commit",
		set: "sync_binlog = 1",
	},
	{
		name: "innodb_doublewrite", good: is("ON", "1", "DETECT_AND_RECOVER"), severity: troth.FindingWarning,
		why: "a power cut can leave half a page, and no branch survives that; unless the file system writes pages whole",
		fix: "innodb_doublewrite = ON in the configuration file, then restart",
	},
	{
		name: "autocommit", good: is("1", "ON"), severity: troth.FindingFatal,
		why: "XA START is refused in a session without autocommit",
		fix: "remove autocommit from the DSN, from init_connect and from the configuration file",
	},
	{
		name: "default_storage_engine", good: is("InnoDB"), severity: troth.FindingWarning,
		why: "changes in tables of other engines stay when a transaction rolls back",
		set: "default_storage_engine = InnoDB",
	},
	{
		name: "read_only", good: is("0", "OFF"), severity: troth.FindingWarning,
		why: "the server refuses changes, and the commit of prepared branches: is it a replica?",
		fix: "name the primary in the DSN, or SET GLOBAL read_only = OFF",
	},
	{
		name: "innodb_lock_wait_timeout", good: atMost(20), severity: troth.FindingWarning,
		why: "a deadlock that spans two databases is seen by neither and ends by this timeout alone",
		set: "innodb_lock_wait_timeout = 10",
	},
	{
		name: "innodb_rollback_on_timeout", good: is("0", "1", "ON", "OFF"), severity: troth.FindingNote,
	},
}

func atMost(limit int) func(string) bool {
	return func(v string) bool {
		n, err := strconv.Atoi(v)
		return err == nil && n <= limit
	}
}

// checkSettings examines the server's variables: what Open insists on is here.
func checkSettings(ctx context.Context, c *sql.Conn, e engine) ([]troth.Finding, error) {
	values, err := variables(ctx, c)
	if err != nil {
		return nil, err
	}
	findings := []troth.Finding{checkVersion(e)}
	for _, s := range settings {
		v, known := values[s.name]
		if !known || s.when != "" && !is("ON", "1")(values[s.when]) {
			continue
		}
		f := troth.Finding{Subject: s.name, Found: v}
		if !s.good(v) {
			f.Severity, f.Why, f.Fix = s.severity, s.why, s.mend(e)
		}
		findings = append(findings, f)
	}
	return append(findings, checkReplication(values)...), nil
}

// variables reads the session's view of the server variables that the checks name.
func variables(ctx context.Context, c *sql.Conn) (map[string]string, error) {
	names := []string{
		"'log_bin'", "'max_connections'", "'replicate_do_db'", "'replicate_ignore_db'", "'replicate_do_table'", "'replicate_ignore_table'",
		"'replicate_wild_do_table'", "'replicate_wild_ignore_table'",
	}
	for _, s := range settings {
		names = append(names, "'"+s.name+"'")
	}
	rows, err := c.QueryContext(ctx, "SHOW VARIABLES WHERE variable_name IN ("+strings.Join(names, ", ")+")")
	if err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to its end, or the error is Err's
	values := make(map[string]string)
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		values[strings.ToLower(name)] = value
	}
	return values, rows.Err()
}

// Oldest versions in which a prepared branch survives the end of its session, and
// a lock can be asked for without waiting.
var (
	mariaMin = [2]int{10, 5}
	mysqlMin = [2]int{8, 0}
)

func checkVersion(e engine) troth.Finding {
	f := troth.Finding{Subject: "version", Found: e.version}
	var v [2]int
	// A version that cannot be read is 0.0, and refused.
	_, _ = fmt.Sscanf(strings.TrimPrefix(e.version, "5.5.5-"), "%d.%d", &v[0], &v[1])
	oldest, product := mysqlMin, "MySQL"
	if e.maria {
		oldest, product = mariaMin, "MariaDB"
	}
	if v[0] < oldest[0] || v[0] == oldest[0] && v[1] < oldest[1] {
		f.Severity = troth.FindingFatal
		f.Why = "prepared branches do not survive the end of their session, or cannot be examined"
		f.Fix = fmt.Sprintf("use %s %d.%d or newer", product, oldest[0], oldest[1])
	} else if !e.maria {
		f.Severity = troth.FindingNote
		f.Why = "support of MySQL 8 is written after its documentation; the tests run on MariaDB"
	}
	return f
}

func checkReplication(values map[string]string) []troth.Finding {
	var findings []troth.Finding
	for name, value := range values {
		if strings.HasPrefix(name, "replicate_") && value != "" {
			findings = append(findings, troth.Finding{
				Severity: troth.FindingWarning, Subject: name, Found: value,
				Why: "replication filters and XA transactions together break replication",
				Fix: "replicate everything: remove the filter",
			})
		}
	}
	return findings
}

// checkSpeed tells what the DSN could have.
func (r *Resource) checkSpeed(ctx context.Context, c *sql.Conn, e engine) ([]troth.Finding, error) {
	f := troth.Finding{Subject: "multiStatements", Found: "true"}
	if !e.multi {
		f = troth.Finding{
			Severity: troth.FindingNote, Subject: "multiStatements", Found: "false",
			Why: "every branch takes four round trips more than it needs",
			Fix: "add multiStatements=true&interpolateParams=true to the DSN; mind that an SQL injection hole then takes whole statements",
		}
	}
	return []troth.Finding{f}, nil
}

// checkPool compares the pool with the server: every branch in flight holds a
// session until it has ended.
func checkPool(db *sql.DB) func(context.Context, *sql.Conn, engine) ([]troth.Finding, error) {
	return func(ctx context.Context, c *sql.Conn, _ engine) ([]troth.Finding, error) {
		var limit int
		if err := c.QueryRowContext(ctx, "SELECT @@GLOBAL.max_connections").Scan(&limit); err != nil {
			return nil, err
		}
		pool := db.Stats().MaxOpenConnections
		f := troth.Finding{Subject: "max_connections", Found: fmt.Sprintf("%d; the pool's limit is %d", limit, pool)}
		switch {
		case pool == 0:
			f.Severity = troth.FindingNote
			f.Found = fmt.Sprintf("%d; the pool has no limit", limit)
			f.Why = "every branch in flight holds a session until it has ended: many at once can use up the server's"
			f.Fix = fmt.Sprintf("db.SetMaxOpenConns(n), all processes together less than %d", limit)
		case pool >= limit:
			f.Severity = troth.FindingWarning
			f.Why = "every branch in flight holds a session until it has ended: this pool alone can use up the server's"
			f.Fix = fmt.Sprintf("SET GLOBAL max_connections = %d, or a smaller pool", pool+100)
		}
		return []troth.Finding{f}, nil
	}
}

// checkLimits looks at what protects others from a branch that stays.
func checkLimits(ctx context.Context, c *sql.Conn, e engine) ([]troth.Finding, error) {
	if !e.maria {
		return nil, nil
	}
	var other int
	err := c.QueryRowContext(ctx, "SELECT COUNT(DISTINCT table_schema) FROM information_schema.tables "+
		"WHERE table_name = 'troth_witness' AND table_schema <> DATABASE()").Scan(&other)
	if err != nil || other == 0 {
		return nil, err
	}
	found := "1 other schema with tables of troth"
	if other > 1 {
		found = fmt.Sprintf("%d other schemas with tables of troth", other)
	}
	return []troth.Finding{{
		Severity: troth.FindingNote, Subject: "shared server", Found: found,
		Why: "any user of this server can list and end the prepared branches of all others; every program sees every branch",
		Fix: "share the server only among programs that trust each other, and give each its own Config.Domain",
	}}, nil
}

// checkTables looks for tables that are not InnoDB.
func checkTables(ctx context.Context, c *sql.Conn, _ engine) ([]troth.Finding, error) {
	var findings []troth.Finding
	var schema sql.NullString
	if err := c.QueryRowContext(ctx, "SELECT DATABASE()").Scan(&schema); err != nil {
		return nil, err
	}
	if !schema.Valid {
		return []troth.Finding{{
			Severity: troth.FindingFatal, Subject: "schema", Found: "none",
			Why: "troth's tables must be somewhere", Fix: "name a schema in the DSN: .../shop",
		}}, nil
	}
	var foreign int
	var example sql.NullString
	err := c.QueryRowContext(ctx, "SELECT COUNT(*), MIN(CONCAT(table_name, ' (', engine, ')')) FROM information_schema.tables "+
		"WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' AND engine <> 'InnoDB'").Scan(&foreign, &example)
	if err != nil {
		return nil, err
	}
	if foreign > 0 {
		findings = append(findings, troth.Finding{
			Severity: troth.FindingWarning, Subject: "tables not InnoDB", Found: fmt.Sprintf("%d, such as %s", foreign, example.String),
			Why: "changes in them stay when a transaction rolls back",
			Fix: "ALTER TABLE " + quotedName(strings.SplitN(example.String, " (", 2)[0]) + " ENGINE = InnoDB",
		})
	}
	return findings, nil
}

// orphanAge is from when on a prepared branch is worth a word.
const orphanAge = time.Minute

// checkBranches lists prepared branches that should have ended. MariaDB does not
// say when a branch was prepared; our names say when its transaction began.
func checkBranches(ctx context.Context, c *sql.Conn, e engine) ([]troth.Finding, error) {
	list, err := prepared(ctx, c)
	if isCode(err, codeXARecoverDenied, codePrivilege) {
		user, err := currentUser(ctx, c)
		if err != nil {
			return nil, err
		}
		return []troth.Finding{{
			Severity: troth.FindingFatal, Subject: "XA_RECOVER_ADMIN", Found: "not granted",
			Why: "recovery cannot list prepared branches, so none would ever be ended",
			Fix: "GRANT XA_RECOVER_ADMIN ON *.* TO " + user,
		}}, nil
	}
	if err != nil {
		return nil, err
	}
	var findings []troth.Finding
	for _, p := range list {
		switch {
		case !p.Ours:
			findings = append(findings, troth.Finding{
				Severity: troth.FindingNote, Subject: "foreign branch", Found: p.Native,
				Why: "another program prepared it; it holds locks until somebody ends it, and troth never will",
				Fix: "if its program is gone for good: XA ROLLBACK " + p.Native,
			})
		case time.Since(p.XID.GID.Time()) > orphanAge:
			findings = append(findings, troth.Finding{
				Severity: troth.FindingWarning, Subject: "old branch", Found: p.Native,
				Why: "its transaction began " + time.Since(p.XID.GID.Time()).Round(time.Second).String() + " ago; it holds locks until recovery reaches it",
				Fix: "troth recover, in a program that knows its decision's place " + p.XID.Place.String(),
			})
		}
	}
	if len(findings) == 0 {
		findings = []troth.Finding{{Subject: "prepared branches", Found: fmt.Sprintf("%d, none old", len(list))}}
	}
	return findings, nil
}

// checkLostBranches looks for branches that InnoDB holds and no list shows: an XA
// COMMIT was acknowledged and not done. A restart brings them back.
func checkLostBranches(ctx context.Context, c *sql.Conn, e engine) ([]troth.Finding, error) {
	var detached int
	err := c.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = 0 AND trx_rows_modified > 0").Scan(&detached)
	if isCode(err, codePrivilege, codeTableDenied) {
		user, err := currentUser(ctx, c)
		if err != nil {
			return nil, err
		}
		return []troth.Finding{{
			Severity: troth.FindingNote, Subject: "PROCESS", Found: "not granted",
			Why: "who waits for a branch, and branches that only InnoDB knows, cannot be seen",
			Fix: "GRANT PROCESS ON *.* TO " + user,
		}}, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := prepared(ctx, c)
	if err != nil {
		return nil, err
	}
	if detached <= len(list) {
		return nil, nil
	}
	return []troth.Finding{{
		Severity: troth.FindingWarning, Subject: "branches in no list", Found: strconv.Itoa(detached - len(list)),
		Why: "InnoDB holds prepared branches, with their locks, that XA RECOVER does not list",
		Fix: "restart the server: it lists them again, and recovery ends them",
	}}, nil
}
