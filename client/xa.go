package client

import (
	"context"
	"errors"
	"net/url"
)

// An XA is a transaction whose branches are database transactions of other services,
// which prepare them and then commit them all, or none. Its methods are safe for
// concurrent use. The services use package client/xabranch.
type XA struct {
	client *Client
	gid    string
	ids    *branchIDs
	lost   *firstError
}

// XA runs f, which calls services with [XA.Call]. When f returns nil all that they did is
// committed, else rolled back, by the server, which also rolls back if this process
// dies, or if f swallowed the error of a Call, whose work may not be prepared. Until then
// the rows that they changed are locked. Results are those of [Client.TCC].
func (c *Client) XA(ctx context.Context, f func(ctx context.Context, x *XA) error, opts ...Option) error {
	t := Transaction{Pattern: PatternXA, Options: optionsOf(opts)}
	return c.decide(ctx, &t, func(ctx context.Context) error {
		x := &XA{client: c, gid: t.Options.GID, ids: new(branchIDs), lost: new(firstError)}
		if err := f(ctx, x); err != nil {
			return err
		}
		return x.lost.get()
	})
}

// JoinXA lets a service call others as part of the transaction that calls it: ctx is
// that of its [Handler] or [Middleware]. An error of Call is the answer to the caller also
// if the service swallows it, see [JoinError].
func (c *Client) JoinXA(ctx context.Context) (*XA, error) {
	in := incomingFrom(ctx)
	if in == nil || in.call.Pattern != PatternXA {
		return nil, &Error{Op: "join", Kind: ErrInvalid, Err: errors.New("the context is not that of a call by an XA: use client.Handler or client.Middleware")}
	}
	return &XA{client: c, gid: in.call.GID, ids: &in.ids, lost: &in.lost}, nil
}

// GID is the transaction's name.
func (x *XA) GID() string { return x.gid }

// Call lets the service at an address do its part and prepare. The address gets the
// payload ([]byte as it is, other values as JSON) and, later, the word to commit or to
// roll back. What it answers is decoded from JSON into reply, unless that is nil. After an
// error the program returns it, or an error of its own.
func (x *XA) Call(ctx context.Context, address string, payload, reply any) error {
	err := errNoReturn // if reply cannot be decoded without a panic
	defer func() { x.lost.set(err) }()
	err = x.call(ctx, address, payload, reply)
	return err
}

func (x *XA) call(ctx context.Context, address string, payload, reply any) error {
	id, err := x.ids.next()
	var body []byte
	if err == nil {
		body, err = encode(payload)
	}
	if err != nil {
		return &Error{Op: string(OpAction), GID: x.gid, URL: withoutQuery(address), Kind: ErrInvalid, Err: err}
	}
	answer, err := x.client.callBranch(ctx, participantCall{
		gid: x.gid, pattern: PatternXA, branch: id, op: OpAction, url: address, payload: body,
		extra: url.Values{"phase2_url": {address}},
	})
	if err != nil {
		return err
	}
	if err := decode(answer, reply); err != nil {
		return &Error{Op: string(OpAction), GID: x.gid, URL: withoutQuery(address), Kind: ErrUnknown, Err: err}
	}
	return nil
}

// RegisterXA registers a branch of an XA under the address where it is committed or
// rolled back. Package client/xabranch calls it before it does anything.
func (c *Client) RegisterXA(ctx context.Context, gid, branch, address string) error {
	return c.register(ctx, &Branch{GID: gid, Pattern: PatternXA, ID: branch, URL: address})
}
