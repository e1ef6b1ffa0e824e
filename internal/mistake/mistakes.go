package mistake

// A Mistake is one that somebody could make, in words.
type Mistake struct {
	Name string
	Rule string // of the design, or the fact about a database, that it breaks
	What string
}

// All lists the mistakes. No program calls it but the tests of the tests, and On.
func All() []Mistake {
	return []Mistake{
		// The protocol and its driver.
		{"unanswered-vote-is-yes", "R10", "a vote that was not answered counts as commit"},
		{"last-vote-unread", "R1", "the last vote is waited for and not looked at"},
		{"last-resource-first", "R1", "the home commits without asking the others for their votes"},
		{"commit-before-record", "R1", "prepared branches commit, then the decision is written"},
		{"lost-decision-is-abort", "R3", "a decision that was not answered counts as abort"},
		{"lost-decision-is-commit", "R3", "a decision that was not answered counts as commit"},
		{"register-error-is-abort", "R3", "an error of the register counts as abort"},
		{"failed-commit-rolls-back", "R2", "a branch whose commit failed is rolled back"},
		{"context-cancels-decision", "R3", "the caller's context stops what follows the decision"},
		{"returning-sole-does-not-vote", "R2", "a sole branch whose one-phase commit may come back commits in one phase though a register decides"},
		{"readers-told-early", "I13", "a transaction in which nobody wrote counts as committed before its databases have confirmed what was read"},
		{"forget-unacknowledged", "R4", "the record is forgotten though a branch did not acknowledge"},

		// Recovery and upkeep.
		{"no-tombstone", "R2", "recovery rolls back what is undecided, and records no abort"},
		{"abort-error-is-abort", "R3", "recovery takes an error from Decide for abort"},
		{"failed-lookup-is-abort", "R6", "recovery takes a register that does not answer for abort"},
		{"domain-prefix", "R7", "recovery looks after every domain that begins like its own"},
		{"foreign-identity", "R7", "a register is known by its resource's name alone, whatever its identity"},
		{"returned-home-left", "I4", "recovery does not look for the record in a home that came back prepared"},
		{"one-pass", "R6", "recovery makes one pass only"},
		{"forget-by-age", "R4", "a commit record is forgotten because it is old"},
		{"unreachable-is-gone", "R6", "a branch whose database does not answer counts as committed"},
		{"abort-record-short-lived", "R5", "abort records are dropped at once"},
		{"forgotten-is-aborted", "R4", "a transaction without a record is said to be aborted"},

		// The server's engine.
		{"no-answer-is-failure", "E3", "an answer that is none of the agreed ones counts as failure"},
		{"call-before-save", "E1", "branches are called before the state that demands it is stored"},
		{"calls-not-recorded", "E2", "that an action is about to be called is not stored"},
		{"compensations-at-once", "I14", "a saga's steps are undone in no order"},
		{"unanswered-is-undone", "E3", "an action that was not answered is not compensated"},
		{"silence-is-rollback", "E3", "a sender that does not answer counts as one that did not commit"},
		{"stuck-is-given-up", "I7", "a branch that keeps failing is dropped"},
		{"submit-twice-is-success", "F1", "a repeated submit ends a transaction whose branches are not done"},
		{"abort-after-submit", "I13", "a submitted transaction may be aborted by its caller"},
		{"not-over-is-success", "I3", "a caller that waits is told success at the end of the pass"},
		{"conflict-is-saved", "E4", "a change that came too late counts as made"},
		{"lost-save-is-saved", "E1", "a change that the store did not confirm counts as made"},

		// Statements.
		{"statement-error-ignored", "R9", "a branch may vote commit after a statement failed"},
		{"savepoint-forgets-all", "R9", "rolling back to a savepoint undoes errors from before it too"},

		// PostgreSQL.
		{"prepare-tag-ignored", "R9, F1", "PREPARE TRANSACTION without an error counts as a vote"},
		{"hidden-writer-is-reader", "step 2", "a branch that wrote through a function counts as read-only"},
		{"lost-commit-is-committed", "R3", "a COMMIT that was not answered counts as committed"},
		{"lost-commit-is-aborted", "R3", "a COMMIT that was not answered counts as aborted"},
		{"in-progress-is-aborted", "F4", "pg_xact_status in progress counts as aborted"},
		{"heuristic-swallowed", "R8, I8", "a branch that somebody else ended counts as ended rightly"},

		// MariaDB.
		{"unknown-xid-is-done", "R8, F6", "unknown XID counts as done"},
		{"held-session-left", "F6", "the session that holds a branch is not ended"},
		{"no-witness", "R8, F7", "a branch votes without a witness row"},
		{"lock-is-no-work", "F7", "a branch counts as a writer only if the client saw changed rows"},
		{"record-error-ignored", "R2, F11", "the home commits although its decision did not go in"},

		// The decision table and the last resource.
		{"second-writer-wins", "R2", "who writes a decision second believes its own"},
		{"home-over-abort", "R2", "the home's record gives way to an abort record, and its work commits"},
		{"last-resource-leaves-no-record", "R1", "a database that cannot prepare commits without the record"},

		// The file log.
		{"log-answers-before-write", "R1", "the log answers before the record is written"},
		{"log-not-synced", "I2", "the log answers when the record is written and not synced"},
		{"log-directory-not-synced", "I11", "a new segment's name is not synced"},
		{"log-sync-error-ignored", "I11", "a sync that failed counts as done"},
		{"log-damage-is-torn", "I11", "any damage at the end of the log is cut off as a torn write"},
		{"log-drops-live-segment", "R4", "segments are removed with live records in them"},
	}
}
