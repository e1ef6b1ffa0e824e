// Package memory keeps transactions in memory only. It is for tests and simulations:
// what it confirms is gone when the process ends.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/troth-tx/troth/store"
)

// A Store is a store.Store in memory.
type Store struct {
	mu      sync.Mutex
	closed  bool
	all     map[string]*store.Transaction
	topics  map[string]*topic
	entries []store.AuditEntry
}

// A topic is there from its first subscriber until it is deleted.
type topic struct {
	subscribers []store.Subscriber
	version     int64
}

var _ store.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{all: make(map[string]*store.Transaction), topics: make(map[string]*topic)}
}

// lock locks the store unless it is closed or the caller has gone.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	return s.mu.Unlock, nil
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, t *store.Transaction) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if s.all[t.GID] != nil {
		return store.ErrExists
	}
	t.Version = 1
	s.all[t.GID] = t.Clone()
	return nil
}

// Save implements store.Store.
func (s *Store) Save(ctx context.Context, t *store.Transaction, _ int) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	stored := s.all[t.GID]
	switch {
	case stored == nil:
		return store.ErrNotFound
	case stored.Version != t.Version, !stored.Created.Equal(t.Created):
		return store.ErrConflict
	}
	t.Version++
	s.all[t.GID] = t.Clone()
	return nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, gid string) (*store.Transaction, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	t := s.all[gid]
	if t == nil {
		return nil, store.ErrNotFound
	}
	return t.Clone(), nil
}

// Claim implements store.Store.
func (s *Store) Claim(ctx context.Context, now time.Time, lease time.Duration, limit int) ([]*store.Transaction, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var due []*store.Transaction
	for _, t := range s.all {
		if !t.Due.IsZero() && !t.Due.After(now) {
			due = append(due, t)
		}
	}
	slices.SortFunc(due, func(a, b *store.Transaction) int {
		return cmp.Or(a.Due.Compare(b.Due), strings.Compare(a.GID, b.GID))
	})
	due = due[:min(limit, len(due))]
	for i, t := range due {
		t.Due, t.Leased = now.Add(lease), true
		t.Version++
		due[i] = t.Clone()
	}
	return due, nil
}

// Ready implements store.Store.
func (s *Store) Ready(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err == nil {
		unlock()
	}
	return err
}

// NextDue implements store.Store.
func (s *Store) NextDue(ctx context.Context) (next time.Time, err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return next, err
	}
	defer unlock()
	for _, t := range s.all {
		if !t.Due.IsZero() && (next.IsZero() || t.Due.Before(next)) {
			next = t.Due
		}
	}
	return next, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, f store.Filter) (page []*store.Transaction, next string, err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, "", err
	}
	defer unlock()
	limit := cmp.Or(f.Limit, store.ListLimitDefault)
	if limit < 0 || limit > store.ListLimitMax {
		return nil, "", fmt.Errorf("store: limit is %d: want 1 to %d", f.Limit, store.ListLimitMax)
	}
	after, err := parseCursor(f.Cursor)
	if err != nil {
		return nil, "", err
	}
	for _, t := range s.all {
		if selects(f, t) && (after == nil || newestFirst(after, t) < 0) {
			page = append(page, t)
		}
	}
	slices.SortFunc(page, newestFirst)
	if len(page) > limit {
		page = page[:limit]
		last := page[limit-1]
		next = strconv.FormatInt(last.Created.UnixNano(), 36) + "." + last.GID
	}
	for i, t := range page {
		page[i] = t.Clone()
	}
	return page, next, nil
}

func newestFirst(a, b *store.Transaction) int {
	return cmp.Or(b.Created.Compare(a.Created), strings.Compare(b.GID, a.GID))
}

// parseCursor returns the transaction that a page ended with, as far as the order
// goes; nil for no cursor.
func parseCursor(cursor string) (*store.Transaction, error) {
	if cursor == "" {
		return nil, nil
	}
	created, gid, ok := strings.Cut(cursor, ".")
	nanos, err := strconv.ParseInt(created, 36, 64)
	if err != nil || !ok {
		return nil, fmt.Errorf("%w: %.40q", store.ErrCursor, cursor)
	}
	return &store.Transaction{GID: gid, Created: time.Unix(0, nanos)}, nil
}

func selects(f store.Filter, t *store.Transaction) bool {
	return (len(f.States) == 0 || slices.Contains(f.States, t.State)) &&
		(f.Pattern == 0 || f.Pattern == t.Pattern) &&
		(f.Owner == "" || f.Owner == t.Owner) &&
		strings.HasPrefix(t.GID, f.GIDPrefix) && utf8.ValidString(f.GIDPrefix) &&
		(f.CreatedFrom.IsZero() || !t.Created.Before(f.CreatedFrom)) &&
		(f.CreatedUntil.IsZero() || t.Created.Before(f.CreatedUntil)) &&
		(!f.Stuck || !t.State.Over() && t.Attempts > 0)
}

// Purge implements store.Store.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (n int, err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	for gid, t := range s.all {
		if n < limit && t.State.Over() && t.Finished.Before(before) {
			delete(s.all, gid)
			n++
		}
	}
	return n, nil
}

// Topic implements store.Topics.
func (s *Store) Topic(ctx context.Context, name string) ([]store.Subscriber, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if t := s.topics[name]; t != nil {
		return slices.Clone(t.subscribers), nil
	}
	return nil, nil
}

// TopicVersion implements store.Topics.
func (s *Store) TopicVersion(ctx context.Context, name string) (int64, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if t := s.topics[name]; t != nil {
		return t.version, nil
	}
	return 0, store.ErrNotFound
}

// AllTopics implements store.Topics.
func (s *Store) AllTopics(ctx context.Context, after string, limit int) ([]string, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	names := slices.Sorted(maps.Keys(s.topics))
	from, found := slices.BinarySearch(names, after)
	if found {
		from++
	}
	return names[from:min(len(names), from+limit)], nil
}

// Subscribe implements store.Topics.
func (s *Store) Subscribe(ctx context.Context, name string, sub store.Subscriber) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	t := s.topics[name]
	if t == nil {
		t = new(topic)
		s.topics[name] = t
	}
	if slices.ContainsFunc(t.subscribers, func(x store.Subscriber) bool { return x.URL == sub.URL }) {
		return store.ErrExists
	}
	t.subscribers = append(t.subscribers, sub)
	t.version++
	return nil
}

// Unsubscribe implements store.Topics.
func (s *Store) Unsubscribe(ctx context.Context, name, url string) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	t := s.topics[name]
	if t == nil {
		return store.ErrNotFound
	}
	i := slices.IndexFunc(t.subscribers, func(x store.Subscriber) bool { return x.URL == url })
	if i < 0 {
		return store.ErrNotFound
	}
	t.subscribers = slices.Delete(t.subscribers, i, i+1)
	t.version++
	return nil
}

// DeleteTopic implements store.Topics.
func (s *Store) DeleteTopic(ctx context.Context, name string) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if s.topics[name] == nil {
		return store.ErrNotFound
	}
	delete(s.topics, name)
	return nil
}

// Record implements store.Audit.
func (s *Store) Record(ctx context.Context, e store.AuditEntry) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e.ID = int64(len(s.entries) + 1)
	s.entries = append(s.entries, e)
	return nil
}

// Entries implements store.Audit.
func (s *Store) Entries(ctx context.Context, before int64, limit int) (page []store.AuditEntry, err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, e := range slices.Backward(s.entries) {
		if len(page) < limit && (before == 0 || e.ID < before) {
			page = append(page, e)
		}
	}
	return page, nil
}

// Close implements store.Store.
func (s *Store) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
