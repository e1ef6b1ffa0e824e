// Package simdriver is a database/sql driver over the simulated servers of
// package simdb. It behaves as the drivers do that programs use: lib/pq for
// PostgreSQL, go-sql-driver/mysql for MariaDB, modernc.org/sqlite for SQLite; so
// resource managers run over it unchanged.
//
// What is between the driver and the server is the caller's: a [Conn] carries
// texts there and answers back, or loses them.
package simdriver

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/troth-tx/troth/internal/simdb"
)

// A Conn carries requests to one session of a server.
type Conn interface {
	// Exec sends a text and waits for the answer, as [simdb.Session.ExecArgs] gives
	// it, never simdb.ErrWait. An error that is neither the server's (*simdb.Error)
	// nor a *simdb.UnknownError means that the connection is lost and nobody knows
	// what the server did; ErrNotSent, that it did nothing. An error of ctx means
	// that the driver gave up; the connection is of no more use then.
	Exec(ctx context.Context, text string, args []any) ([]simdb.Result, error)

	// Close ends the connection. The session may hear of it later, or never.
	Close() error
}

// A Prober is a Conn that knows, without asking the server, that it is lost: as a
// socket does on which the other side has closed.
type Prober interface{ Lost() bool }

// ErrNotSent says that a request never left: the connection was found dead.
var ErrNotSent = errors.New("simdriver: the connection is lost, and nothing was sent")

// An Option changes a connector.
type Option func(*connector)

// Kind says which driver to behave like. Without it, lib/pq.
func Kind(k simdb.Kind) Option { return func(c *connector) { c.kind = k } }

// Connector makes connections for sql.OpenDB. dial is called for each of them.
func Connector(dial func(ctx context.Context) (Conn, error), opts ...Option) driver.Connector {
	c := &connector{dial: dial, kind: simdb.Postgres}
	for _, o := range opts {
		o(c)
	}
	return c
}

type connector struct {
	dial func(ctx context.Context) (Conn, error)
	kind simdb.Kind
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.dial(ctx)
	if err != nil {
		var refused *simdb.Error
		if errors.As(err, &refused) { // not fatal for the caller: there was no connection
			return nil, serverError(c.kind, refused)
		}
		return nil, err
	}
	return &conn{inner: inner, kind: c.kind}, nil
}

func (c *connector) Driver() driver.Driver { return noDriver{} }

type noDriver struct{}

func (noDriver) Open(string) (driver.Conn, error) {
	return nil, errors.New("simdriver: connections are made by a Connector")
}
