package troth

import "context"

// A Tx is one global transaction.
type Tx struct{ gid GID }

// ID is the transaction's name, known from the begin.
func (tx *Tx) ID() GID { return tx.gid }

// Enlist returns the branch of a resource, and begins it if this is the first
// time. Resource managers call it; programs call their DB or Tx methods.
func (tx *Tx) Enlist(ctx context.Context, r Resource) (Branch, error) {
	panic("troth: not written yet")
}
