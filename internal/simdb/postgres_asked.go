package simdb

import (
	"slices"
	"strings"
)

// whole recognises questions to the catalogs that need more of SQL than the parser
// knows. They are compared word by word, so a change in what asks them is refused
// by the parser, not misunderstood.
func (pg *postgres) whole(text string) statement {
	if !strings.Contains(text, "JOIN") && !strings.Contains(text, "quote_ident(nspname)") {
		return nil
	}
	answer, ok := pgQuestions[strings.Join(strings.Fields(text), " ")]
	if !ok {
		return nil
	}
	return action(func(c *call) (Result, error) { return answer(pg, c) })
}

var pgQuestions = map[string]func(*postgres, *call) (Result, error){
	// Package decisiontable: is the table there, and permanent?
	"SELECT r.relpersistence::text FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace" +
		" WHERE n.nspname = $1 AND r.relname = $2": func(pg *postgres, c *call) (Result, error) {
		res := Result{Tag: "SELECT", Columns: []string{"relpersistence"}}
		if len(c.args) == 2 && pg.srv.find(tableName{text(c.args[0]), text(c.args[1])}) != nil {
			res.Rows = [][]any{{"p"}}
		}
		return res, nil
	},

	// Package pgrm: rights.
	"SELECT quote_ident(nspname), quote_ident(current_user), has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE')" +
		" FROM pg_namespace WHERE nspname = $1": func(pg *postgres, c *call) (Result, error) {
		res := Result{Tag: "SELECT", Columns: []string{"quote_ident", "quote_ident", "has_schema_privilege", "has_schema_privilege"}}
		if len(c.args) == 1 && text(c.args[0]) == pg.schema() {
			res.Rows = [][]any{{pg.schema(), pgUser, true, true}}
		}
		return res, nil
	},
	"SELECT t.name, c.oid IS NOT NULL, array_to_string(ARRAY(SELECT p FROM unnest(t.rights) p WHERE NOT has_table_privilege(c.oid, p)), ', ')" +
		" FROM (VALUES ('troth_meta', ARRAY['SELECT', 'INSERT']), ('troth_decision', ARRAY['SELECT', 'INSERT', 'DELETE'])) t (name, rights)" +
		" LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1) ON c.relname = t.name": func(pg *postgres, c *call) (Result, error) {
		res := Result{Tag: "SELECT", Columns: []string{"name", "?column?", "array_to_string"}}
		for _, name := range []string{"troth_meta", "troth_decision"} {
			res.Rows = append(res.Rows, []any{name, pg.srv.find(tableName{text(c.args[0]), name}) != nil, ""})
		}
		return res, nil
	},

	// Package pgrm: who waits for a prepared transaction?
	`WITH RECURSIVE branch AS ( SELECT x.virtualtransaction FROM pg_prepared_xacts p` +
		` JOIN pg_locks x ON x.locktype = 'transactionid' AND x.transactionid = p.transaction AND x.granted AND x.pid IS NULL` +
		` WHERE p.gid = $1 AND p.database = current_database() ), waits AS ( SELECT DISTINCT w.pid FROM pg_locks w` +
		` JOIN pg_locks h ON h.granted AND h.pid IS NULL` +
		` AND (h.locktype, h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)` +
		` IS NOT DISTINCT FROM (w.locktype, w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)` +
		` JOIN branch b ON b.virtualtransaction = h.virtualtransaction WHERE NOT w.granted UNION SELECT l.pid FROM waits` +
		` JOIN pg_locks l ON NOT l.granted AND waits.pid = ANY (pg_blocking_pids(l.pid)) )` +
		` SELECT a.pid::text, left(coalesce(a.query, ''), 200),` +
		` coalesce(extract(epoch FROM clock_timestamp() - (SELECT min((to_jsonb(l) ->> 'waitstart')::timestamptz) FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted)), 0)::float8` +
		` FROM waits JOIN pg_stat_activity a USING (pid) ORDER BY 3 DESC`: (*postgres).blocked,
}

func text(v any) string {
	s, _ := toString(v)
	return s
}

// blocked lists the sessions that wait for a prepared transaction, or for one that
// waits for it.
func (pg *postgres) blocked(c *call) (Result, error) {
	res := Result{Tag: "SELECT", Columns: []string{"pid", "left", "coalesce"}}
	branch := pg.find(text(c.args[0]))
	if branch == nil {
		return res, nil
	}
	reached := []*txn{branch}
	for i := 0; i < len(reached); i++ {
		for _, s := range pg.srv.sessions {
			if s.tx != nil && !slices.Contains(reached, s.tx) && s.blocked() && slices.Contains(s.blockers(s.wait), reached[i]) {
				reached = append(reached, s.tx)
			}
		}
	}
	for _, tx := range reached[1:] {
		s := tx.session
		query := s.last[:min(len(s.last), 200)]
		res.Rows = append(res.Rows, []any{text(int64(s.id)), query, pg.srv.now().Sub(s.was).Seconds()})
	}
	slices.SortStableFunc(res.Rows, func(a, b []any) int { order, _ := compare(b[2], a[2]); return order })
	return res, nil
}

// sortRows orders rows by their first column.
func sortRows(rows [][]any) [][]any {
	slices.SortFunc(rows, func(a, b []any) int { order, _ := compare(a[0], b[0]); return order })
	return rows
}
