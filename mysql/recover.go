package mysql

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/troth-tx/troth"
)

// Recover implements [troth.Resource]. There is one list for the whole server:
// branches of all schemas and all programs are in it, also those whose session
// still lives and is about to end them. On MySQL 8 it needs XA_RECOVER_ADMIN.
func (r *Resource) Recover(ctx context.Context) ([]troth.Prepared, error) {
	o, err := r.opened()
	if err != nil {
		return nil, err
	}
	var list []troth.Prepared
	err = o.reserve.Do(ctx, func(ctx context.Context, c *sql.Conn) error {
		var err error
		list, err = prepared(ctx, c)
		return err
	})
	if err != nil {
		return nil, r.branchError("recover", troth.XID{}, err)
	}
	return list, nil
}

// Returned implements [troth.Returner].
func (r *Resource) Returned(ctx context.Context, gid troth.GID) (bool, error) {
	o, err := r.opened()
	if err != nil {
		return false, err
	}
	outcome, err := o.table.Uncommitted(ctx, gid)
	if err != nil {
		return false, r.branchError("recover", troth.XID{}, err)
	}
	return outcome == troth.Committed, nil
}

func prepared(ctx context.Context, c *sql.Conn) ([]troth.Prepared, error) {
	rows, err := c.QueryContext(ctx, "XA RECOVER")
	if err != nil {
		return nil, hinted(fmt.Errorf("XA RECOVER: %w", err))
	}
	defer func() { _ = rows.Close() }() // read to its end, or the error is Err's
	var list []troth.Prepared
	for rows.Next() {
		var format int64
		var gtrid, bqual int
		var data []byte
		if err := rows.Scan(&format, &gtrid, &bqual, &data); err != nil {
			return nil, fmt.Errorf("XA RECOVER: %w", err)
		}
		p, err := listed(format, gtrid, bqual, data)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, rows.Err()
}

// listed reads one row of XA RECOVER: the lengths of gtrid and bqual, and both in
// one.
func listed(format int64, gtrid, bqual int, data []byte) (troth.Prepared, error) {
	if gtrid < 0 || bqual < 0 || gtrid > len(data) || bqual > len(data)-gtrid {
		return troth.Prepared{}, fmt.Errorf("XA RECOVER lists a name of %d and %d bytes, in %d bytes", gtrid, bqual, len(data))
	}
	return describe(format, data[:gtrid], data[gtrid:gtrid+bqual]), nil
}

// describe names a prepared branch. Only a name that is ours to the byte is ours
// (R7).
func describe(format int64, gtrid, bqual []byte) troth.Prepared {
	p := troth.Prepared{Native: native(format, gtrid, bqual)}
	if format != int64(troth.FormatID) {
		return p
	}
	xid, err := troth.ParseXA(troth.FormatID, string(gtrid), string(bqual))
	if err != nil {
		return p
	}
	p.XID, p.Ours = xid, true
	return p
}

// native writes a branch's name as XA statements take it, readable where possible:
// 'bank.0123','porthos~k3x9wq2m.1',1414680404.
func native(format int64, gtrid, bqual []byte) string {
	return part(gtrid) + "," + part(bqual) + "," + strconv.FormatInt(format, 10)
}

func part(b []byte) string {
	for _, c := range b {
		if c < ' ' || c > '~' || c == '\'' || c == '\\' {
			return "X'" + hex.EncodeToString(b) + "'"
		}
	}
	return "'" + string(b) + "'"
}

// Blocked implements [troth.Inspector]. It needs the PROCESS privilege. While the
// session that prepared lives the answer is exact. These
// servers do not tell which of the branches without a session is in the way: then
// the sessions that wait for any of them are listed.
func (r *Resource) Blocked(ctx context.Context, native string) ([]troth.Blocked, error) {
	o, err := r.opened()
	if err != nil {
		return nil, err
	}
	holder := holderOf(native)
	var list []troth.Blocked
	err = o.reserve.Do(ctx, func(ctx context.Context, c *sql.Conn) error {
		if holder.id != 0 {
			gone, err := sessionGone(ctx, c, o.engine, holder)
			if err != nil {
				return err
			}
			if gone {
				holder = thread{}
			}
		}
		var err error
		list, err = waiting(ctx, c, o.engine, holder.id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("mysql: resource %s: who waits for %s: %w", r.name, native, err)
	}
	return list, nil
}

// holderOf is the session that prepared a branch, by the name that Recover gave
// the branch; the zero thread if the name does not tell.
func holderOf(name string) thread {
	parts := strings.Split(name, "'") // 'gtrid','bqual',format id
	if len(parts) != 5 {
		return thread{}
	}
	x, err := troth.ParseXA(troth.FormatID, parts[1], parts[3])
	if err != nil {
		return thread{}
	}
	t, _ := parseSession(x.Session)
	return t
}

// waiting lists the sessions that wait for a lock of the session holder; 0 stands
// for all branches without a session.
func waiting(ctx context.Context, c *sql.Conn, e engine, holder uint64) ([]troth.Blocked, error) {
	edges, by, waiter := "information_schema.innodb_lock_waits", "blocking_trx_id", "requesting_trx_id"
	if !e.maria {
		edges, by, waiter = "performance_schema.data_lock_waits", "blocking_engine_transaction_id", "requesting_engine_transaction_id"
	}
	rows, err := c.QueryContext(ctx, "SELECT DISTINCT r.trx_mysql_thread_id, COALESCE(LEFT(r.trx_query, 200), ''), "+
		"COALESCE(TIMESTAMPDIFF(SECOND, r.trx_wait_started, NOW()), 0) FROM "+edges+" w "+
		"JOIN information_schema.innodb_trx r ON r.trx_id = w."+waiter+" "+
		"JOIN information_schema.innodb_trx b ON b.trx_id = w."+by+" "+
		"WHERE b.trx_mysql_thread_id = ? ORDER BY 3 DESC, 1", holder)
	if isCode(err, codePrivilege, codeTableDenied) {
		return nil, &hintError{err, "an administrator runs GRANT PROCESS ON *.* TO the user that CURRENT_USER() shows"}
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // read to its end, or the error is Err's
	var list []troth.Blocked
	for rows.Next() {
		var b troth.Blocked
		var seconds int64
		if err := rows.Scan(&b.Session, &b.Query, &seconds); err != nil {
			return nil, err
		}
		b.Waiting = time.Duration(max(0, seconds)) * time.Second
		list = append(list, b)
	}
	return list, rows.Err()
}
