// Package pgxoutbox sends messages together with transactions of pgx, as
// client.Message.DoAndSubmit does with those of database/sql.
package pgxoutbox

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/barrier/pgxbarrier"
	"github.com/troth-tx/troth/client"
)

// An Outbox is the sender's database and the barrier in it.
type Outbox struct {
	Pool    *pgxpool.Pool
	Barrier *pgxbarrier.Table
}

// DoAndSubmit is client.Message.DoAndSubmit: it runs f in a transaction of the outbox, and
// sends the message if that commits.
func DoAndSubmit(ctx context.Context, m *client.Message, o Outbox, query string, f func(ctx context.Context, tx pgx.Tx) error) error {
	if o.Pool == nil || o.Barrier == nil || f == nil {
		return &client.Error{Op: "prepare", GID: m.GID(), Kind: client.ErrInvalid, Err: errors.New("the outbox or the function is nil")}
	}
	return m.DoAndSubmitLocal(ctx, query, &local{Outbox: o, f: f})
}

// local is a transaction of pgx. Committed asks also when it was f that failed: another
// call of the same name may have committed since, or be about to.
type local struct {
	Outbox
	f func(ctx context.Context, tx pgx.Tx) error
}

func (l *local) Run(ctx context.Context, step barrier.Step) error {
	return l.Barrier.Run(ctx, l.Pool, step, l.f)
}

func (l *local) Committed(ctx context.Context, step barrier.Step) (bool, error) {
	return l.Barrier.QueryPrepared(ctx, l.Pool, step)
}

// QueryPrepared is client.QueryPrepared: it answers the server's question whether a
// message's transaction committed.
func QueryPrepared(o Outbox, opts ...client.HandlerOption) http.Handler {
	return client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		if call.Op != client.OpQuery || call.Pattern != client.PatternMessage {
			return nil, &client.Error{Op: string(call.Op), GID: call.GID, Kind: client.ErrInvalid, Err: errors.New("this address answers questions about messages")}
		}
		step, err := barrier.ForMessage(call.GID)
		if err != nil {
			return nil, err
		}
		committed, err := o.Barrier.QueryPrepared(ctx, o.Pool, step)
		if err == nil && !committed {
			return nil, fmt.Errorf("the sender's transaction was not committed: %w", client.ErrFailed)
		}
		return nil, err
	}, opts...)
}
