package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/troth-tx/troth/store"
)

// statements are those that are the same everywhere but for their arguments' form.
type statements struct {
	get, additions, nextDue                string
	due, lease, expired                    string
	takeSequence                           string
	topic, topics, topicVersion            string
	makeTopic, countTopic, dropTopic       string
	subscribe, unsubscribe, unsubscribeAll string
	record, entries                        string
	probe, unprobe                         string
}

const selectTransaction = "SELECT t.seq, t.gid, t.owner, t.pattern, t.state, t.version, t.attempts, t.created, t.updated," +
	" t.finished, t.due, t.leased, t.progress, d.content" +
	" FROM troth_transaction t JOIN troth_definition d ON d.seq = t.seq"

func newStatements(d Dialect) statements {
	return statements{
		get:       d.bind(selectTransaction + " WHERE t.gid = ?"),
		additions: d.bind("SELECT content FROM troth_addition WHERE seq = ? ORDER BY part"),
		nextDue:   "SELECT due FROM troth_transaction WHERE due IS NOT NULL ORDER BY due LIMIT 1",
		due: d.bind("SELECT seq FROM troth_transaction WHERE due IS NOT NULL AND due <= ? ORDER BY due LIMIT ?" +
			d.skipLocked()),
		lease: "UPDATE troth_transaction SET due = ?, leased = 1, version = version + 1 WHERE ",
		expired: d.bind("SELECT seq, gid FROM troth_transaction WHERE finished IS NOT NULL AND finished < ? ORDER BY finished LIMIT ?" +
			d.skipLocked()),
		takeSequence:   d.bind("UPDATE troth_sequence SET next = next + ? WHERE id = 1"),
		topic:          d.bind("SELECT url, remark FROM troth_subscriber WHERE topic = ? ORDER BY id"),
		topics:         d.bind("SELECT topic FROM troth_topic WHERE topic > ? ORDER BY topic LIMIT ?"),
		topicVersion:   d.bind("SELECT version FROM troth_topic WHERE topic = ?"),
		makeTopic:      d.bind(d.insertNew("troth_topic (topic, version) VALUES (?, 0)")),
		countTopic:     d.bind("UPDATE troth_topic SET version = version + 1 WHERE topic = ?"),
		dropTopic:      d.bind("DELETE FROM troth_topic WHERE topic = ?"),
		subscribe:      d.bind(d.insertNew("troth_subscriber (topic, digest, url, remark) VALUES (?, ?, ?, ?)")),
		unsubscribe:    d.bind("DELETE FROM troth_subscriber WHERE topic = ? AND digest = ?"),
		unsubscribeAll: d.bind("DELETE FROM troth_subscriber WHERE topic = ?"),
		record:         d.bind("INSERT INTO troth_audit (at, who, action, gid, reason) VALUES (?, ?, ?, ?, ?)"),
		entries:        d.bind("SELECT id, at, who, action, gid, reason FROM troth_audit WHERE id < ? ORDER BY id DESC LIMIT ?"),
		probe:          d.bind("INSERT INTO troth_addition (seq, part, content) VALUES (?, 0, ?)"),
		unprobe:        d.bind("DELETE FROM troth_addition WHERE seq = ?"),
	}
}

// A found is a transaction as it is read, perhaps without all of its definition.
type found struct {
	seq        int64
	t          *store.Transaction
	definition []byte
	short      bool
}

func scan(rows *sql.Rows) (found, error) {
	t := &store.Transaction{}
	f := found{t: t}
	var created, updated int64
	var finished, due sql.NullInt64
	var progress []byte
	err := rows.Scan(&f.seq, &t.GID, &t.Owner, &t.Pattern, &t.State, &t.Version, &t.Attempts, &created, &updated,
		&finished, &due, &t.Leased, &progress, &f.definition)
	if err != nil {
		return f, err
	}
	t.Created, t.Updated, t.Finished, t.Due = timeOf(created), timeOf(updated), timeOf(finished.Int64), timeOf(due.Int64)
	if err := readProgress(progress, t); err != nil {
		return f, &unreadableError{fmt.Errorf("store: the progress of %q cannot be read: %w", t.GID, err)}
	}
	err = readDefinition(f.definition, t)
	if f.short = errors.Is(err, errShort); err != nil && !f.short {
		return f, &unreadableError{fmt.Errorf("store: the definition of %q cannot be read: %w", t.GID, err)}
	}
	return f, nil
}

// An unreadableError is about one row: it is damaged, or a newer version wrote it.
type unreadableError struct{ error }

func (e *unreadableError) Unwrap() error { return e.error }

// querier is a *sql.DB or a *sql.Conn.
type querier interface {
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
}

// complete reads what is missing of a definition. If the transaction has gone
// meanwhile it is store.ErrNotFound.
func (s *Store) complete(ctx context.Context, q querier, f found) error {
	if !f.short {
		return nil
	}
	rows, err := q.QueryContext(ctx, s.sql.additions, f.seq)
	parts, err := scanAll(rows, err, func(rows *sql.Rows) (b []byte, err error) {
		err = rows.Scan(&b)
		return b, err
	})
	switch {
	case err != nil:
		return err
	case len(parts) == 0:
		return store.ErrNotFound
	}
	content := append(slices.Clone(f.definition), slices.Concat(parts...)...)
	if err := readDefinition(content, f.t); err != nil {
		return &unreadableError{fmt.Errorf("store: the definition of %q cannot be read: %w", f.t.GID, err)}
	}
	return nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, gid string) (*store.Transaction, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if checkName("gid", gid) != nil {
		return nil, store.ErrNotFound
	}
	if s.cfg.Sole {
		ctx = context.WithoutCancel(ctx) // it is quick, and to wait for the end of a ctx takes goroutines
	}
	stmt, err := s.getStatement(ctx) //nolint:sqlclosecheck // it is closed with the store
	if err != nil {
		return nil, err
	}
	rows, err := stmt.QueryContext(ctx, gid)
	all, err := scanAll(rows, err, scan)
	switch {
	case err != nil:
		return nil, err
	case len(all) == 0:
		return nil, store.ErrNotFound
	}
	return all[0].t, s.complete(ctx, s.cfg.Read, all[0])
}

func (s *Store) getStatement(ctx context.Context) (*sql.Stmt, error) {
	s.mu.Lock()
	stmt := s.get
	s.mu.Unlock()
	if stmt != nil {
		return stmt, nil
	}
	stmt, err := s.cfg.Read.PrepareContext(ctx, s.sql.get)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.get != nil {
		_ = stmt.Close() //nolint:sqlclosecheck // another was as quick
		return s.get, nil
	}
	s.get = stmt
	return stmt, nil
}

// NextDue implements store.Store.
func (s *Store) NextDue(ctx context.Context) (next time.Time, err error) {
	end, err := s.begin(ctx)
	if err != nil {
		return next, err
	}
	defer end()
	var due int64
	err = s.cfg.Read.QueryRowContext(ctx, s.sql.nextDue).Scan(&due)
	if errors.Is(err, sql.ErrNoRows) {
		return next, nil
	}
	return timeOf(due), err
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, f store.Filter) (page []*store.Transaction, next string, err error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, "", err
	}
	defer end()
	limit := cmp.Or(f.Limit, store.ListLimitDefault)
	if limit < 0 || limit > store.ListLimitMax {
		return nil, "", fmt.Errorf("store: limit is %d: want 1 to %d", f.Limit, store.ListLimitMax)
	}
	where, args, err := conditions(f)
	if err != nil {
		return nil, "", err
	}
	text := s.dialect.bind(selectTransaction + where + " ORDER BY t.created DESC, t.seq DESC LIMIT " + strconv.Itoa(limit+1))
	rows, err := s.cfg.Read.QueryContext(ctx, text, args...)
	all, err := scanAll(rows, err, scan)
	if err != nil {
		return nil, "", err
	}
	if len(all) > limit {
		all = all[:limit]
		last := all[limit-1]
		next = strconv.FormatInt(micros(last.t.Created), 36) + "." + strconv.FormatInt(last.seq, 36)
	}
	for _, x := range all {
		switch err := s.complete(ctx, s.cfg.Read, x); {
		case err == nil:
			page = append(page, x.t)
		case !errors.Is(err, store.ErrNotFound): // it was purged meanwhile
			return nil, "", err
		}
	}
	return page, next, nil
}

// conditions are a filter in SQL. What looks superfluous in it lets the database use a
// partial index.
func conditions(f store.Filter) (where string, args []any, err error) {
	var all []string
	and := func(condition string, values ...any) {
		all = append(all, condition)
		args = append(args, values...)
	}
	states := f.States
	if f.Stuck {
		and("t.attempts > 0")
		if len(states) == 0 {
			states = []store.State{store.Prepared, store.Submitted, store.Aborting}
		} else if states = slices.DeleteFunc(slices.Clone(states), store.State.Over); len(states) == 0 {
			and("1 = 0")
		}
	}
	if len(states) > 0 {
		var numbers []int64
		for _, state := range states {
			numbers = append(numbers, int64(state))
		}
		and("t.state IN (" + joined(numbers) + ")")
		if !slices.Contains(states, store.Succeeded) {
			and("t.state <> 4")
		}
	}
	if f.Pattern != 0 {
		and("t.pattern = ?", int64(f.Pattern))
	}
	if !isText(f.Owner) || !isText(f.GIDPrefix) { // which some databases refuse to look for
		and("1 = 0")
		f.Owner, f.GIDPrefix = "", ""
	}
	if f.Owner != "" {
		and("t.owner = ? AND t.owner <> ''", f.Owner)
	}
	if f.GIDPrefix != "" {
		// The bytes of this character are the greatest that text has: no gid of the
		// prefix comes after that many of them.
		and("t.gid >= ? AND t.gid < ?", f.GIDPrefix, f.GIDPrefix+strings.Repeat("\U0010FFFF", nameMax/4+1))
	}
	if !f.CreatedFrom.IsZero() {
		and("t.created >= ?", ceilMicros(f.CreatedFrom))
	}
	if !f.CreatedUntil.IsZero() {
		and("t.created < ?", ceilMicros(f.CreatedUntil))
	}
	if f.Cursor != "" {
		created, seq, err := parseCursor(f.Cursor)
		if err != nil {
			return "", nil, err
		}
		and("t.created <= ? AND (t.created < ? OR t.seq < ?)", created, created, seq)
	}
	if len(all) > 0 {
		where = " WHERE " + strings.Join(all, " AND ")
	}
	return where, args, nil
}

// ceilMicros rounds up: what is stored is rounded down, and so the two compare as the
// times do.
func ceilMicros(t time.Time) int64 { return micros(t.Add(time.Microsecond - 1)) }

func parseCursor(cursor string) (created, seq int64, err error) {
	a, b, _ := strings.Cut(cursor, ".")
	created, err = strconv.ParseInt(a, 36, 64)
	if err == nil {
		seq, err = strconv.ParseInt(b, 36, 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %.40q", store.ErrCursor, cursor)
	}
	return created, seq, nil
}
