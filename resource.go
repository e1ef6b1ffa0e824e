package troth

import (
	"context"
	"database/sql"
	"log/slog"
	"strconv"
	"time"
)

// A Resource is a resource manager: a database that can take part in global
// transactions. Packages postgres, pgxtx, mysql and sqlite implement it; users
// hand one to [Config] and call only the methods that the package adds, such as
// DB. Its methods are safe for concurrent use.
type Resource interface {
	// Name is stable across restarts and the same in every process: identifiers
	// and decision records refer to it. See [ValidName].
	Name() string

	// Open checks the connection and the server's settings and creates the tables
	// that the resource needs. The Manager calls it before anything else, and
	// again later if it failed. Its error names the setting and the statement that
	// mends it.
	Open(ctx context.Context, cfg ResourceConfig) error

	// Can says what the resource is able to do. It is known after Open.
	Can() Capability

	// Begin makes a branch. It may put off talking to the database until the first
	// statement. The branch outlives ctx.
	Begin(ctx context.Context, cfg BranchConfig) (Branch, error)

	// Recover lists every prepared branch that the database shows to this
	// resource, ours or not. An error says nothing about any branch (R6).
	Recover(ctx context.Context) ([]Prepared, error)

	// Finish ends a branch of a decided transaction from a recovery session, when
	// the session that prepared it is lost or belongs to another process.
	// A nil error is positive evidence that the branch has ended as the outcome
	// demands (R8). [ErrNoEvidence] means that the branch is not there and
	// nothing proves how it ended; a *[HeuristicError] that it ended against the
	// outcome. Any other error: try again. It is idempotent.
	Finish(ctx context.Context, xid XID, outcome Outcome, evidence string) error

	// Decisions is the decision table of this database: nil if Can lacks CanDecide.
	Decisions() Register

	// Close releases what Open took; the *sql.DB or pool stays open.
	Close(ctx context.Context) error
}

// Capability is a set of what a Resource can do.
type Capability uint8

// The capabilities. Every resource has at least one.
const (
	CanPrepare Capability = 1 << iota // vote first, commit later
	CanDecide                         // be the home participant: commit the decision with its own work

	// OnePhaseReturns is no ability: a crash of the server may bring a one-phase
	// commit back as a prepared branch, even one that was acknowledged. So it commits
	// in one phase only where the branch's own name says that it is the home; whoever
	// finds such a branch prepared commits it. The resource is a [Returner], if it
	// can decide.
	OnePhaseReturns
)

// ResourceConfig is what a Manager tells a Resource when it opens it.
type ResourceConfig struct {
	Domain string
	Logger *slog.Logger // never nil

	// NeedDecisions: the Manager keeps decisions in participants, so a resource that
	// can must have its decision table. If false a resource that can prepare does
	// without.
	NeedDecisions bool

	// LifeMax is the longest that a session may sit idle in a transaction. The
	// resource has the database enforce it on the sessions it uses (R5).
	LifeMax time.Duration
}

// BranchConfig describes a new branch.
type BranchConfig struct {
	GID    GID
	Branch int // the number, from 1

	// Context ends when the transaction may no longer run statements: it timed
	// out, or is being rolled back. Statements that run then are cancelled.
	Context context.Context //nolint:containedctx // lifetime of the branch, see above

	// XID fixes where the decision will be recorded and returns the branch's name.
	// Only a resource that must name a branch before its first statement (XA START)
	// calls it; the others are given the name in Prepare.
	XID func() (XID, error)

	// Isolation is the level asked for with [Isolation]; LevelDefault is the
	// database's own.
	Isolation sql.IsolationLevel
}

// A Branch is one resource's part of one global transaction, on a session of its
// own. Its methods are called by one goroutine at a time.
//
// Wrote, Prepare and CommitDeciding stop further statements of the program on the
// branch. After the call that ended the branch (Commit, Rollback,
// CommitDeciding, Release returned nil), and after Close, the session is back in
// its pool.
type Branch interface {
	// Wrote reports whether the branch has anything to commit: changed rows, or
	// locks that must last. If unsure it reports true. It returns the first
	// statement error that was not undone by rolling back to a savepoint (R9).
	Wrote(ctx context.Context) (bool, error)

	// Prepare asks for the branch's vote and makes it durable. VoteCommit comes
	// with a nil error; VoteRollback with the reason, and the branch is rolled back
	// or sure to be. VoteUnknown with the error that hid the answer (R10).
	Prepare(ctx context.Context, xid XID) (Vote, error)

	// Evidence is what Finish will need to prove how the branch ended. Valid after
	// Prepare voted commit. See [BranchRecord].
	Evidence() string

	// Commit ends a prepared branch. nil: the database acknowledged it.
	Commit(ctx context.Context) error

	// Rollback ends a branch, prepared or not. nil: it is rolled back or its
	// session is gone and it was not prepared.
	Rollback(ctx context.Context) error

	// CommitDeciding commits the branch in one phase. With CanDecide the record d
	// is inserted in the same local transaction, so that the branch's own commit is
	// the decision. A resource that has no decision table is only asked to do so
	// for the sole branch of a transaction. Committed and Aborted are definite; an
	// error with Undecided means that the answer was lost: the decision table, or
	// [Settler], knows.
	CommitDeciding(ctx context.Context, d Decision) (Outcome, error)

	// Release ends a branch that has nothing to commit.
	Release(ctx context.Context) error

	// Close gives the session up, whatever its state; a prepared branch stays
	// prepared. It does nothing on a branch that has ended.
	Close()
}

// A Failer is a Branch that remembers why it can only be rolled back.
type Failer interface {
	// Failed returns the first statement error that was not undone by rolling back to
	// a savepoint (R9), as a *[BranchError]; nil if there is none. It may be called
	// while a statement runs.
	Failed() error
}

// A Settler is a Branch that can find out how its own one-phase commit ended
// without a decision table.
type Settler interface {
	// Settle is called after CommitDeciding returned Undecided, until it returns
	// Committed or Aborted.
	Settle(ctx context.Context) (Outcome, error)
}

// A Returner is a Resource that has OnePhaseReturns and CanDecide.
type Returner interface {
	// Returned reports whether a transaction of this resource that has not ended
	// holds the record of the commit of gid, such as a home participant that came
	// back prepared.
	Returned(ctx context.Context, gid GID) (bool, error)
}

// A Vote is a branch's answer to prepare.
type Vote uint8

// The votes. The read-only vote is [Branch.Wrote] answering false.
const (
	VoteUnknown  Vote = iota // no answer came: the branch may be prepared
	VoteCommit               // prepared: the branch can commit whatever happens now
	VoteRollback             // the branch is rolled back
)

func (v Vote) String() string {
	switch v {
	case VoteUnknown:
		return "unknown"
	case VoteCommit:
		return "commit"
	case VoteRollback:
		return "rollback"
	}
	return "vote(" + strconv.Itoa(int(v)) + ")"
}

// Prepared describes a prepared branch that a database lists.
type Prepared struct {
	XID    XID
	Ours   bool   // the identifier has troth's format, and XID is set
	Native string // the identifier as the database shows it, for people

	Database string        // where it was prepared; empty if the database does not say
	Owner    string        // who prepared it; empty if the database does not say
	Age      time.Duration // since prepare by the database's clock; 0 if it does not say
}

// A Blocked session waits for something that a prepared branch holds.
type Blocked struct {
	Session string        // the database's name of the session: a process or thread id
	Query   string        // what it runs, clipped, if the database shows it
	Waiting time.Duration // for how long
}

// An Inspector is a Resource that can tell who waits for a prepared branch.
type Inspector interface {
	Blocked(ctx context.Context, native string) ([]Blocked, error)
}

// Severity grades a Finding.
type Severity uint8

// The severities.
const (
	FindingOK      Severity = iota // checked and well
	FindingNote                    // worth knowing
	FindingWarning                 // will hurt some day
	FindingFatal                   // transactions would not be safe, or cannot work: Open refuses
)

func (s Severity) String() string {
	switch s {
	case FindingOK:
		return "ok"
	case FindingNote:
		return "note"
	case FindingWarning:
		return "warning"
	case FindingFatal:
		return "fatal"
	}
	return "severity(" + strconv.Itoa(int(s)) + ")"
}

// A Finding is one thing that a check of a database found.
type Finding struct {
	Severity Severity
	Subject  string // the setting, privilege or object: "max_prepared_transactions"
	Found    string // its value, or what is the case
	Why      string // one sentence: what goes wrong
	Fix      string // the exact statement or step that mends it; empty if nothing to do
}

// A Checker is a Resource that can examine its database without being opened:
// settings, privileges, poolers in front, free slots, orphans. It changes nothing.
type Checker interface {
	Check(ctx context.Context) ([]Finding, error)
}

// A Forgetter is a Resource whose branches leave rows behind when they commit,
// such as MySQL's witness rows. Forget drops those of transactions whose records
// are forgotten. It need not be durable.
type Forgetter interface {
	Forget(ctx context.Context, gids []GID) error
}

// A Sweeper is a Resource that keeps rows which outlive their transactions, such
// as MySQL's witness rows. Sweep deletes a batch of those that are older than
// minAge and whose transaction forgotten reports as forgotten: its register
// answers, and has no record. It returns how many rows it deleted. It deletes what
// [Forgetter] was not told, because of a crash.
type Sweeper interface {
	Sweep(ctx context.Context, minAge time.Duration, forgotten func(ctx context.Context, place Place, gid GID) (bool, error)) (int, error)
}
