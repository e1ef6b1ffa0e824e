package postgres

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"

	"github.com/troth-tx/troth/internal/pgrm"
	"github.com/troth-tx/troth/internal/pinned"
)

// pgxOf is the pgx connection if dc is pgx's own driver connection: a wrapper
// around it wants to see every statement of the program. So does a tracer.
func (s *session) pgxOf(dc driver.Conn) *pgx.Conn {
	c, ok := dc.(interface{ Conn() *pgx.Conn })
	if !ok || traced(c.Conn()) {
		return nil
	}
	return c.Conn()
}

// tracedKey marks a connection in its own memory: to ask pgx for its
// configuration copies all of it.
const tracedKey = "troth.traced"

func traced(conn *pgx.Conn) bool {
	data := conn.PgConn().CustomData()
	known, ok := data[tracedKey].(bool)
	if !ok {
		known = conn.Config().Tracer != nil
		data[tracedKey] = known
	}
	return known
}

// execPgx joins BEGIN with a statement.
func (s *session) execPgx(ctx context.Context, conn *pgx.Conn, query string, named []driver.NamedValue) (driver.Result, error) {
	args := values(named)
	if !pgrm.Joinable(args) {
		return nil, pinned.ErrNotJoined
	}
	tag, err := pgrm.ExecJoined(ctx, conn, s.begin, query, args)
	if err != nil {
		return nil, err
	}
	return driver.RowsAffected(tag.RowsAffected()), nil
}

func values(named []driver.NamedValue) []any {
	if len(named) == 0 {
		return nil
	}
	args := make([]any, len(named))
	for i := range named {
		args[i] = named[i].Value
	}
	return args
}
