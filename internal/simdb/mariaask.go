package simdb

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// setting is the value of a server variable as SHOW VARIABLES writes it; "" and false
// if the simulation does not know it.
func (m *maria) setting(s *Session, name string) (string, bool) {
	onOff := func(on bool) string {
		if on {
			return "ON"
		}
		return "OFF"
	}
	switch strings.ToLower(name) {
	case "autocommit":
		return onOff(!s.maria.manual), true
	case "log_bin":
		return onOff(m.srv.opt.Binlog), true
	case "sync_binlog":
		return strconv.Itoa(int(fromBool(m.srv.opt.Binlog))), true
	case "max_connections":
		return strconv.Itoa(m.srv.opt.MaxSessions), true
	case "innodb_lock_wait_timeout":
		if s.maria.lockWait == 0 {
			return "50", true
		}
		return strconv.FormatInt(s.maria.lockWait-1, 10), true
	case "innodb_flush_log_at_trx_commit":
		return "1", true
	case "innodb_doublewrite":
		return "ON", true
	case "default_storage_engine":
		return "InnoDB", true
	case "read_only", "innodb_rollback_on_timeout", "wsrep_on":
		return "OFF", true
	case "replicate_do_db", "replicate_ignore_db", "replicate_do_table", "replicate_ignore_table",
		"replicate_wild_do_table", "replicate_wild_ignore_table":
		return "", true
	case "version":
		return mariaVersion, true
	case "version_comment":
		return "Debian 12", true
	}
	return "", false
}

// variable is "@@name": a number, where the server has one.
func (m *maria) variable(c *call, name string) (any, error) {
	v, ok := m.setting(c.s, name)
	if !ok {
		return nil, c.s.srv.unknown(c, "unknown variable "+name)
	}
	switch v {
	case "ON":
		return int64(1), nil
	case "OFF":
		return int64(0), nil
	}
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		return n, nil
	}
	return v, nil
}

// An assignment is one of SET's.
type assignment struct {
	name  string
	value string
}

// setText reads SET.
func (m *maria) setText(p *parser) statement {
	session := p.words("SESSION")
	if p.words("TRANSACTION") {
		return m.setTransaction(p, session)
	}
	var list []assignment
	for p.err == nil {
		_ = p.words("SESSION")
		a := assignment{name: strings.ToLower(p.name())}
		p.mustOp("=")
		a.value = p.take().text
		if !mariaSettable[a.name] {
			p.fail("SET of an unknown variable " + a.name)
		}
		list = append(list, a)
		if !p.op(",") {
			break
		}
	}
	return action(func(c *call) (Result, error) {
		for _, a := range list {
			if err := m.set(c.s, a); err != nil {
				return Result{}, err
			}
		}
		return Result{}, nil
	})
}

var mariaSettable = map[string]bool{
	"autocommit": true, "innodb_lock_wait_timeout": true, "idle_transaction_timeout": true,
	"lock_wait_timeout": true, "wait_timeout": true, "sql_mode": true, "sql_safe_updates": true, // without effect here
}

func (m *maria) set(s *Session, a assignment) error {
	n, err := strconv.ParseInt(a.value, 10, 64)
	on := n != 0 || strings.EqualFold(a.value, "ON")
	switch a.name {
	case "autocommit":
		if on && s.maria.manual {
			if b := s.maria.branch; b != nil {
				return b.wrongState()
			}
			m.commitLocal(s)
		}
		s.maria.manual = !on
		return nil
	case "innodb_lock_wait_timeout", "idle_transaction_timeout":
		if err != nil || n < 0 {
			return mariaError("1231", "42000", "Variable '"+a.name+"' can't be set to the value of '"+a.value+"'")
		}
		if a.name == "innodb_lock_wait_timeout" {
			s.maria.lockWait = n + 1
		} else {
			s.maria.idleMax = n
		}
	}
	return nil
}

// setTransaction reads what stands behind SET [SESSION] TRANSACTION.
func (m *maria) setTransaction(p *parser, session bool) statement {
	var level isolation
	for p.err == nil {
		switch {
		case p.words("ISOLATION", "LEVEL", "READ", "UNCOMMITTED"):
			level = readUncommitted
		case p.words("ISOLATION", "LEVEL", "READ", "COMMITTED"):
			level = readCommitted
		case p.words("ISOLATION", "LEVEL", "REPEATABLE", "READ"):
			level = repeatableRead
		case p.words("ISOLATION", "LEVEL", "SERIALIZABLE"):
			level = serializable
		case p.words("READ", "WRITE"):
		default:
			p.fail("expected an isolation level")
		}
		if !p.op(",") {
			break
		}
	}
	return action(func(c *call) (Result, error) {
		s := c.s
		switch {
		case session:
			s.maria.level = level
		case s.inTransaction() || s.maria.branch != nil && s.maria.branch.state != branchRollbackOnly: // a deadlock has ended that one's
			return Result{}, mariaError("1568", "25001", "Transaction characteristics can't be changed while a transaction is in progress")
		default:
			s.maria.next = level
		}
		return Result{}, nil
	})
}

// showText reads SHOW PROCESSLIST, and SHOW VARIABLES WHERE name IN (...).
func (m *maria) showText(p *parser) statement {
	if p.words("PROCESSLIST") {
		return action(func(*call) (Result, error) { return m.processes(), nil })
	}
	_ = p.words("GLOBAL") || p.words("SESSION")
	p.mustWords("VARIABLES", "WHERE", "VARIABLE_NAME", "IN")
	p.mustOp("(")
	names := []string{p.literal()}
	for p.op(",") {
		names = append(names, p.literal())
	}
	p.mustOp(")")
	slices.Sort(names)
	return action(func(c *call) (Result, error) {
		res := Result{Columns: []string{"Variable_name", "Value"}}
		for _, name := range names {
			if value, ok := m.setting(c.s, name); ok {
				res.Rows = append(res.Rows, []any{name, value})
			}
		}
		res.Affected = int64(len(res.Rows))
		return res, nil
	})
}

// processes lists the threads, those that are about to end included.
func (m *maria) processes() Result {
	res := Result{Columns: []string{"Id", "User", "Host", "db", "Command", "Time", "State", "Info", "Progress"}}
	row := func(id uint64, command string, since time.Time, info any) {
		idle := int64(m.srv.now().Sub(since) / time.Second)
		res.Rows = append(res.Rows, []any{int64(id), "troth", "localhost", mariaSchema, command, idle, "", info, float64(0)})
	}
	for _, l := range m.leaving {
		if m.srv.now().Before(l.until) {
			row(l.id, "Killed", m.srv.now(), nil)
		}
	}
	for _, s := range m.srv.sessions {
		if s.req.running {
			row(s.id, "Query", s.was, s.last)
		} else {
			row(s.id, "Sleep", s.was, nil)
		}
	}
	res.Affected = int64(len(res.Rows))
	return res
}

// kill ends another session, or one's own.
func (m *maria) kill(id expr) statement {
	return action(func(c *call) (Result, error) {
		v, err := id.eval(&env{c: c})
		if err != nil {
			return Result{}, err
		}
		n, ok := toInt(v)
		if !ok || n < 0 {
			return Result{}, m.mistake(mistakeType, "thread id")
		}
		s := m.srv.Session(uint64(n))
		switch {
		case s == c.s:
			s.end(mariaError("1927", "70100", "Connection was killed"))
		case s != nil:
			s.Terminate()
		case !slices.ContainsFunc(m.leaving, func(l leaver) bool { return l.id == uint64(n) && m.srv.now().Before(l.until) }):
			return Result{}, mariaError("1094", "HY000", "Unknown thread id: "+strconv.FormatInt(n, 10))
		}
		return Result{}, nil
	})
}

// function finds MariaDB's own functions.
func (m *maria) function(name string) function {
	switch name {
	case "version":
		return func(*env, []any) (any, error) { return mariaVersion, nil }
	case "database", "schema":
		return func(*env, []any) (any, error) { return mariaSchema, nil }
	case "current_user", "user":
		return func(*env, []any) (any, error) { return "troth@localhost", nil }
	case "connection_id":
		return func(e *env, _ []any) (any, error) { return int64(e.c.s.id), nil }
	case "unix_timestamp":
		return func(*env, []any) (any, error) { return m.srv.now().Unix(), nil }
	case "utc_timestamp":
		return m.utcTimestamp
	case "concat":
		return concat
	}
	return nil
}

func (m *maria) utcTimestamp(_ *env, args []any) (any, error) {
	precision := time.Second
	if len(args) == 1 && args[0] == int64(6) {
		precision = time.Microsecond
	}
	return m.srv.now().UTC().Truncate(precision), nil
}

func concat(_ *env, args []any) (any, error) {
	var b strings.Builder
	for _, v := range args {
		text, ok := toString(v)
		if !ok {
			return nil, nil
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// special reads INTERVAL x MICROSECOND and TIMESTAMPDIFF(MICROSECOND, a, b).
func (m *maria) special(p *parser) expr {
	switch {
	case p.words("INTERVAL"):
		x := p.sum()
		p.mustWords("MICROSECOND")
		return &funcCall{name: "interval", run: interval, args: []expr{x}}
	case p.words("TIMESTAMPDIFF"):
		p.mustOp("(")
		p.mustWords("MICROSECOND")
		p.mustOp(",")
		a := p.expression()
		p.mustOp(",")
		b := p.expression()
		p.mustOp(")")
		return &funcCall{name: "timestampdiff", run: timestampDiff, args: []expr{a, b}}
	}
	return nil
}

func interval(e *env, args []any) (any, error) {
	n, ok := toInt(args[0])
	if !ok {
		return nil, e.c.eng().mistake(mistakeType, "interval")
	}
	return time.Duration(n) * time.Microsecond, nil
}

func timestampDiff(_ *env, args []any) (any, error) {
	a, ok := toTime(args[0])
	b, ok2 := toTime(args[1])
	if !ok || !ok2 {
		return nil, nil // as MariaDB does with what is no time
	}
	return b.UnixMicro() - a.UnixMicro(), nil
}

// relation is what the server knows of itself.
func (m *maria) relation(_ *call, t tableName) (names []string, rows [][]any, ok bool, err error) {
	if t.schema != "information_schema" {
		return nil, nil, false, nil
	}
	switch t.name {
	case "global_status":
		uptime := int64(m.srv.now().Sub(m.boot) / time.Second)
		return []string{"variable_name", "variable_value"}, [][]any{{"Uptime", strconv.FormatInt(uptime, 10)}}, true, nil
	case "tables":
		names = []string{"table_schema", "table_name", "table_type", "engine", "table_collation"}
		for _, t := range m.tables() {
			rows = append(rows, []any{mariaSchema, t, "BASE TABLE", "InnoDB", "ascii_bin"})
		}
		return names, rows, true, nil
	case "innodb_trx":
		names = []string{"trx_mysql_thread_id", "trx_rows_modified"}
		for _, s := range m.srv.sessions {
			if s.tx != nil {
				rows = append(rows, []any{int64(s.id), int64(len(s.tx.undo))})
			}
		}
		for _, b := range slices.Concat(m.branches, m.lost) {
			if b.session == nil && !b.shell {
				rows = append(rows, []any{int64(0), int64(len(b.tx.undo))})
			}
		}
		return names, rows, true, nil
	}
	return nil, nil, false, nil
}

func (m *maria) tables() []string {
	list := make([]string, 0, len(m.srv.tables))
	for name := range m.srv.tables {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// whole recognises questions that are beyond the grammar.
func (m *maria) whole(text string) statement {
	switch {
	case strings.HasPrefix(text, "SELECT COUNT(DISTINCT table_schema) FROM information_schema.tables "):
		// How many other schemas have tables of troth: there is no other.
		return action(func(*call) (Result, error) {
			return Result{Columns: []string{"count"}, Rows: [][]any{{int64(0)}}, Affected: 1}, nil
		})
	case strings.HasPrefix(text, "SELECT DISTINCT r.trx_mysql_thread_id, ") && strings.Contains(text, "information_schema.innodb_lock_waits"):
		return action(func(c *call) (Result, error) { return m.waiters(c) })
	}
	return nil
}

// waiters lists who waits for the session that the argument names; 0 stands for all
// branches without one.
func (m *maria) waiters(c *call) (Result, error) {
	if len(c.args) != 1 {
		return Result{}, m.mistake(mistakeArguments, "one is expected")
	}
	holder, _ := toInt(c.args[0])
	res := Result{Columns: []string{"trx_mysql_thread_id", "query", "waiting"}}
	for _, s := range m.srv.sessions {
		if !s.blocked() {
			continue
		}
		for _, tx := range s.blockers(s.wait) {
			if tx.session == nil && holder == 0 || tx.session != nil && int64(tx.session.id) == holder {
				seconds := int64(m.srv.now().Sub(s.was) / time.Second)
				res.Rows = append(res.Rows, []any{int64(s.id), s.last, seconds})
				break
			}
		}
	}
	res.Affected = int64(len(res.Rows))
	return res, nil
}
