package pgrm

import (
	"context"
	"database/sql"
	"time"

	"github.com/troth-tx/troth"
)

// blockedSQL finds who waits for a prepared transaction. A session that waits for
// a row waits for the transaction that changed it (locktype transactionid), a
// second one waits for the first (pg_blocking_pids); one that waits for a table
// waits for a lock on the same object. What a prepared transaction holds has no
// process; its transactionid lock and its other locks share a virtual transaction.
// waitstart came with version 14, hence the detour through jsonb.
const blockedSQL = `WITH RECURSIVE branch AS (
	SELECT x.virtualtransaction FROM pg_prepared_xacts p
	JOIN pg_locks x ON x.locktype = 'transactionid' AND x.transactionid = p.transaction AND x.granted AND x.pid IS NULL
	WHERE p.gid = $1 AND p.database = current_database()
), waits AS (
	SELECT DISTINCT w.pid FROM pg_locks w
	JOIN pg_locks h ON h.granted AND h.pid IS NULL
		AND (h.locktype, h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)
		IS NOT DISTINCT FROM (w.locktype, w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)
	JOIN branch b ON b.virtualtransaction = h.virtualtransaction
	WHERE NOT w.granted
	UNION
	SELECT l.pid FROM waits
	JOIN pg_locks l ON NOT l.granted AND waits.pid = ANY (pg_blocking_pids(l.pid))
)
SELECT a.pid::text, left(coalesce(a.query, ''), 200),
	coalesce(extract(epoch FROM clock_timestamp() - (SELECT min((to_jsonb(l) ->> 'waitstart')::timestamptz) FROM pg_locks l WHERE l.pid = a.pid AND NOT l.granted)), 0)::float8
FROM waits JOIN pg_stat_activity a USING (pid) ORDER BY 3 DESC`

// Blocked is as [troth.Inspector] says.
func (c *Core) Blocked(ctx context.Context, native string) ([]troth.Blocked, error) {
	var list []troth.Blocked
	err := c.Do(ctx, func(ctx context.Context, conn *sql.Conn) error {
		list = nil
		rows, err := conn.QueryContext(ctx, blockedSQL, native)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var b troth.Blocked
			var seconds float64
			if err := rows.Scan(&b.Session, &b.Query, &seconds); err != nil {
				return err
			}
			b.Waiting = time.Duration(max(seconds, 0) * float64(time.Second))
			list = append(list, b)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, branchError(c.name, "inspect", native, err)
	}
	return list, nil
}
