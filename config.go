package troth

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"
)

// Config configures a [Manager]. The zero value of every field but Resources has
// a meaning.
type Config struct {
	// Domain keeps the transactions of several applications on one database apart:
	// recovery touches only its own domain's. All processes that may recover each
	// other's transactions share it. Defaults to "default". See [ValidName].
	Domain string

	// Resources are the databases that take part, at least one, each with its own
	// name.
	Resources []Resource

	// Register holds the decisions. nil: each transaction's decision is a row in
	// one of the databases that take part (home participant).
	Register Register

	// Logger receives what operators should know. nil: silent.
	Logger *slog.Logger

	// Observer is told what happens, for metrics and traces. nil: nobody.
	Observer *Observer

	// Timeout is how long a transaction may take from its begin to its decision,
	// unless [Timeout] says otherwise; then it is rolled back. Defaults to 30
	// seconds; at most LifeMax.
	Timeout time.Duration

	// AckTimeout is how long Commit waits, after the decision, for a branch that
	// cannot be reached before it returns ErrPending and leaves the branch to the
	// background. Defaults to 5 seconds.
	AckTimeout time.Duration

	// RecoverEvery is the pause between recovery passes. Defaults to 5 seconds.
	// Negative: only Open and [Manager.Recover] run passes.
	RecoverEvery time.Duration

	// Grace is how long recovery leaves an undecided prepared branch of another
	// process alone before it decides abort: that process may be about to decide.
	// Rolling back earlier is safe, but unkind. Defaults to 5 seconds. Negative: none.
	Grace time.Duration

	// KeepDecisions is how long the record of a finished commit stays readable by
	// [Manager.Outcome] in any process. Defaults to 1 minute. Negative: not at all;
	// a recovering process that is slower than the transaction may then leave a record
	// that calls a finished transaction aborted, though no branch follows it.
	KeepDecisions time.Duration

	// LifeMax is the longest life of a transaction, which the databases enforce on
	// idle sessions. Commit records that a crashed process left are kept as long,
	// records of aborts ten times as long. All processes that share a domain should
	// agree on it. Defaults to 1 hour; at least one minute.
	LifeMax time.Duration

	// AllowUnreachable lets Open succeed although a database or the register cannot
	// be reached. It joins as soon as it can; transactions that need it fail until
	// then.
	AllowUnreachable bool

	// NoRecovery: neither Open nor the background ends in-doubt branches or drops
	// records, for tools that only look. [Manager.Recover] still does.
	NoRecovery bool

	// Now is the clock for ids and timeouts. Defaults to time.Now.
	Now func() time.Time

	// Rand gives the random part of ids and of pauses. A simulation replaces it to be
	// repeatable; ids must never repeat, so nothing else should. It is read by one
	// goroutine at a time, and must not fail. Defaults to crypto/rand.Reader.
	Rand io.Reader
}

// withDefaults fills in what is zero and checks the rest.
func (c Config) withDefaults() (Config, error) {
	if c.Domain == "" {
		c.Domain = "default"
	}
	if !ValidName(c.Domain) {
		return c, fmt.Errorf("troth: Config.Domain %s is not valid: use 1 to %d of a-z 0-9 _ -, beginning with a letter or digit",
			strconv.Quote(clip(c.Domain)), nameSizeMax)
	}
	if len(c.Resources) == 0 {
		return c, fmt.Errorf("troth: Config.Resources is empty: name at least one database")
	}
	seen := make(map[string]bool)
	for i, r := range c.Resources {
		if r == nil {
			return c, fmt.Errorf("troth: Config.Resources[%d] is nil", i)
		}
		name := r.Name()
		if !ValidName(name) {
			return c, fmt.Errorf("troth: Config.Resources[%d] has the name %s: use 1 to %d of a-z 0-9 _ -, beginning with a letter or digit",
				i, strconv.Quote(clip(name)), nameSizeMax)
		}
		if seen[name] {
			return c, fmt.Errorf("troth: Config.Resources[%d]: the name %q is used twice: give each database its own name", i, name)
		}
		seen[name] = true
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Observer == nil {
		c.Observer = &Observer{}
	}
	defaultTo(&c.Timeout, 30*time.Second)
	defaultTo(&c.AckTimeout, 5*time.Second)
	defaultTo(&c.RecoverEvery, 5*time.Second)
	defaultTo(&c.Grace, 5*time.Second)
	defaultTo(&c.KeepDecisions, time.Minute)
	defaultTo(&c.LifeMax, time.Hour)
	if c.LifeMax < time.Minute {
		return c, fmt.Errorf("troth: Config.LifeMax is %v: use at least 1m", c.LifeMax)
	}
	if c.Timeout < 0 || c.Timeout > c.LifeMax {
		return c, fmt.Errorf("troth: Config.Timeout is %v: use more than 0 and at most LifeMax, %v", c.Timeout, c.LifeMax)
	}
	if c.AckTimeout < 0 {
		return c, fmt.Errorf("troth: Config.AckTimeout is %v: use more than 0", c.AckTimeout)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return c, nil
}

func defaultTo(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

// A TxOption changes one transaction.
type TxOption func(*txOptions)

type txOptions struct {
	timeout    time.Duration
	home       string
	isolation  sql.IsolationLevel
	atDecision bool
}

// Timeout sets how long the transaction may take from its begin to its decision.
// At most Config.LifeMax.
func Timeout(d time.Duration) TxOption { return func(o *txOptions) { o.timeout = d } }

// Isolation sets the isolation level of every branch. Each database isolates its
// own branch only: no level makes two databases one.
func Isolation(level sql.IsolationLevel) TxOption { return func(o *txOptions) { o.isolation = level } }

// Home names the resource whose table records the decision. Without it, the
// Manager chooses: a resource that cannot prepare, else the first that wrote. It
// is needed only if a resource that cannot prepare joins after the first
// statement on MySQL or MariaDB, which must know it then.
func Home(resource string) TxOption { return func(o *txOptions) { o.home = resource } }

// ReturnAtDecision lets Commit return as soon as the decision is durable,
// without waiting for the branches to acknowledge it. The caller may then read old
// data from a branch for a moment.
func ReturnAtDecision() TxOption { return func(o *txOptions) { o.atDecision = true } }
