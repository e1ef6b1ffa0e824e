// Package auth says who makes a request, and what they may do. A principal shows a bearer
// token or a client certificate; package server asks for one on every route but those
// that tell whether the server lives.
package auth

import (
	"cmp"
	"context"
	"fmt"

	"github.com/troth-tx/troth/engine"
)

// A Role is what a principal may do. Each may do all that those before it may, to its
// own transactions; from Operator on, to everybody's.
type Role uint8

// The roles.
const (
	Client   Role = iota + 1 // runs transactions, and sees its own
	Operator                 // sees all, retries at once, reads the audit
	Admin                    // also stops transactions by force, and changes topics
)

// String is the role's name, as the file of tokens has it.
func (r Role) String() string {
	switch r {
	case Client:
		return "client"
	case Operator:
		return "operator"
	case Admin:
		return "admin"
	}
	return fmt.Sprintf("unknown (%d)", uint8(r))
}

// ParseRole finds a role by its name.
func ParseRole(name string) (Role, bool) {
	for r := Client; r <= Admin; r++ {
		if r.String() == name {
			return r, true
		}
	}
	return 0, false
}

// A Caller is who makes a request.
type Caller struct {
	Name string // empty where nobody has to say who they are
	Role Role
	From string // the address, without the port
}

// May reports whether the caller has at least a role.
func (c Caller) May(r Role) bool { return c.Role >= r }

// Owner is whose transactions the caller sees and makes: empty means that it sees all.
func (c Caller) Owner() string {
	if c.Role == Client {
		return c.Name
	}
	return ""
}

// String is who the audit says it was.
func (c Caller) String() string { return cmp.Or(c.Name, c.From) }

type callerKey struct{}

// As returns a context of the caller's: [From] finds it, and the engine shows and
// changes only what is the caller's to see.
func As(ctx context.Context, c Caller) context.Context {
	return engine.As(context.WithValue(ctx, callerKey{}, c), c.Owner())
}

// From returns who makes the request. Without As it is a Caller of no role, who may
// do nothing.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
