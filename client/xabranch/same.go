package xabranch

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

// checkDB reports whether the branches of Config.Resource and the sessions of Config.DB
// meet in one barrier table. If they did not, a rollback that came early would leave its
// row where no branch looks, and what comes late would prepare, with nobody to end it.
//
// A name proves nothing (there is a "shop" in every cluster, and addresses may be those of
// a proxy), so a branch takes a lock, which the other must see. The branch is rolled back.
func (s *Service) checkDB(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, errors.New("it takes too long: a branch and Config.DB need a connection each"))
	defer cancel()
	name := nameOf(s.cfg.Domain, client.NewGID(), "01")
	b, err := s.cfg.Resource.Begin(ctx, troth.BranchConfig{
		GID: name.GID, Branch: name.Branch, Context: ctx, XID: func() (troth.XID, error) { return name, nil },
	})
	if err != nil {
		return fmt.Errorf("xabranch: Config.Resource: %w", err)
	}
	defer s.undo(ctx, b, &client.Call{GID: string(name.GID), Branch: "01"})
	branch, err := handleOf(b)
	if err != nil {
		return err
	}
	same, err := s.meet(ctx, branch)
	if err != nil {
		return fmt.Errorf("xabranch: compare Config.DB with Config.Resource: %w", errors.Join(err, context.Cause(ctx)))
	}
	if same {
		return nil
	}
	var there, here string
	if err := errors.Join(s.where(ctx, branch, &there), s.where(ctx, s.cfg.DB, &here)); err != nil {
		return fmt.Errorf("xabranch: compare Config.DB with Config.Resource: %w", err)
	}
	return fmt.Errorf("xabranch: Config.DB is not the database of Config.Resource, or finds another table %s there (%s, and the resource has %s): "+
		"give Config.DB the *sql.DB that the resource was made with", s.cfg.Barrier.Name(), here, there)
}

const checkTimeout = 30 * time.Second

// meet reports whether a lock of the branch is seen from Config.DB, and both find the same
// table.
func (s *Service) meet(ctx context.Context, branch *sql.DB) (same bool, err error) {
	var tables [2]string
	if err := errors.Join(s.table(ctx, branch, &tables[0]), s.table(ctx, s.cfg.DB, &tables[1])); err != nil || tables[0] != tables[1] {
		return false, err
	}
	if s.cfg.Barrier.Dialect() == barrier.MySQL { // its locks are the server's
		lock := "troth." + rand.Text()
		var got sql.NullInt64
		if err := branch.QueryRowContext(ctx, "SELECT GET_LOCK(?, 0)", lock).Scan(&got); err != nil || got.Int64 != 1 {
			return false, errors.Join(err, fmt.Errorf("GET_LOCK returned %v, want 1", got))
		}
		err := s.cfg.DB.QueryRowContext(ctx, "SELECT IS_USED_LOCK(?) IS NOT NULL", lock).Scan(&same)
		_, released := branch.ExecContext(ctx, "DO RELEASE_LOCK(?)", lock) // its session may live on
		return same, errors.Join(err, released)
	}
	var number [8]byte
	_, _ = rand.Read(number[:]) // never fails
	lock := int64(binary.LittleEndian.Uint64(number[:]))
	if _, err := branch.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", lock); err != nil { // the database's; it ends with the branch
		return false, err
	}
	var free bool
	err = s.cfg.DB.QueryRowContext(ctx, "SELECT pg_try_advisory_xact_lock($1)", lock).Scan(&free)
	return err == nil && !free, err
}

// table is the identity that the barrier's table has for a session: its name may stand
// for another in each.
func (s *Service) table(ctx context.Context, db *sql.DB, id *string) error {
	name := s.cfg.Barrier.Name()
	if s.cfg.Barrier.Dialect() != barrier.MySQL {
		return db.QueryRowContext(ctx, "SELECT coalesce(to_regclass($1)::oid::text, '')", name).Scan(id)
	}
	if strings.Contains(name, ".") { // it names its database
		return nil
	}
	return s.where(ctx, db, id)
}

// where is what a session's database is called, for people.
func (s *Service) where(ctx context.Context, db *sql.DB, name *string) error {
	query := "SELECT current_database() || ', schema ' || coalesce(current_schema(), 'none')"
	if s.cfg.Barrier.Dialect() == barrier.MySQL {
		query = "SELECT coalesce(DATABASE(), 'none')"
	}
	return db.QueryRowContext(ctx, query).Scan(name)
}
