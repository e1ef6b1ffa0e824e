package torture

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
)

// A faultKind is a way to break things.
type faultKind string

const (
	faultKill      faultKind = "kill"      // SIGKILL of a manager, which is started again
	faultMine      faultKind = "mine"      // the same, and the next one kills itself at a named point
	faultFreeze    faultKind = "freeze"    // SIGSTOP of a manager, later SIGCONT
	faultServer    faultKind = "server"    // SIGKILL of a database server, and its restart
	faultStatement faultKind = "statement" // a rule of the wire proxy
	faultCutAll    faultKind = "cut-all"   // every connection of a manager to a database
	faultBlackhole faultKind = "blackhole" // nothing passes between a manager and a database
	faultSession   faultKind = "session"   // an administrator ends sessions
)

// faultKinds are all of them, with the mean pause between two faults of the kind
// while it is on.
var faultKinds = []struct {
	kind  faultKind
	pause time.Duration
}{
	{faultKill, 140 * time.Millisecond},
	{faultMine, 500 * time.Millisecond},
	{faultFreeze, 3 * time.Second},
	{faultServer, 8 * time.Second},
	{faultStatement, 250 * time.Millisecond},
	{faultCutAll, 1500 * time.Millisecond},
	{faultBlackhole, 4 * time.Second},
	{faultSession, 700 * time.Millisecond},
}

// A fault is one entry of a schedule. It is stored with a failing run, so its
// fields are named for people.
type fault struct {
	At      time.Duration
	Kind    faultKind
	Manager int           `json:",omitempty"`
	DB      string        `json:",omitempty"`
	For     time.Duration `json:",omitempty"` // of a kill: since the process began its first transaction
	Blind   bool          `json:",omitempty"` // of a kill: at once, whatever the process has come to

	Point string `json:",omitempty"` // of a mine
	Nth   int    `json:",omitempty"` // of a mine, or of a statement

	Match  string `json:",omitempty"` // of a statement
	Action string `json:",omitempty"`
}

// An epochPlan is everything about an epoch that is decided before it.
type epochPlan struct {
	Run       uint64 // the run's seed
	Epoch     int
	Register  string // "home", "sql" or "file"
	Databases []string
	Managers  int
	Spared    int // so many of them, the last ones, are not killed by the schedule
	Clients   int // of each manager
	Accounts  int
	Length    time.Duration // of the time under faults
	Keep      time.Duration // Config.KeepDecisions
	Kinds     []faultKind
	Faults    []fault
}

// statements are texts to act on, by engine.
var statements = map[engine][]string{
	enginePostgres: {
		"PREPARE TRANSACTION", "COMMIT PREPARED", "ROLLBACK PREPARED", "COMMIT", "ROLLBACK", "BEGIN", "troth_decision",
		"pg_prepared_xacts", "pg_xact_status", "UPDATE account", "INSERT INTO journal", "SELECT", "",
	},
	engineMariaDB: {
		"XA PREPARE", "XA COMMIT", "XA ROLLBACK", "XA END", "XA START", "XA RECOVER", "ONE PHASE", "troth_decision",
		"troth_witness", "UPDATE account", "INSERT INTO journal", "SELECT", "KILL", "",
	},
}

// What an epoch draws for. Each has its own generator, and 16 bits to tell them apart.
const (
	purposePlan   = 0
	purposeFaults = 1
	purposePoller = 2       // and the next ones, for the pollers
	purposeChild  = 1 << 15 // with a process's number in the lower bits
)

// seeded makes the generator of one purpose in one epoch.
func seeded(run uint64, epoch int, purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(run, uint64(epoch)<<16|purpose))
}

// drawFaults fills in the swarm and the schedule. Every kind is on with p = 1/2, but
// kills of managers, which cost least and find most, always: that one manager is
// spared shows what their absence would; and kills of databases in every second epoch,
// for a run needs some to count.
func (e *epochPlan) drawFaults(mines bool) {
	rng := seeded(e.Run, e.Epoch, purposeFaults)
	for _, k := range faultKinds {
		on := rng.IntN(2) == 0
		switch k.kind {
		case faultKill:
			on = true
		case faultServer:
			on = e.Epoch%2 == 0
		case faultMine:
			on = on && mines
		case faultFreeze, faultStatement, faultCutAll, faultBlackhole, faultSession:
		}
		if !on {
			continue
		}
		e.Kinds = append(e.Kinds, k.kind)
		for at := exponential(rng, k.pause); at < e.Length; at += exponential(rng, k.pause) {
			if f, ok := e.drawFault(rng, k.kind); ok {
				f.At = at.Round(time.Millisecond)
				e.Faults = append(e.Faults, f)
			}
		}
	}
	slices.SortStableFunc(e.Faults, func(a, b fault) int { return cmp.Compare(a.At, b.At) })
}

func exponential(rng *rand.Rand, mean time.Duration) time.Duration {
	return time.Duration(rng.ExpFloat64() * float64(mean))
}

func (e *epochPlan) drawFault(rng *rand.Rand, kind faultKind) (fault, bool) {
	f := fault{Kind: kind, Manager: rng.IntN(e.Managers)}
	servers := e.servers()
	if len(servers) > 0 {
		f.DB = servers[rng.IntN(len(servers))]
	}
	switch kind {
	case faultKill:
		f.DB, f.Manager = "", rng.IntN(e.mortal())
		f.For, f.Blind = between(rng, 0, 100*time.Millisecond), rng.IntN(16) == 0
	case faultMine:
		all := faultpoint.Points()
		f.DB, f.Manager = "", rng.IntN(e.mortal())
		f.Point, f.Nth = all[rng.IntN(len(all))].Name, 1+rng.IntN(12) // of a life of a dozen transactions
	case faultFreeze:
		f.DB, f.For = "", between(rng, 100*time.Millisecond, 8*time.Second)
	case faultServer:
		f.Manager, f.For = 0, between(rng, 0, 5*time.Second)
	case faultStatement:
		if e.Register == "sql" && rng.IntN(6) == 0 {
			f.DB = registerName
		}
		texts := statements[engineOf(f.DB)]
		f.Match, f.Nth = texts[rng.IntN(len(texts))], 1+rng.IntN(3)
		f.Action = actionNames[rng.IntN(len(actionNames))]
		f.For = between(rng, 20*time.Millisecond, 6*time.Second)
	case faultBlackhole:
		f.For = between(rng, 200*time.Millisecond, 6*time.Second)
	case faultSession:
		f.Manager, f.Nth = 0, 1+rng.IntN(3)
	case faultCutAll:
	}
	return f, kind == faultKill || kind == faultMine || kind == faultFreeze || f.DB != ""
}

// mortal is how many managers the schedule may kill.
func (e *epochPlan) mortal() int { return e.Managers - e.Spared }

// between draws with more weight on the short.
func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	x := rng.Float64()
	return (low + time.Duration(x*x*float64(high-low))).Round(time.Millisecond)
}

func (e *epochPlan) servers() []string {
	var out []string
	for _, name := range e.Databases {
		if engineOf(name) != engineSQLite {
			out = append(out, name)
		}
	}
	return out
}

// registerName is the sql register's among the links of a manager.
const registerName = "register"

// engineOf tells the engine by the name; the register is on PostgreSQL.
func engineOf(name string) engine {
	switch {
	case name == "lite":
		return engineSQLite
	case len(name) > 2 && name[:2] == "ma":
		return engineMariaDB
	}
	return enginePostgres
}
