package troth

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// An Outcome is how a global transaction ended, as far as is known.
type Outcome uint8

// The outcomes.
const (
	// Undecided: no decision is recorded. The transaction may still commit.
	Undecided Outcome = iota
	// Committed: the commit record is durable. Every branch has committed or will.
	Committed
	// Aborted: no branch has committed and none will.
	Aborted
)

func (o Outcome) String() string {
	switch o {
	case Undecided:
		return "undecided"
	case Committed:
		return "committed"
	case Aborted:
		return "aborted"
	}
	return "outcome(" + strconv.Itoa(int(o)) + ")"
}

// A Decision is the durable record about one transaction.
type Decision struct {
	GID     GID
	Outcome Outcome // Committed or Aborted

	// Branches are the prepared branches that the decision binds, without the
	// home participant's own, which the record commits with. It is what must be
	// proved before the record may be forgotten (R4). Empty in abort records.
	Branches []BranchRecord

	// At is when the record was written, by the register's clock. Set by
	// Register.Committed, ignored by Register.Decide.
	At time.Time
}

// A BranchRecord names a branch in a Decision.
type BranchRecord struct {
	Resource string
	Branch   int
	// Evidence is what the resource manager noted at prepare so that it can prove
	// later how the branch ended: PostgreSQL's transaction id. May be empty.
	// At most 40 bytes of [A-Za-z0-9_-].
	Evidence string
}

// A Register holds the decisions. Every method is safe for concurrent use and
// for use by several processes, except where a register says that it has one
// owner.
//
// An error means that the answer is not known, never that there is no decision
// (R3): ask again.
type Register interface {
	// Open readies the register, once, before anything else is called. It creates
	// what is missing, or says exactly what to create.
	Open(ctx context.Context, cfg RegisterConfig) error

	// Identity tells this register from every other one, see [ValidIdentity]. It
	// is known after Open and never changes.
	Identity() string

	// Decide records d unless a decision about d.GID is there already, durably,
	// and returns the one that is there: the first writer wins, whoever it is. It is
	// idempotent and linearizable.
	Decide(ctx context.Context, d Decision) (Outcome, error)

	// Lookup returns the recorded outcome, Undecided if there is none.
	Lookup(ctx context.Context, gid GID) (Outcome, error)

	// Committed lists up to limit commit records that are at least minAge old and
	// whose GID is greater than after, in the order of their GIDs: those that
	// nobody has forgotten yet.
	Committed(ctx context.Context, minAge time.Duration, after GID, limit int) ([]Decision, error)

	// Forget drops commit records. The caller has proof that every branch has
	// committed (R4). It need not be durable.
	Forget(ctx context.Context, gids []GID) error

	// Expire drops abort records older than age, by the register's own clock. The
	// caller has seen to it that no transaction lives that long (R5). It returns
	// how many were dropped; a batch at a time, so call again while it is not 0.
	Expire(ctx context.Context, age time.Duration) (int, error)

	// Close releases what Open took. It does not close what was handed to the
	// register ready-made, such as an *sql.DB.
	Close(ctx context.Context) error
}

// RegisterConfig is what a Manager tells its register.
type RegisterConfig struct {
	Domain string
	Logger *slog.Logger // never nil
}

// branchesSizeMax bounds the text of EncodeBranches: 64 branches of 68 bytes.
const branchesSizeMax = 8 << 10

// EncodeBranches writes branch records as a text for a register to store:
// "<resource>.<no>=<evidence>", separated by spaces. It is a durable format.
func EncodeBranches(branches []BranchRecord) string {
	if len(branches) == 0 {
		return ""
	}
	b := make([]byte, 0, 48*len(branches))
	for i, r := range branches {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, r.Resource...)
		b = append(b, '.')
		b = strconv.AppendInt(b, int64(r.Branch), 10)
		b = append(b, '=')
		b = append(b, r.Evidence...)
	}
	return string(b)
}

// ParseBranches reads what EncodeBranches wrote.
func ParseBranches(s string) ([]BranchRecord, error) {
	if s == "" {
		return nil, nil
	}
	if len(s) > branchesSizeMax {
		return nil, fmt.Errorf("troth: decision record names branches in %d bytes, more than %d", len(s), branchesSizeMax)
	}
	var out []BranchRecord
	for field := range strings.SplitSeq(s, " ") {
		name, evidence, ok := strings.Cut(field, "=")
		resource, no, ok2 := strings.Cut(name, ".")
		n, err := strconv.Atoi(no)
		if !ok || !ok2 || err != nil || n < 1 || n > branchNoMax || !ValidName(resource) || !validEvidence(evidence) {
			return nil, fmt.Errorf("troth: decision record names a branch as %s", strconv.Quote(clip(field)))
		}
		out = append(out, BranchRecord{Resource: resource, Branch: n, Evidence: evidence})
	}
	return out, nil
}

func validEvidence(s string) bool {
	if len(s) > 40 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
