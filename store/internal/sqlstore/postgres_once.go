package sqlstore

import (
	"context"
	"slices"
	"strings"
)

// onceMax: a larger batch shares its round trips between so many that one less is nothing.
func (Postgres) onceMax() int { return 32 }

// refused: values that cannot be, constraints, a transaction that the server gave up,
// what it has no room for, or the caller no right to, and a server that only reads. Other
// errors may be of a server that ends, after it committed.
func (Postgres) refused(err error) bool {
	state := sqlState(err)
	if len(state) != 5 || state == "40003" { // whose name is "statement completion unknown"
		return false
	}
	switch state[:2] {
	case "22", "23", "40", "53", "54":
		return true
	}
	return slices.Contains([]string{"55P03", "25006", "42501"}, state) // the first: a lock that was not given in time
}

// The parts of the statement, which has those that its batch needs. The new rows are few,
// or the join of "defined" would be slow.
const (
	postgresOnceInsert = "n AS MATERIALIZED (SELECT * FROM unnest(" +
		"?::bigint[], ?::text[], ?::text[], ?::smallint[], ?::smallint[], ?::bigint[], ?::bigint[], ?::bigint[]," +
		" ?::bigint[], ?::bigint[], ?::bigint[], ?::smallint[], ?::text[], ?::bytea[], ?::bytea[])" +
		" AS n(c01, c02, c03, c04, c05, c06, c07, c08, c09, c10, c11, c12, c13, c14, c15))," +
		" written AS (INSERT INTO troth_transaction (" + insertColumns + ")" +
		" SELECT c01, c02, c03, c04, c05, c06, c07, c08, c09, NULLIF(c10, 0), NULLIF(c11, 0), c12, c13, c14 FROM n" +
		" ON CONFLICT (gid) DO NOTHING RETURNING seq, gid)," +
		" defined AS (INSERT INTO troth_definition (seq, content) SELECT seq, c15 FROM written JOIN n ON c01 = seq)"
	postgresOnceUpdate = "changed AS (UPDATE troth_transaction t SET state = u.state, version = u.version, attempts = u.attempts, updated = u.updated," +
		" finished = NULLIF(u.finished, 0), due = NULLIF(u.due, 0), leased = u.leased, reason = u.reason, progress = u.progress FROM unnest(" +
		"?::text[], ?::bigint[], ?::bigint[], ?::smallint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::smallint[], ?::text[], ?::bytea[])" +
		" AS u(gid, before, created, state, version, attempts, updated, finished, due, leased, reason, progress)" +
		" WHERE t.gid = u.gid AND t.version = u.before AND t.created = u.created RETURNING t.seq, t.gid)"
	postgresOnceAdd = "added AS (INSERT INTO troth_addition (seq, part, content) SELECT seq, part, content FROM changed JOIN" +
		" unnest(?::text[], ?::bigint[], ?::bytea[]) AS p(owner, part, content) ON p.owner = changed.gid)"
)

// once: what a statement changes in its parts is one transaction. The update waits for
// whoever has locked a row, and looks at the version again.
func (d Postgres) once(ctx context.Context, s *session, rows []*row) (written []string, err error) {
	var inserts, updates []*row
	var parts []part
	var owners []string
	for _, r := range rows {
		if r.insert {
			inserts = append(inserts, r)
			continue
		}
		updates = append(updates, r)
		parts = append(parts, r.parts...)
		for range r.parts {
			owners = append(owners, r.gid)
		}
	}
	var with, from []string
	s.args = s.args[:0]
	which := 0
	if len(inserts) > 0 {
		which |= 1
		with, from = append(with, postgresOnceInsert), append(from, "SELECT gid FROM written")
		s.args = append(s.args, postgresInsertArgs(inserts)...)
	}
	if len(updates) > 0 {
		which |= 2
		with, from = append(with, postgresOnceUpdate), append(from, "SELECT gid FROM changed")
		s.args = append(s.args,
			collect(updates, func(r *row) string { return r.gid }),
			collect(updates, func(r *row) int64 { return r.before.version }),
			collect(updates, func(r *row) int64 { return r.created }))
		s.args = append(s.args, postgresUpdateArgs(updates)...)
	}
	if len(parts) > 0 {
		which |= 4
		with = append(with, postgresOnceAdd)
		s.args = append(s.args, owners,
			collect(parts, func(p part) int64 { return p.number }),
			collect(parts, func(p part) []byte { return p.content }))
	}
	text := s.text("once", which, func(int) string {
		return d.bind("WITH " + strings.Join(with, ", ") + " " + strings.Join(from, " UNION ALL "))
	})
	return queryAll(ctx, s, scanText, text, s.args...)
}

func (Postgres) present(ctx context.Context, s *session, gids []string) ([]string, error) {
	return queryAll(ctx, s, scanText, "SELECT gid FROM troth_transaction WHERE gid = ANY($1::text[])", gids)
}
