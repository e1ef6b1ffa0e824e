package client

import (
	"context"
	"database/sql"
	"errors"
	"net/http"

	"github.com/troth-tx/troth/barrier"
)

// An Outbox is the sender's database and the barrier in it: the table that tells, also
// after a crash, whether a message's transaction committed. See [barrier.Table.Create].
type Outbox struct {
	DB      *sql.DB
	Barrier *barrier.Table
}

// A Local is a transaction in a database of the sender's, for drivers other than
// database/sql: see DoAndSubmitLocal.
type Local interface {
	// Run enters the barrier as step (barrier.Table.Enter or like it), does the work and
	// commits. Its errors may leave open whether it did.
	Run(ctx context.Context, step barrier.Step) error

	// Committed asks the barrier whether Run committed, and if not, makes sure that it
	// never will (barrier.Table.QueryPrepared or like it).
	Committed(ctx context.Context, step barrier.Step) (bool, error)
}

// DoAndSubmit runs f in a transaction of the outbox, and sends the message if that
// commits: both happen, or neither, also if this process dies at any point. f works in
// tx and does not end it; after a deadlock it is called again in a new one.
//
// The server is told of the message first. If it hears neither of its submission nor of
// its end, because this process died, it asks at query, where the handler [QueryPrepared]
// looks into the outbox.
//
//	nil         committed, and the message is in the server's store; with Wait it is delivered
//	ErrFailed   nothing happened and nothing will; f's error, if there was one, is wrapped
//	ErrOngoing  committed, and the message will be delivered
//	ErrUnknown  the server did not answer before anything was done, or the database did not
//	            say whether it committed: the server finds out and delivers the message, or
//	            drops it. Repeat it under the same [GID], or ask [Client.Status]
//	ErrMixed    committed, and somebody has stopped the message by force
//
// Repeated under the same GID it does its work once.
func (m *Message) DoAndSubmit(ctx context.Context, o Outbox, query string, f func(ctx context.Context, tx *sql.Tx) error) error {
	if o.DB == nil || o.Barrier == nil || f == nil {
		return &Error{Op: "prepare", GID: m.GID(), Kind: ErrInvalid, Err: errors.New("the outbox or the function is nil")}
	}
	return m.DoAndSubmitLocal(ctx, query, &sqlLocal{Outbox: o, f: f})
}

// sqlLocal is a transaction of database/sql. Committed asks also when it was f that
// failed: another call of the same name may have committed since, or be about to.
type sqlLocal struct {
	Outbox
	f func(ctx context.Context, tx *sql.Tx) error
}

func (l *sqlLocal) Run(ctx context.Context, step barrier.Step) error {
	return l.Barrier.Run(ctx, l.DB, step, l.f)
}

func (l *sqlLocal) Committed(ctx context.Context, step barrier.Step) (bool, error) {
	return l.Barrier.QueryPrepared(ctx, l.DB, step)
}

// DoAndSubmitLocal is [Message.DoAndSubmit] for other drivers than database/sql.
func (m *Message) DoAndSubmitLocal(ctx context.Context, query string, local Local) error {
	step, err := barrier.ForMessage(m.GID())
	if err != nil {
		return &Error{Op: "prepare", GID: m.GID(), Kind: ErrInvalid, Err: err}
	}
	switch err := m.Prepare(ctx, query); {
	case errors.Is(err, ErrRefused): // an earlier call of the same name came further
		return m.submitAgain(ctx, step, local)
	case err != nil:
		return err
	}
	if err = local.Run(ctx, step); err == nil {
		return m.submitCommitted(ctx)
	}
	// Errors of the barrier would tell, too, but the function may have returned one of
	// its own, from another message in the same transaction.
	asking, cancel := m.client.detached(ctx)
	committed, asked := local.Committed(asking, step)
	cancel()
	switch {
	case asked != nil: // the server asks again, when the database is back
		return &Error{Op: "commit", GID: m.GID(), Kind: ErrUnknown, Err: errors.Join(err, asked)}
	case committed:
		return m.submitCommitted(ctx)
	}
	return m.drop(ctx, err)
}

// submitAgain tells what became of an earlier call.
func (m *Message) submitAgain(ctx context.Context, step barrier.Step, local Local) error {
	err := m.Submit(ctx)
	if !errors.Is(err, ErrFailed) {
		return err
	}
	committed, asked := local.Committed(ctx, step)
	switch {
	case asked != nil:
		return &Error{Op: "commit", GID: m.GID(), Kind: ErrUnknown, Err: errors.Join(err, asked)}
	case committed:
		return &Error{Op: "submit", GID: m.GID(), Kind: ErrMixed, Text: clip(err.Error())}
	}
	return err
}

// submitCommitted submits. What it cannot tell the server, that asks.
func (m *Message) submitCommitted(ctx context.Context) error {
	err := m.client.finish(ctx, &m.t)
	switch {
	case err == nil, errors.Is(err, ErrOngoing):
		return err
	case errors.Is(err, ErrFailed), errors.Is(err, ErrRefused), errors.Is(err, ErrNotFound):
		return &Error{Op: "submit", GID: m.GID(), Kind: ErrMixed, Text: clip(err.Error())}
	}
	return &Error{Op: "submit", GID: m.GID(), Kind: ErrOngoing, Text: clip(err.Error())}
}

// drop aborts a message whose transaction is known not to be committed. If that does not
// arrive the server asks, and hears the same.
func (m *Message) drop(ctx context.Context, cause error) error {
	_ = m.client.giveUp(ctx, &m.t, cause.Error())
	return &Error{Op: "commit", GID: m.GID(), Kind: ErrFailed, Err: cause}
}

// QueryPrepared answers the server's question whether a message's transaction committed.
// Its address is the query of [Message.DoAndSubmit]. Many processes may serve it, but
// each must ask the database itself, not a replica.
func QueryPrepared(o Outbox, opts ...HandlerOption) http.Handler {
	return Handler(func(ctx context.Context, call *Call) (any, error) {
		if call.Op != OpQuery || call.Pattern != PatternMessage {
			return nil, &Error{Op: string(call.Op), GID: call.GID, Kind: ErrInvalid, Err: errors.New("this address answers questions about messages")}
		}
		step, err := barrier.ForMessage(call.GID)
		if err != nil {
			return nil, err
		}
		committed, err := o.Barrier.QueryPrepared(ctx, o.DB, step)
		if err == nil && !committed {
			return nil, &Error{Op: string(call.Op), GID: call.GID, Kind: ErrFailed, Err: errNotCommitted}
		}
		return nil, err
	}, opts...)
}

var errNotCommitted = errors.New("the sender's transaction was not committed")
