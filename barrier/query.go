package barrier

import (
	"context"
	"fmt"
)

// QueryPrepared answers the server's question whether the local transaction of a message
// was committed. If there is no sign of one it makes sure that there never will be:
// whichever of the two comes first, local transaction or query, wins for good.
// committed is true if the message is to be delivered (answer success), and false if it
// never must be (answer failure: status 409, or Aborted in gRPC). After an error nothing
// is known; answer with an error, so that the server asks again.
//
// db must not be in a transaction (a *sql.DB, or an idle *sql.Conn), and must be the
// primary of the database that the local transaction is in, not a replica. While the
// local transaction is under way QueryPrepared waits for its end, as [Table.Enter] does.
//
// Only the transaction type and the gid of s count.
func (t *Table) QueryPrepared(ctx context.Context, db Tx, s Step) (committed bool, err error) {
	return t.On(sqlSession{db}).QueryPrepared(ctx, s)
}

// QueryPrepared is [Table.QueryPrepared].
func (b Bound) QueryPrepared(ctx context.Context, s Step) (committed bool, err error) {
	if err := b.usable(); err != nil {
		return false, err
	}
	question, err := NewStep(s.TransType, s.GID, messageBranch, Message)
	if err != nil {
		return false, err
	}
	question.Op = Rollback // the reason of the row that it claims
	by, err := b.claim(ctx, question, Message)
	if err != nil {
		return false, fmt.Errorf("barrier: query %v: %w", s, err)
	}
	switch by {
	case Message:
		return true, nil
	case claimed, Rollback:
		return false, nil
	case Action, Compensate, Try, Confirm, Cancel, Commit:
	}
	return false, fmt.Errorf("%w: reason %q for the local transaction of %q", ErrTable, by, s.GID)
}
