package simdb

import (
	"slices"
	"strings"
)

func (m *maria) doBegin(c *call) error {
	s := c.s
	if b := s.maria.branch; b != nil {
		return b.wrongState()
	}
	level := s.maria.next // it is for the transaction that begins here
	m.commitLocal(s)
	s.maria.begun, s.maria.next = true, level
	return nil
}

func (m *maria) doCommit(c *call) error {
	s := c.s
	if b := s.maria.branch; b != nil {
		return b.wrongState()
	}
	if s.tx == nil || !s.tx.changed {
		m.commitLocal(s)
		return nil
	}
	return m.brink(c, Committed, "", func() error { m.commitLocal(s); return nil })
}

func (m *maria) doRollback(c *call) error {
	if b := c.s.maria.branch; b != nil {
		return b.wrongState()
	}
	m.rollbackLocal(c.s)
	return nil
}

// savepointsAllowed: outside of a transaction a savepoint is accepted and forgotten.
func (s *Session) savepointsAllowed() (set bool, err error) {
	b := s.maria.branch
	switch {
	case b == nil:
		return s.maria.begun || s.maria.manual, nil
	case b.state == branchRollbackOnly:
		return false, nil
	case b.state != branchActive:
		return false, b.wrongState()
	}
	return true, nil
}

func (s *Session) savepoint(name string) int {
	return slices.IndexFunc(s.maria.savepoints, func(p savepoint) bool { return likeName(p.name, name) })
}

func (m *maria) doSavepoint(s *Session, name string) error {
	set, err := s.savepointsAllowed()
	if !set || err != nil {
		return err
	}
	p := savepoint{name: name, joined: s.tx != nil}
	if p.joined {
		p.mark = s.tx.mark(name)
	}
	if i := s.savepoint(name); i >= 0 {
		s.maria.savepoints = slices.Delete(s.maria.savepoints, i, i+1)
	}
	s.maria.savepoints = append(s.maria.savepoints, p)
	return nil
}

func errNoSavepoint(name string) error {
	return mariaError("1305", "42000", "SAVEPOINT "+name+" does not exist")
}

// doRollbackTo undoes the work since a savepoint, and keeps its locks; unless InnoDB
// had no transaction yet when it was set: then all of that is undone, locks and
// snapshot included.
func (m *maria) doRollbackTo(s *Session, name string) error {
	i := s.savepoint(name)
	if i < 0 {
		return errNoSavepoint(name)
	}
	if _, err := s.savepointsAllowed(); err != nil {
		return err
	}
	p := s.maria.savepoints[i]
	switch {
	case s.tx == nil:
	case p.joined:
		m.undo(s.tx, p.mark)
	default:
		m.rollbackTx(s.tx)
		s.tx = nil
	}
	s.maria.savepoints = s.maria.savepoints[:i+1]
	return nil
}

func (m *maria) doRelease(s *Session, name string) error {
	i := s.savepoint(name)
	if i < 0 {
		return errNoSavepoint(name)
	}
	s.maria.savepoints = s.maria.savepoints[:i]
	return nil
}

// likeName compares names as MariaDB does.
func likeName(a, b string) bool { return strings.EqualFold(a, b) }
