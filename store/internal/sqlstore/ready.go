package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/troth-tx/troth/store"
)

// probeSize is how many bytes a probe writes: about what a few new transactions take with
// their indexes, so that room for a page more does not pass for room.
const probeSize = 64 << 10

// probeSeq is the place of what a probe writes, which belongs to no transaction.
const probeSeq = -1

// Ready implements store.Store.
func (s *Store) Ready(ctx context.Context) error {
	if _, err := s.NextDue(ctx); err != nil {
		return err
	}
	if s.sure.Load() {
		return nil
	}
	if err := s.probe(ctx); err != nil {
		return fmt.Errorf("store: it can be read, and takes no changes: %w", err)
	}
	s.sure.Store(true)
	return nil
}

// probe writes something and removes it again, in a transaction each: what is removed in
// the one that wrote it may never reach the disk.
func (s *Store) probe(ctx context.Context) error {
	content := make([]byte, probeSize)
	_, _ = rand.Read(content) // so that no server compresses it; it never fails
	remove := func(ctx context.Context, c *session) error {
		_, err := c.exec(ctx, s.sql.unprobe, int64(probeSeq))
		return err
	}
	err := s.caller.call(ctx, func(ctx context.Context, c *session) error {
		if err := remove(ctx, c); err != nil { // of a process that died in between
			return err
		}
		_, err := c.exec(ctx, s.sql.probe, int64(probeSeq), content)
		return err
	})
	if err != nil {
		return err
	}
	return s.caller.call(ctx, remove)
}

// doubt remembers that a transaction of the database failed. Only what was written ends
// the doubt: one that found nothing to change proves nothing.
func (s *Store) doubt(err error) {
	if err != nil && !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrNotFound) { // which are answers
		s.sure.Store(false)
	}
}
