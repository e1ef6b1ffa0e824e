package simdb

import (
	"strconv"
	"strings"
	"time"
)

const (
	pgUser     = "troth"
	pgDatabase = "app"
)

// statement reads what is PostgreSQL's own.
func (pg *postgres) statement(p *parser, word string) statement {
	switch word {
	case "SET":
		return pg.set(p)
	case "SHOW":
		name := p.name()
		return action(func(c *call) (Result, error) {
			return one("SHOW", name, pg.setting(c.s, name)), nil
		})
	}
	return pg.control(p, word)
}

func one(tag, column string, v any) Result {
	return Result{Tag: tag, Columns: []string{column}, Rows: [][]any{{v}}, Affected: 1}
}

// special reads what looks like a column and is none.
func (pg *postgres) special(p *parser) expr {
	switch {
	case p.words("CURRENT_USER"), p.words("SESSION_USER"):
		return literal{pgUser}
	case p.words("CURRENT_TIMESTAMP"):
		return &funcCall{name: "current_timestamp", run: pgNow}
	case p.words("INTERVAL"):
		n, unit, ok := strings.Cut(p.literal(), " ")
		d, known := pgIntervals[strings.TrimSuffix(unit, "s")]
		count, err := strconv.ParseInt(n, 10, 64)
		if !ok || !known || err != nil {
			p.fail("an interval that is not simulated")
		}
		return literal{time.Duration(count) * d}
	}
	return nil
}

var pgIntervals = map[string]time.Duration{
	"microsecond": time.Microsecond, "millisecond": time.Millisecond, "second": time.Second, "minute": time.Minute, "hour": time.Hour,
}

func (pg *postgres) variable(*call, string) (any, error) {
	return nil, &Error{Code: "42601", Message: `syntax error at or near "@@"`}
}

func (pg *postgres) function(name string) function { return pgFunctions[name] }

func pgOf(e *env) *postgres { return e.c.eng().(*postgres) }

func pgNow(e *env, _ []any) (any, error) { return e.c.s.srv.now(), nil }

// pgFunctions are functions by name; that of their schema, pg_catalog, is dropped.
var pgFunctions map[string]function

func init() { // not a literal: the functions refer to it by way of the parser
	pgFunctions = map[string]function{
		"clock_timestamp":          pgNow,
		"now":                      pgNow,
		"version":                  constantly("PostgreSQL 15.18 (simulated)"),
		"current_schema":           constantly("public"),
		"current_database":         constantly(pgDatabase),
		"pg_is_in_recovery":        constantly(false),
		"quote_ident":              func(_ *env, args []any) (any, error) { return args[0], nil }, // none of ours needs quotes
		"quote_literal":            pgQuoteLiteral,
		"current_setting":          pgCurrentSetting,
		"set_config":               pgSetConfig,
		"pg_backend_pid":           func(e *env, _ []any) (any, error) { return int64(e.c.s.id), nil },
		"pg_terminate_backend":     pgTerminate,
		"sqlite_version":           pgNoFunction, // asked by who does not know yet what this is
		"pg_xact_status":           pgXactStatus,
		"pg_postmaster_start_time": func(e *env, _ []any) (any, error) { return pgOf(e).boot, nil },
		"greatest": func(_ *env, args []any) (any, error) {
			var most any
			for _, v := range args {
				if v != nil {
					most, _ = extreme(most, v, 1)
				}
			}
			return most, nil
		},
		"make_interval": func(_ *env, args []any) (any, error) {
			f, _ := toFloat(args[0])
			return time.Duration(f * float64(time.Second)), nil
		},
		"age": func(e *env, args []any) (any, error) {
			n, ok := toInt(args[0])
			if !ok {
				return nil, nil
			}
			return int64(e.c.s.srv.lastNumber) - n, nil
		},
		"pg_current_xact_id_if_assigned": pgXactID,
		"txid_current_if_assigned":       pgXactID,
	}
}

func pgNoFunction(*env, []any) (any, error) {
	return nil, &Error{Code: "42883", Message: "function does not exist"}
}

func constantly(v any) function { return func(*env, []any) (any, error) { return v, nil } }

func pgQuoteLiteral(_ *env, args []any) (any, error) {
	s, ok := toString(args[0])
	if !ok {
		return nil, nil
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'", nil
}

func pgCurrentSetting(e *env, args []any) (any, error) {
	name, _ := toString(args[0])
	if v := pgOf(e).setting(e.c.s, name); v != "" {
		return v, nil
	}
	if len(args) > 1 && truth(args[1]) {
		return nil, nil
	}
	return nil, &Error{Code: "42704", Message: `unrecognized configuration parameter "` + name + `"`}
}

func pgSetConfig(e *env, args []any) (any, error) {
	if len(args) != 3 {
		return nil, e.c.eng().mistake(mistakeArguments, "set_config")
	}
	name, _ := toString(args[0])
	value, _ := toString(args[1])
	err := pgOf(e).change(e.c.s, name, value, truth(args[2]))
	return pgOf(e).setting(e.c.s, name), err
}

func pgXactID(e *env, _ []any) (any, error) {
	if tx := e.c.s.tx; tx != nil && tx.number != 0 {
		return strconv.FormatUint(tx.number, 10), nil
	}
	return nil, nil
}

// pgXactStatus tells how a transaction ended, of all that the server ever had.
func pgXactStatus(e *env, args []any) (any, error) {
	srv := e.c.s.srv
	n, ok := toInt(args[0])
	switch {
	case !ok:
		return nil, nil
	case uint64(n) > srv.lastNumber:
		return nil, &Error{Code: "22023", Message: "transaction ID " + strconv.FormatInt(n, 10) + " is in the future"}
	case n < firstNumber:
		return nil, nil
	}
	return [...]string{endOpen: "in progress", endCommitted: "committed", endAborted: "aborted"}[srv.ends[n-firstNumber]], nil
}

func pgTerminate(e *env, args []any) (any, error) {
	n, _ := toInt(args[0])
	s := e.c.s.srv.Session(uint64(n))
	if s == nil {
		return false, nil
	}
	s.Terminate()
	return true, nil
}

// relation is a system catalog.
func (pg *postgres) relation(c *call, t tableName) (names []string, rows [][]any, ok bool, err error) {
	if t.schema != "" && t.schema != "pg_catalog" {
		return nil, nil, false, nil
	}
	switch t.name {
	case "pg_prepared_xacts":
		for _, tx := range pg.srv.prepared {
			rows = append(rows, []any{strconv.FormatUint(tx.number, 10), tx.name, tx.since, pgUser, pgDatabase})
		}
		return []string{"transaction", "gid", "prepared", "owner", "database"}, rows, true, nil
	case "pg_stat_activity":
		return pgActivityColumns, pg.activity(c), true, nil
	case "pg_settings":
		for name := range pg.settings {
			value := pg.setting(c.s, name)
			if strings.HasSuffix(name, "_timeout") {
				value = strconv.FormatInt(pgDuration(value).Milliseconds(), 10)
			}
			rows = append(rows, []any{name, value})
		}
		return []string{"name", "setting"}, sortRows(rows), true, nil
	case "pg_stat_bgwriter":
		return []string{"stats_reset"}, [][]any{{pg.boot}}, true, nil
	case "pg_roles":
		return []string{"rolname", "rolsuper"}, [][]any{{pgUser, false}}, true, nil
	case "pg_control_system":
		return []string{"system_identifier"}, [][]any{{pg.system}}, true, nil
	}
	return nil, nil, false, nil
}

var pgActivityColumns = []string{"pid", "usename", "datname", "state", "backend_start", "query", "backend_xid", "wait_event_type"}

func (pg *postgres) activity(c *call) [][]any {
	var rows [][]any
	for _, s := range pg.srv.sessions {
		state, waits := "idle", any(nil)
		switch {
		case s == c.s || s.req.running:
			state = "active"
			if s.wait != nil {
				waits = "Lock"
			}
		case s.pg.failed:
			state = "idle in transaction (aborted)"
		case s.pg.block:
			state = "idle in transaction"
		}
		var number any
		if s.tx != nil && s.tx.number != 0 {
			number = strconv.FormatUint(s.tx.number, 10)
		}
		rows = append(rows, []any{int64(s.id), pgUser, pgDatabase, state, s.born, s.last, number, waits})
	}
	return rows
}
