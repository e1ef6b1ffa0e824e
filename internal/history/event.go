package history

// A Kind is what a client did.
type Kind string

// The kinds.
const (
	// Transfer moves money: one journal row per Change, in the transaction itself.
	Transfer Kind = "transfer"
	// Read reads the balance of every account, in one transaction.
	Read Kind = "read"
	// Append appends unique values to lists and reads lists, in one transaction.
	Append Kind = "append"
	// Decide asks a register to record Want; the answer is what it holds.
	Decide Kind = "decide"
	// Lookup asks how a transaction ended.
	Lookup Kind = "lookup"
)

// A Phase tells an invocation from the answers to it.
type Phase string

// The phases.
const (
	Invoke     Phase = "invoke"      // the client sets out; it was told nothing yet
	OK         Phase = "ok"          // committed everywhere, or for Decide and Lookup: answered
	RolledBack Phase = "rolled back" // nothing happened and nothing will
	Pending    Phase = "pending"     // committed; some branch is finished later
	Unknown    Phase = "unknown"     // an error that says neither
)

// An Answer is what a register, or Manager.Outcome, said about a transaction. The
// values are what troth.Outcome prints.
type Answer string

// The answers. Undecided is also the answer where no record exists any more.
const (
	Undecided Answer = "undecided"
	Committed Answer = "committed"
	Aborted   Answer = "aborted"
)

// An Event is one invocation or one completion.
//
// Process and Op pair the two: one process is one client that does one thing
// after the other, and the number of a client that was killed is not used again.
// GID must be known at the invocation of everything that may leave a trace, so a
// client notes it after Begin and before the first statement: a journal row whose
// GID no event names is a violation.
//
// A completion need not repeat what its invocation said; what it does say counts.
type Event struct {
	Process int    `json:"process"`
	Op      int    `json:"op"`
	GID     string `json:"gid,omitempty"`
	Kind    Kind   `json:"kind"`
	Phase   Phase  `json:"phase"`
	Time    int64  `json:"time"` // ns of a clock that all clients share and that never steps, see Now

	Changes  []Change  `json:"changes,omitempty"`  // Transfer
	Balances []Balance `json:"balances,omitempty"` // Read, once answered
	Locked   bool      `json:"locked,omitempty"`   // Read: the rows were locked in every database before the commit
	Lists    []ListOp  `json:"lists,omitempty"`    // Append, in the order of execution
	Want     Answer    `json:"want,omitempty"`     // Decide
	Answer   Answer    `json:"answer,omitempty"`   // Decide, Lookup, once answered

	Error string `json:"error,omitempty"` // for people
}

// A Change is what a transfer does to one account, and its journal row.
type Change struct {
	DB      string `json:"db"`
	Account int    `json:"account"`
	Amount  int64  `json:"amount"`
}

// A Balance is what a client read.
type Balance struct {
	DB      string `json:"db"`
	Account int    `json:"account"`
	Balance int64  `json:"balance"`
}

// A ListOp is one step of an Append transaction: it appends Value if that is not
// 0, and reads the list otherwise. A value is appended to one key only once in a
// history. An invocation says what is planned, and its Read means nothing; a
// completion that has Lists says every step that was executed.
type ListOp struct {
	DB    string  `json:"db"`
	Key   int     `json:"key"`
	Value int64   `json:"value,omitempty"`
	Read  []int64 `json:"read,omitempty"` // what the read returned
}

// Final is what was observed after all faults had ended and everything had
// settled.
type Final struct {
	Databases []Database
	Outcomes  map[string]Answer // by GID: what a Lookup says in the end; may lack any
}

// A Database is one database as seen from outside, with no client running.
type Database struct {
	Name     string
	Start    map[int]int64   // balances before the first event
	Balances map[int]int64   // balances at the end
	Journal  []JournalRow    // in no order, with duplicates if there are any
	Prepared []string        // GIDs of branches that are still prepared
	Lists    map[int][]int64 // nil if lists are not part of the workload
}

// A JournalRow is what a transfer left in a database.
type JournalRow struct {
	GID     string
	Account int
	Amount  int64
}
