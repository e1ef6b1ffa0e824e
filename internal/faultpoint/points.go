package faultpoint

// A Point is a named place in the code, on one side of an effect that other
// processes can see.
type Point struct {
	Name  string
	Reach Reach
}

// Reach says what must happen for a program to come to a point. A harness that
// wants every point hit has to make each of them happen.
type Reach string

// What reaches points. "Its database" is one that the transaction wrote to.
const (
	// Commit: a transaction with two or more writing branches commits.
	Commit Reach = "commit"
	// Abort: a transaction that wrote is rolled back by its program.
	Abort Reach = "abort"
	// Deadline: the program is still at work when the transaction's time is up.
	Deadline Reach = "deadline"
	// OnePhase: a transaction commits that wrote to one database alone.
	OnePhase Reach = "one-phase"
	// ReadOnly: a transaction commits of which a branch only read.
	ReadOnly Reach = "read-only"
	// NoVote: a branch cannot vote commit: its server was killed after its work and
	// before it is asked (freeze at prepare.before, kill the server, go on).
	NoVote Reach = "no-vote"
	// LostVote: as NoVote with PostgreSQL, whose server process is then looked for.
	LostVote Reach = "lost-vote"
	// LostAnswer: the answer of the decision is lost: freeze at decide.before, kill
	// the home's server (or the register's), go on.
	LostAnswer Reach = "lost-answer"
	// LostCommit: the session of a prepared branch is lost: freeze at commit.before,
	// kill its server, go on.
	LostCommit Reach = "lost-commit"
	// LastAgent: a branch on SQLite (or any database that cannot prepare) writes and
	// is the home.
	LastAgent Reach = "last-agent"
	// Register: decisions are written by statements of their own: a shared SQL
	// register, or recovery that asks for abort in a participant's table.
	Register Reach = "register"
	// Recovery: another process finds branches that a crash left prepared and
	// undecided (killed at decide.before).
	Recovery Reach = "recovery"
	// Raced: a decision is written where one is already: with a shared SQL register,
	// frozen at decide.before, another recovers, go on.
	Raced Reach = "raced"
	// Ended: a branch that a commit record binds is asked about after it has ended:
	// as OldRecord, on PostgreSQL.
	Ended Reach = "ended"
	// Held: recovery meets a MariaDB branch whose session lives: its program is
	// frozen at decide.before, another recovers.
	Held Reach = "held"
	// HeldCommit: as Held, but decided: frozen at commit.before.
	HeldCommit Reach = "held-commit"
	// Upkeep: a Manager's Recover is called.
	Upkeep Reach = "upkeep"
	// OldRecord: upkeep finds a commit record older than Config.LifeMax and half a
	// minute: killed at commit.answered, created_at in troth_decision set back by a
	// day, Recover.
	OldRecord Reach = "old-record"
	// OldWitness: the same with the row in troth_witness of a MariaDB branch.
	OldWitness Reach = "old-witness"
	// Forgetting: a transaction has committed everywhere and KeepDecisions is over:
	// a Manager with a negative KeepDecisions is closed.
	Forgetting Reach = "forgetting"
	// FileLog: a transaction with two writing branches commits with the file log.
	FileLog Reach = "file-log"
	// FileLogOpen: a file log is opened that was there before.
	FileLogOpen Reach = "file-log-open"
	// FileLogRoll: more decisions than fit in one segment: 64 KiB are 400 or so.
	FileLogRoll Reach = "file-log-roll"
)

// Points lists every point that the code may hit, in about the order in which a
// transaction and then its recovery come to them. No program calls it: it is for
// harnesses, and with the build tag Hit refuses what is not listed.
func Points() []Point {
	return []Point{
		{"start.before-lock", FileLogOpen},
		{"start.locked", FileLogOpen},
		{"log.loaded", FileLogOpen},
		{"segment.before-create", FileLogOpen},
		{"segment.before-sync", FileLogOpen},
		{"segment.after-sync", FileLogOpen},
		{"segment.after-rename", FileLogOpen},
		{"segment.after-dirsync", FileLogOpen},
		{"compact.after-unlink", FileLogOpen},
		{"compact.after-dirsync", FileLogOpen},

		{"branch.before-start", Commit},
		{"branch.started", Commit},
		{"deadline.hit", Deadline},
		{"poll.before", Commit},
		{"poll.answered", Commit},
		{"prepare.before", Commit},
		{"late.backend-ended", LostVote},
		{"prepare.answered", Commit},
		{"vote.no", NoVote},
		{"votes.complete", Commit},
		{"decide.before", Commit},
		{"one.before-commit", OnePhase},
		{"la.before-record", LastAgent},
		{"la.before-commit", LastAgent},
		{"la.answered", LastAgent},
		{"register.before-insert", Register},
		{"register.inserted", Register},
		{"register.not-first", Raced},
		{"log.before-write", FileLog},
		{"log.half-written", FileLog},
		{"log.before-sync", FileLog},
		{"log.after-sync", FileLog},
		{"log.sealed", FileLogRoll},
		{"trim.after-unlink", FileLogRoll},
		{"trim.after-dirsync", FileLogRoll},
		{"one.answered", OnePhase},
		{"decide.after", Commit},
		{"ask.before", LostAnswer},
		{"ask.answered", LostAnswer},
		{"report.before", Commit},
		{"report.after", Commit},
		{"commit.before", Commit},
		{"finish.before", LostCommit},
		{"finish.answered", LostCommit},
		{"commit.answered", Commit},
		{"release.before", ReadOnly},
		{"release.answered", ReadOnly},
		{"acks.complete", Commit},
		{"acks.noted", Commit},
		{"rollback.before", Abort},
		{"rollback.answered", Abort},
		{"drop.before", Forgetting},
		{"drop.after", Forgetting},

		{"recover.before-list", Recovery},
		{"recover.listed", Recovery},
		{"recover.before-lookup", Recovery},
		{"recover.looked-up", Recovery},
		{"recover.before-decide", Recovery},
		{"recover.after-decide", Recovery},
		{"recover.before-finish", Recovery},
		{"recover.before-kill", Held},
		{"recover.session-gone", Held},
		{"recover.before-witness", HeldCommit},
		{"recover.witness-read", HeldCommit},
		{"recover.before-proof", Ended},
		{"recover.after-finish", Recovery},
		{"recover.end", Recovery},

		{"upkeep.before-list", Upkeep},
		{"upkeep.listed", Upkeep},
		{"prove.before", OldRecord},
		{"prove.answered", OldRecord},
		{"forgotten.before-lookup", OldWitness},
		{"forgotten.looked-up", OldWitness},
		{"forget.before", Upkeep},
		{"forget.after", Upkeep},
		{"expire.before", Upkeep},
		{"expire.after", Upkeep},
		{"sweep.before", Upkeep},
		{"sweep.after", Upkeep},
	}
}
