package faultpoint

// What reaches the points of the server. Transactions are those across services.
const (
	// Submitted: a saga with two branches is submitted.
	Submitted Reach = "submitted"
	// Due: a transaction comes due, or the server starts.
	Due Reach = "due"
)

// ServerPoints lists every point that the server may hit beside Points, in about the
// order in which a transaction comes to them.
func ServerPoints() []Point {
	return []Point{
		{"server.create.before", Submitted},
		{"store.commit.before", Submitted},
		{"store.commit.answered", Submitted},
		{"server.create.answered", Submitted},
		{"server.call.before", Submitted},
		{"server.call.answered", Submitted},
		{"server.save.before", Submitted},
		{"server.save.answered", Submitted},
		{"server.passed", Submitted},
		{"server.claim.before", Due},
		{"server.claim.answered", Due},
	}
}
