// Package simdb simulates database servers in memory, for simulation: PostgreSQL,
// MariaDB and SQLite as far as distributed transactions see them. A server takes
// SQL text and answers as the real one does: rows, command tags, error codes,
// which statement waits for which lock, who is the victim of a deadlock, what is
// left after kill -9.
//
// Nothing here runs by itself. There are no goroutines, no locks, no clock and no
// randomness: a server is driven by one caller at a time, time comes from
// [Options.Now], and a statement that must wait says so ([ErrWait]) and goes on
// when the caller says ([Session.Resume]). So the caller owns the schedule, and
// a run can be repeated exactly.
//
// A text that is not understood is refused with an [*UnknownError], before any of
// it is carried out, and remembered ([Server.Refused]): the simulation never
// guesses. What it claims is compared with real servers by the differential tests
// of this package.
//
// How it is built: token.go, parser.go and expr.go read texts; value.go and
// eval.go compute; table.go, lock.go and txn.go keep rows, locks and
// transactions; select.go, insert.go and change.go are the statements that all
// kinds have; an [engine] adds what one kind does in its own way.
package simdb
