package torture

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	driversql "github.com/go-sql-driver/mysql"

	"github.com/troth-tx/troth"
)

// This file looks at the databases from outside, with plain SQL: nothing here uses
// what is under torture, but for the names that it gives to branches.

// A prepared branch as a database lists it.
type preparedBranch struct {
	native string // what ends it: a quoted gid, or the three parts of an XA identifier
	gid    string // of ours, empty for others
	shared bool   // its decision is in a database, and so within reach of every manager
}

// listPrepared asks a database for all its prepared branches.
func (d *database) listPrepared(ctx context.Context) ([]preparedBranch, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	switch d.engine {
	case enginePostgres:
		return d.listPostgres(ctx)
	case engineMariaDB:
		return d.listMariaDB(ctx)
	case engineSQLite: // has none
	}
	return nil, nil
}

func (d *database) listPostgres(ctx context.Context) ([]preparedBranch, error) {
	rows, err := d.db.QueryContext(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []preparedBranch
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		b := preparedBranch{native: "'" + name + "'"}
		if x, err := troth.ParseXID(name); err == nil && x.GID.Domain() == domain {
			b.gid, b.shared = string(x.GID), x.Place.Resource != ""
		}
		out = append(out, b)
	}
	return out, rows.Err()
}

func (d *database) listMariaDB(ctx context.Context) ([]preparedBranch, error) {
	rows, err := d.db.QueryContext(ctx, "XA RECOVER")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []preparedBranch
	for rows.Next() {
		var format uint32
		var gtrid, bqual int
		var data string
		if err := rows.Scan(&format, &gtrid, &bqual, &data); err != nil {
			return nil, err
		}
		b := preparedBranch{native: nativeXA(format, data[:gtrid], data[gtrid:])}
		if x, err := troth.ParseXA(format, data[:gtrid], data[gtrid:]); err == nil && x.GID.Domain() == domain {
			b.gid, b.shared = string(x.GID), x.Place.Resource != ""
		}
		out = append(out, b)
	}
	return out, rows.Err()
}

func nativeXA(format uint32, gtrid, bqual string) string {
	return fmt.Sprintf("X'%s',X'%s',%d", hex.EncodeToString([]byte(gtrid)), hex.EncodeToString([]byte(bqual)), format)
}

// A plant is a prepared branch of somebody else, which must be left alone (I9).
type plant struct {
	what   string
	native string // for statements
	shown  string // the part of its name that every message has
}

// plantForeign prepares three branches that are not the managers': another
// program's, one of a domain that begins like theirs, and one of their own domain
// whose decision is kept by a register that nobody here knows.
func (d *database) plantForeign(ctx context.Context) error {
	now := time.Now()
	place := troth.Place{Resource: d.name, Identity: troth.NewIdentity()}
	neighbour := troth.XID{GID: troth.NewGID(domain+"-2", now), Place: place, Branch: 1}
	other := troth.XID{GID: troth.NewGID(domain, now), Place: place, Branch: 1}
	plants := []plant{
		{what: "another program", shown: "billing-4711"},
		{what: "a neighbouring domain", shown: neighbour.GTRID()},
		{what: "another cluster", shown: other.GTRID()},
	}
	switch d.engine {
	case enginePostgres:
		plants[0].native = "'billing-4711'"
		plants[1].native, plants[2].native = "'"+neighbour.String()+"'", "'"+other.String()+"'"
	case engineMariaDB:
		plants[0].native = nativeXA(1, "billing-4711", "")
		plants[1].native = nativeXA(troth.FormatID, neighbour.GTRID(), neighbour.BQUAL())
		plants[2].native = nativeXA(troth.FormatID, other.GTRID(), other.BQUAL())
	case engineSQLite:
		return nil
	}
	for _, p := range plants {
		if err := d.prepareForeign(ctx, p); err != nil {
			return fmt.Errorf("%s: plant the branch of %s: %w", d.name, p.what, err)
		}
		d.planted = append(d.planted, p)
	}
	return nil
}

func (d *database) prepareForeign(ctx context.Context, p plant) error {
	insert := fmt.Sprintf("INSERT INTO planted VALUES ('%s')", p.what)
	statements := []string{"BEGIN", insert, "PREPARE TRANSACTION " + p.native}
	if d.engine == engineMariaDB {
		statements = []string{"XA START " + p.native, insert, "XA END " + p.native, "XA PREPARE " + p.native}
	}
	conn, err := d.db.Conn(ctx)
	if err != nil {
		return err
	}
	for _, s := range statements {
		if _, err = conn.ExecContext(ctx, s); err != nil {
			break
		}
	}
	// The session must end for the branch to be detached, so the pool may not keep it.
	_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // what it was told to return
	if cerr := conn.Close(); !errors.Is(cerr, sql.ErrConnDone) {
		err = errors.Join(err, cerr)
	}
	return err
}

// missingPlants names what is not prepared any more, given what is.
func (d *database) missingPlants(listed []preparedBranch) []string {
	there := make(map[string]bool)
	for _, b := range listed {
		there[b.native] = true
	}
	var out []string
	for _, p := range d.planted {
		if !there[p.native] {
			out = append(out, p.what)
		}
	}
	return out
}

// aboutPlants reports whether a message names a planted branch.
func (w *world) aboutPlants(message string) bool {
	for _, d := range w.databases {
		for _, p := range d.planted {
			if strings.Contains(message, p.shown) {
				return true
			}
		}
	}
	return false
}

// foreign reports whether a listed branch was planted.
func (d *database) foreign(b preparedBranch) bool {
	for _, p := range d.planted {
		if p.native == b.native {
			return true
		}
	}
	return false
}

// endSessions has an administrator end up to n sessions of the managers.
func (d *database) endSessions(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if d.engine == enginePostgres {
		_, err := d.db.ExecContext(ctx, "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"+
			" WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT $1) victim", n)
		return err
	}
	ids, err := d.sessions(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids[:min(n, len(ids))] {
		_, err := d.db.ExecContext(ctx, "KILL "+id)
		var gone *driversql.MySQLError
		if errors.As(err, &gone) && gone.Number == 1094 {
			err = nil // it ended by itself
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sessions lists those in the managers' schema. The server itself shuffles enough.
func (d *database) sessions(ctx context.Context) ([]string, error) {
	conn, err := d.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	var own string
	if err := conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&own); err != nil {
		return nil, err
	}
	rows, err := conn.QueryContext(ctx, "SHOW PROCESSLIST")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var ids []string
	for rows.Next() {
		var id string
		var schema sql.NullString
		var rest sql.RawBytes
		if err := rows.Scan(&id, &rest, &rest, &schema, &rest, &rest, &rest, &rest, &rest); err != nil {
			return nil, err
		}
		if id != own && strings.EqualFold(schema.String, schemaName) {
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}
