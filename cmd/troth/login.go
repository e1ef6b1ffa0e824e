package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
)

// loginsRefused are the errors by which MySQL and MariaDB turn a user away: no right
// on the schema, a wrong password, a host or a way to log in that is not allowed.
var loginsRefused = []uint16{1044, 1045, 1130, 1698}

// loginRefused reports whether a server answered, and did not let us in: then it is
// the address that needs mending, not the network.
func loginRefused(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(pg.Code, "28") || pg.Code == "42501" // authorization; no right to CONNECT
	}
	my, ok := errors.AsType[*mysql.MySQLError](err)
	return ok && slices.Contains(loginsRefused, my.Number)
}
