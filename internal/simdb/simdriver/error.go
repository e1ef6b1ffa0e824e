package simdriver

import (
	"database/sql/driver"
	"errors"
	"strconv"

	"github.com/go-sql-driver/mysql"

	"github.com/troth-tx/troth/internal/simdb"
)

// A PostgresError is an answer of PostgreSQL, as pgx and lib/pq show it.
type PostgresError struct{ Code, Message string }

func (e *PostgresError) Error() string { return "ERROR: " + e.Message + " (SQLSTATE " + e.Code + ")" }

// SQLState is the code.
func (e *PostgresError) SQLState() string { return e.Code }

// A SQLiteError is an answer of SQLite, as modernc.org/sqlite shows it.
type SQLiteError struct {
	code    int
	message string
}

func (e *SQLiteError) Error() string { return e.message + " (" + strconv.Itoa(e.code) + ")" }

// Code is the extended result code.
func (e *SQLiteError) Code() int { return e.code }

// serverError is the driver's error for a server's.
func serverError(kind simdb.Kind, e *simdb.Error) error {
	switch kind {
	case simdb.MariaDB:
		n, _ := strconv.ParseUint(e.Code, 10, 16) // a number, by the contract of Error
		out := &mysql.MySQLError{Number: uint16(n), Message: e.Message}
		copy(out.SQLState[:], e.State)
		return out
	case simdb.SQLite:
		n, _ := strconv.Atoi(e.Code)
		return &SQLiteError{code: n, message: e.Message}
	case simdb.Postgres:
	}
	return &PostgresError{Code: e.Code, Message: e.Message}
}

// failed turns the error of a request into the driver's, and notices the end of the
// connection.
func (c *conn) failed(err error) error {
	var answer *simdb.Error
	var unknown *simdb.UnknownError
	switch {
	case errors.As(err, &unknown):
		return err
	case errors.As(err, &answer):
		if !answer.Fatal {
			return serverError(c.kind, answer)
		}
		c.lost = true
		if c.kind == simdb.Postgres {
			return driver.ErrBadConn // lib/pq does not tell what was fatal
		}
		return serverError(c.kind, answer)
	}
	c.lost = true
	switch {
	case errors.Is(err, ErrNotSent):
		return driver.ErrBadConn
	case c.ended != nil && c.ended() != nil: // the caller's context
		return c.ended()
	case c.kind == simdb.MariaDB:
		return mysql.ErrInvalidConn
	}
	return driver.ErrBadConn // lib/pq calls it so also if the statement was sent
}
