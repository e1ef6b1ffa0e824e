// Package client is the Go client of a troth server: transactions across services.
//
//	c, err := client.New(client.Config{Server: "http://127.0.0.1:36789"})
//	...
//	err = c.Saga().
//		Add("http://flights/book", "http://flights/cancel", trip).
//		Add("http://hotels/book", "http://hotels/cancel", trip).
//		Submit(ctx)
//
// The patterns are methods of a [Client]: [Client.Message], [Client.Saga], [Client.TCC],
// [Client.XA] and [Client.Workflows]. A service that takes part wraps its handlers with
// [Handler] or [Middleware], which tell it which transaction calls, and turn its errors
// into the agreed answers. Packages barrier and client/xabranch make its steps safe to
// repeat.
//
// The client needs nothing but the standard library. It speaks HTTP; package
// client/grpcclient speaks gRPC, and package client/inprocess drives an engine in the
// same program, both as a [Transport].
//
// # Errors
//
// Every error of a request is one of a few kinds, which errors.Is tells apart:
//
//	ErrFailed    the transaction did not succeed and will not
//	ErrOngoing   it is decided, or may be, and goes on by itself
//	ErrUnknown   nobody answered: the request may have been carried out
//	ErrRefused   the transaction's state does not allow the request
//	ErrExists, ErrNotFound, ErrInvalid, ErrDenied
//
// They cross the wire in both directions: what a participant's handler returns is what
// its caller gets.
package client
