package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"math"

	"github.com/troth-tx/troth/store"
)

// textMax is how much of a text is kept that only people read, in bytes.
const textMax = 16 << 10

// Topic implements store.Topics.
func (s *Store) Topic(ctx context.Context, name string) ([]store.Subscriber, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if checkName("topic", name) != nil {
		return nil, nil
	}
	rows, err := s.cfg.Read.QueryContext(ctx, s.sql.topic, name)
	return scanAll(rows, err, func(rows *sql.Rows) (x store.Subscriber, err error) {
		err = rows.Scan(&x.URL, &x.Remark)
		return x, err
	})
}

// TopicVersion implements store.Topics.
func (s *Store) TopicVersion(ctx context.Context, name string) (version int64, err error) {
	end, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer end()
	if checkName("topic", name) != nil {
		return 0, store.ErrNotFound
	}
	err = s.cfg.Read.QueryRowContext(ctx, s.sql.topicVersion, name).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNotFound
	}
	return version, err
}

// AllTopics implements store.Topics.
func (s *Store) AllTopics(ctx context.Context, after string, limit int) ([]string, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	rows, err := s.cfg.Read.QueryContext(ctx, s.sql.topics, forPeople(after, nameMax), int64(max(limit, 0)))
	return scanAll(rows, err, scanText)
}

// Subscribe implements store.Topics.
func (s *Store) Subscribe(ctx context.Context, topic string, x store.Subscriber) error {
	if err := checkName("topic", topic); err != nil {
		return err
	}
	if err := checkText("url", x.URL, textMax); err != nil {
		return err
	}
	return s.changeTopic(ctx, store.ErrExists,
		statement{s.sql.makeTopic, []any{topic}},
		statement{s.sql.countTopic, []any{topic}},
		statement{s.sql.subscribe, []any{topic, digest(x.URL), x.URL, forPeople(x.Remark, textMax)}})
}

// Unsubscribe implements store.Topics.
func (s *Store) Unsubscribe(ctx context.Context, topic, url string) error {
	if checkName("topic", topic) != nil {
		return s.nothing(ctx)
	}
	return s.changeTopic(ctx, store.ErrNotFound,
		statement{s.sql.countTopic, []any{topic}},
		statement{s.sql.unsubscribe, []any{topic, digest(url)}})
}

// DeleteTopic implements store.Topics.
func (s *Store) DeleteTopic(ctx context.Context, topic string) error {
	if checkName("topic", topic) != nil {
		return s.nothing(ctx)
	}
	return s.changeTopic(ctx, store.ErrNotFound,
		statement{s.sql.countTopic, []any{topic}},
		statement{s.sql.unsubscribeAll, []any{topic}},
		statement{s.sql.dropTopic, []any{topic}})
}

// nothing is the answer to who names a topic that cannot be.
func (s *Store) nothing(ctx context.Context) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	end()
	return store.ErrNotFound
}

func digest(url string) []byte {
	sum := sha256.Sum256([]byte(url))
	return sum[:]
}

type statement struct {
	text string
	args []any
}

// changeTopic runs statements that begin with the topic's own row: who has changed it
// keeps others out until the end. If the last of them changes nothing, nothing is
// changed, and the error is none.
func (s *Store) changeTopic(ctx context.Context, none error, each ...statement) error {
	return s.caller.call(ctx, func(ctx context.Context, c *session) error {
		var changed int64
		for _, x := range each {
			res, err := c.exec(ctx, x.text, x.args...)
			if err == nil {
				changed, err = res.RowsAffected()
			}
			if err != nil {
				return err
			}
		}
		if changed == 0 {
			return none
		}
		return nil
	})
}

// Record implements store.Audit.
func (s *Store) Record(ctx context.Context, e store.AuditEntry) error {
	return s.caller.call(ctx, func(ctx context.Context, c *session) error {
		_, err := c.exec(ctx, s.sql.record, micros(e.At), forPeople(e.Who, textMax), forPeople(e.Action, textMax),
			forPeople(e.GID, textMax), forPeople(e.Reason, textMax))
		return err
	})
}

// Entries implements store.Audit.
func (s *Store) Entries(ctx context.Context, before int64, limit int) ([]store.AuditEntry, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if before == 0 {
		before = math.MaxInt64
	}
	rows, err := s.cfg.Read.QueryContext(ctx, s.sql.entries, before, int64(max(limit, 0)))
	return scanAll(rows, err, func(rows *sql.Rows) (e store.AuditEntry, err error) {
		var at int64
		err = rows.Scan(&e.ID, &at, &e.Who, &e.Action, &e.GID, &e.Reason)
		e.At = timeOf(at)
		return e, err
	})
}
