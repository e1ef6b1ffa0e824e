package client

import (
	"context"
	"time"
)

// A Message is a list of addresses that are called until each has succeeded: nobody may
// refuse. It is sent at once with Submit; or together with a database transaction of the
// sender's, so that both happen or neither, with DoAndSubmit. A Message is used by one
// goroutine.
type Message struct {
	client *Client
	t      Transaction
	err    error // the first of building it
}

// Message begins the description of a message. Nothing is sent yet.
func (c *Client) Message(opts ...Option) *Message {
	return &Message{client: c, t: Transaction{Pattern: PatternMessage, Options: optionsOf(opts)}}
}

// GID is the message's name.
func (m *Message) GID() string { return m.t.Options.GID }

// Add adds a receiver: "http://...", or "host:port/package.Service/Method" for gRPC. They
// are called one after the other. []byte is sent as it is, other payloads as JSON.
func (m *Message) Add(address string, payload any) *Message {
	body, err := encode(payload)
	if err != nil && m.err == nil {
		m.err = err
	}
	m.t.Steps = append(m.t.Steps, Step{Action: address, Payload: body})
	return m
}

// AddTopic adds all who are subscribed to a topic when the message is prepared, or
// submitted without that.
func (m *Message) AddTopic(topic string, payload any) *Message {
	return m.Add("topic://"+topic, payload)
}

// Delay lets the first call wait for so long after the message was made.
func (m *Message) Delay(d time.Duration) *Message {
	m.t.Delay = d
	return m
}

// Concurrent lets all receivers be called at once.
func (m *Message) Concurrent() *Message {
	m.t.Concurrent = true
	return m
}

// Prepare announces the message. If it is neither submitted nor aborted in time, the
// server asks at query, which is answered by [QueryPrepared]. nil: it is in the server's
// store.
func (m *Message) Prepare(ctx context.Context, query string) error {
	if m.err != nil {
		return &Error{Op: "prepare", GID: m.GID(), Kind: ErrInvalid, Err: m.err}
	}
	m.t.QueryPrepared = query
	return m.client.prepare(ctx, &m.t)
}

// Submit sends the message, prepared or not. nil: it is in the server's store and will be
// delivered; with [Wait] that it was. ErrFailed: it was aborted before. ErrOngoing: not
// all have it yet. ErrUnknown: submit it again, or ask [Client.Status].
func (m *Message) Submit(ctx context.Context) error {
	if m.err != nil {
		return &Error{Op: "submit", GID: m.GID(), Kind: ErrInvalid, Err: m.err}
	}
	return m.client.submit(ctx, &m.t)
}

// Abort drops a message that was prepared and not submitted.
func (m *Message) Abort(ctx context.Context, reason string) error {
	t := m.t
	t.Reason = reason
	return m.client.abort(ctx, &t)
}
