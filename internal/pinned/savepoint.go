package pinned

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/troth-tx/troth/internal/drivercall"
	"github.com/troth-tx/troth/internal/sqltext"
)

// ownPrefix begins the names of the savepoints that BeginTx sets.
const ownPrefix = "troth_"

// A savepoint is set in the branch.
//
// Its sequence is even and grows; an error gets the odd number above the newest savepoint set
// before it. So rolling back to a savepoint undoes the errors with greater numbers.
type savepoint struct {
	name     string
	sequence int64
	own      *nestedTx // begun by it; nil if the program sent the text
	sender   *nestedTx // for a text: the nested transaction in which it was sent, nil if none

	// foreign: while it was set, a statement ran that changes something and does not belong to what
	// was begun here, but to the branch or to another nested transaction. Rolling back
	// undoes it although its author was not asked.
	foreign bool
}

type txState uint8

const (
	txOpen   txState = 1 + iota
	txEnded          // Commit or Rollback was called, whatever came of it
	txUndone         // a savepoint around it was rolled back to
)

// A nestedTx is what BeginTx on the handle returns: a savepoint of the branch.
type nestedTx struct {
	c        *conn
	parent   *nestedTx // on the same connection; nil if none
	name     string
	sequence int64
	state    txState
	called   bool // Commit or Rollback: database/sql has done with it
}

// within reports whether tx is outer or nested in it on the same connection; everything is within nil.
func (tx *nestedTx) within(outer *nestedTx) bool {
	for outer != nil && tx != outer {
		if tx == nil {
			return false
		}
		tx = tx.parent
	}
	return true
}

// encloses reports whether statements of tx belong to what the savepoint has begun.
func (p *savepoint) encloses(tx *nestedTx) bool {
	if p.own != nil {
		return tx.within(p.own)
	}
	return tx.within(p.sender)
}

// position is the number of an error met by a statement of c: before the
// first savepoint that does not enclose the statement, for that one's author does
// not undo it knowingly.
func (s *Session) position(c *conn) int64 {
	tx := c.tx.Load()
	for i := range s.stack {
		if !s.stack[i].encloses(tx) {
			return s.stack[i].sequence - 1
		}
	}
	return s.sequence + 1
}

// ran notes that a statement of c that is not a mere read has run.
func (s *Session) ran(c *conn) {
	tx := c.tx.Load()
	for i := range s.stack {
		if !s.stack[i].encloses(tx) {
			s.stack[i].foreign = true
		}
	}
}

func (s *Session) push(p savepoint) int64 {
	s.sequence += 2
	p.sequence = s.sequence
	s.stack = append(s.stack, p)
	return p.sequence
}

// find returns the place of the newest savepoint with the name, or -1.
func (s *Session) find(name string) int {
	for i := len(s.stack) - 1; i >= 0; i-- {
		if s.stack[i].name == name {
			return i
		}
	}
	return -1
}

// cut takes the savepoints from i on from the stack, because they are undone or released.
func (s *Session) cut(i int, state txState) {
	for _, p := range s.stack[i:] {
		if p.own != nil && p.own.state == txOpen {
			p.own.state = state
		}
	}
	clear(s.stack[i:])
	s.stack = s.stack[:i]
}

// rolledBack notes that the session has rolled back to the savepoint at i, which stays set.
func (s *Session) rolledBack(i int) {
	p := &s.stack[i]
	s.undone(p.sequence)
	s.cut(i+1, txUndone)
	if p.foreign {
		// Numbered as the statement that was lost: only who encloses both undoes it.
		s.fail(p.sequence-1, fmt.Errorf("troth: resource %s: rolling back to savepoint %s undid statements that were sent "+
			"outside of the nested transaction while it was open", s.cfg.Resource, p.name))
		p.foreign = false
	}
}

// checkSavepoint refuses a text about savepoints that would confuse ours.
func (s *Session) checkSavepoint(st *sqltext.Statement) error {
	if strings.HasPrefix(st.Name, ownPrefix) {
		return fmt.Errorf("troth: resource %s: %s %s refused: names that begin with %s belong to BeginTx",
			s.cfg.Resource, st.Word, st.Name, ownPrefix)
	}
	if st.Kind == sqltext.Release {
		if i := s.find(st.Name); i >= 0 && s.openAbove(i) != "" {
			return fmt.Errorf("troth: resource %s: RELEASE SAVEPOINT %s refused: a nested transaction begun after it is still open",
				s.cfg.Resource, st.Name)
		}
	}
	return nil
}

// follow applies a text about savepoints that the session has carried out.
func (s *Session) follow(c *conn, st *sqltext.Statement) {
	i := s.find(st.Name)
	switch st.Kind {
	case sqltext.Savepoint:
		if i >= 0 && s.cfg.Dialect == sqltext.MySQL {
			s.stack = slices.Delete(s.stack, i, i+1) // MySQL moves the name; the others put a second one on top
		}
		if st.Name != "" {
			s.push(savepoint{name: strings.Clone(st.Name), sender: c.tx.Load()})
		}
	case sqltext.RollbackTo:
		if i >= 0 {
			s.rolledBack(i)
		}
	case sqltext.Release:
		if i >= 0 {
			s.cut(i, txEnded)
		}
	case sqltext.Empty, sqltext.Read, sqltext.Write, sqltext.TransactionControl, sqltext.ImplicitCommit, sqltext.Setting:
	}
}

// BeginTx sets a savepoint.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	s := c.s
	if opts.Isolation != 0 || opts.ReadOnly {
		return nil, fmt.Errorf("troth: resource %s: a nested transaction is a savepoint and takes no isolation level and no "+
			"read-only mode; they belong to the whole branch: use troth.Isolation", s.cfg.Resource)
	}
	if err := s.enter(ctx, c); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.checkNested(c); err != nil {
		return nil, err
	}
	if err := s.refuseAfterFailure(); err != nil {
		return nil, err
	}
	s.names++
	tx := &nestedTx{c: c, parent: c.tx.Load(), name: ownPrefix + strconv.Itoa(s.names), state: txOpen}
	ctx, end := s.bound(ctx)
	defer end()
	if err := s.command(ctx, c, "SAVEPOINT "+tx.name); err != nil {
		return nil, err
	}
	tx.sequence = s.push(savepoint{name: tx.name, own: tx})
	c.tx.Store(tx)
	return tx, nil
}

// Commit releases the savepoint: the work becomes that of the enclosing transaction.
func (tx *nestedTx) Commit() error {
	s, c := tx.c.s, tx.c
	ctx := s.lifetime()
	if err := s.enter(ctx, c); err != nil {
		return err
	}
	defer s.leave()
	defer tx.end()
	if tx.state != txOpen {
		return s.failIn(c, fmt.Errorf("troth: resource %s: commit of a nested transaction that is over", s.cfg.Resource))
	}
	if err := s.refuseAfterFailure(); err != nil {
		return err
	}
	i := s.find(tx.name)
	if inner := s.openAbove(i); inner != "" {
		return s.failIn(c, fmt.Errorf("troth: resource %s: nested transactions must end in reverse order: commit of %s while %s is open",
			s.cfg.Resource, tx.name, inner))
	}
	if err := s.command(ctx, c, "RELEASE SAVEPOINT "+tx.name); err != nil {
		return err
	}
	s.cut(i, txEnded)
	return nil
}

// Rollback undoes the work since the savepoint. Nested transactions begun since that are still
// open are undone with it, and over: database/sql itself may roll back in any
// order when a context ends.
func (tx *nestedTx) Rollback() error {
	s, c := tx.c.s, tx.c
	ctx := s.lifetime()
	if err := s.enter(ctx, c); err != nil {
		return err
	}
	defer s.leave()
	defer tx.end()
	if tx.state != txOpen {
		return nil // undone with the one around it
	}
	i := s.find(tx.name)
	if err := s.command(ctx, c, "ROLLBACK TO SAVEPOINT "+tx.name); err != nil {
		return err
	}
	s.rolledBack(i)
	if err := s.command(ctx, c, "RELEASE SAVEPOINT "+tx.name); err != nil {
		return err
	}
	s.cut(i, txEnded)
	return nil
}

// end takes tx from its connection.
func (tx *nestedTx) end() {
	tx.called = true
	if tx.state == txOpen {
		tx.state = txEnded
	}
	c := tx.c
	for in := c.tx.Load(); in != nil && in.called; in = in.parent {
		c.tx.Store(in.parent)
	}
}

// checkNested refuses statements in a nested transaction that one around it has undone.
func (s *Session) checkNested(c *conn) error {
	if tx := c.tx.Load(); tx == nil || tx.state != txUndone {
		return nil
	}
	return s.failIn(c, fmt.Errorf("troth: resource %s: the nested transaction is over: one around it was rolled back", s.cfg.Resource))
}

// openAbove returns the name of a nested transaction begun after the savepoint at i and still open.
func (s *Session) openAbove(i int) string {
	for _, p := range s.stack[i+1:] {
		if p.own != nil && p.own.state == txOpen {
			return p.name
		}
	}
	return ""
}

// refuseAfterFailure refuses to go on in a branch that failed, where the
// database would not do so itself. See FailedError.
func (s *Session) refuseAfterFailure() error {
	if s.cfg.Dialect == sqltext.Postgres {
		return nil
	}
	if err := s.Failed(); err != nil {
		return &FailedError{Resource: s.cfg.Resource, Cause: err}
	}
	return nil
}

// lifetime is the context of what has none of its own.
func (s *Session) lifetime() context.Context {
	if s.cfg.Context != nil {
		return s.cfg.Context
	}
	return context.Background()
}

// command sends a text without arguments and result.
func (s *Session) command(ctx context.Context, c *conn, text string) error {
	_, err := s.exec(ctx, c, text, nil)
	if err != driver.ErrSkip { //nolint:errorlint // as database/sql compares
		return err
	}
	if err := drivercall.ExecPrepared(ctx, s.dc, text); err != nil {
		return s.statementFailed(c, err, false)
	}
	return nil
}
