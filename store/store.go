// Package store says what the engine keeps, and what it needs of a place to keep it.
//
// A store holds transactions across services. Any number of engines may share one:
// each change names the version of the transaction that it is based on, and the
// store refuses it if another came first. Leases only keep two engines from doing
// the same work.
package store

import (
	"context"
	"errors"
	"time"
)

// The errors of a store. Any other error means that the outcome is not known: the
// change may have been made.
var (
	ErrExists   = errors.New("store: the transaction exists")
	ErrNotFound = errors.New("store: no such transaction")
	ErrConflict = errors.New("store: the transaction has changed")
	ErrClosed   = errors.New("store: closed")
	ErrCursor   = errors.New("store: no cursor of List's: use the one of the page before, or none")
)

// ErrBroken means that the store has failed for good, as after an error of the disk, and
// must be opened anew: nobody knows what the disk has. All reads and changes fail with it
// from then on. The outcome of the change that met it is not known.
var ErrBroken = errors.New("store: it failed and must be opened anew")

// A Store keeps transactions. What its methods confirm is durable. They are safe
// for concurrent use; many callers share a write where the store can.
//
// What Get returns is what was saved, but for this: times come back in UTC and without
// what is less than a microsecond, and empty slices and maps as nil. A GID and an owner
// are text in UTF-8 of up to 255 bytes without NUL, and are compared byte for byte; a
// topic's name too. There is no other limit on what a transaction holds.
//
// A caller whose ctx ends while he waits gets an error that is none of those above, and
// his change may have been made; nobody else's is harmed.
type Store interface {
	// Create stores a new transaction with Version 1, or fails with ErrExists.
	Create(ctx context.Context, t *Transaction) error

	// Save stores what changes in a transaction (Updated and all that follows it, and
	// Branches) if the store's version is t.Version, and sets t.Version to the next. It must
	// have been Created when t was: another may have the GID of one that was purged.
	// Branches may have been added at the end, from the index added on; of those before,
	// State, Called, Finished and Error may have changed. ErrConflict: another was quicker;
	// ErrNotFound: it is gone. After any other error Get tells what holds.
	Save(ctx context.Context, t *Transaction, added int) error

	// Get returns a transaction of the caller's own, or ErrNotFound.
	Get(ctx context.Context, gid string) (*Transaction, error)

	// Claim returns up to limit transactions that were due at now, those that were due
	// first, and puts their Due to now plus the lease, sets Leased, with a new version,
	// in the store and in what it returns. No two callers get the same one.
	Claim(ctx context.Context, now time.Time, lease time.Duration, limit int) ([]*Transaction, error)

	// NextDue is the earliest Due of all; zero if nothing is.
	NextDue(ctx context.Context) (time.Time, error)

	// List returns a page of transactions, the newest first by Created, and the cursor of
	// the next page, which is empty after the last. Following the cursors finds each that
	// is there all the time exactly once. A cursor that
	// cannot be is ErrCursor; a limit that cannot be is an error, too.
	List(ctx context.Context, f Filter) (page []*Transaction, next string, err error)

	// Purge removes up to limit transactions that were over before the time given,
	// and says how many. It never removes others.
	Purge(ctx context.Context, before time.Time, limit int) (int, error)

	// Ready returns nil if changes can be made now, and otherwise why not: the store does
	// not answer, its disk is full, its database only reads. It reads something; at first,
	// and after a change that failed, until one is made, it also writes something that
	// nobody sees. That costs as much as a small change does: ask a few times a second at
	// the most. A change that needs more room than there is can fail all the same.
	Ready(ctx context.Context) error

	// Close ends the store when what is under way has ended. Calls fail with ErrClosed
	// afterwards.
	Close(ctx context.Context) error

	Topics
	Audit
}

// A Filter selects what List returns. Zero fields select all. Nothing has an owner or a
// prefix that is not text in UTF-8 without NUL.
type Filter struct {
	States       []State
	Pattern      Pattern
	Owner        string
	GIDPrefix    string
	CreatedFrom  time.Time // inclusive
	CreatedUntil time.Time // exclusive
	Stuck        bool      // not over, and its last pass failed
	Cursor       string    // of an earlier page with the same filter
	Limit        int       // 1 to ListLimitMax; 0 means ListLimitDefault
}

// How many transactions a page of List may have, and has unless it is said.
const (
	ListLimitMax     = 1000
	ListLimitDefault = 100
)

// Topics are names for lists of addresses: a message to a topic goes to all that
// are subscribed when it is submitted.
type Topics interface {
	// Topic returns the subscribers in the order in which they came; none if there is
	// no such topic.
	Topic(ctx context.Context, name string) ([]Subscriber, error)

	// TopicVersion returns how often a topic was changed since it was made: how many
	// have subscribed and left. ErrNotFound if there is no such topic.
	TopicVersion(ctx context.Context, name string) (int64, error)

	// AllTopics returns up to limit names, in order, that come after the name given.
	AllTopics(ctx context.Context, after string, limit int) ([]string, error)

	// Subscribe adds a subscriber, and makes the topic if it is not there; ErrExists if
	// the URL is there.
	Subscribe(ctx context.Context, topic string, s Subscriber) error

	// Unsubscribe removes the one with the URL; ErrNotFound if there is none. A topic
	// stays when its last subscriber has left.
	Unsubscribe(ctx context.Context, topic, url string) error

	// DeleteTopic removes a topic with its subscribers, or fails with ErrNotFound.
	DeleteTopic(ctx context.Context, topic string) error
}

// A Subscriber of a topic.
type Subscriber struct {
	URL    string
	Remark string
}

// Audit is what operators did.
type Audit interface {
	// Record adds an entry; its ID is set by the store.
	Record(ctx context.Context, e AuditEntry) error

	// Entries returns up to limit entries with an ID below before, the newest first;
	// before 0 means from the newest on.
	Entries(ctx context.Context, before int64, limit int) ([]AuditEntry, error)
}

// An AuditEntry is one action of an operator.
type AuditEntry struct {
	ID     int64
	At     time.Time
	Who    string // the principal, or the address it came from
	Action string // "force-stop", "retry-now", ...
	GID    string
	Reason string
}
