// Package troth is a transaction manager: it changes several databases as one
// atomic unit that survives a crash at any instant.
//
//	athos := postgres.New("athos", db1)
//	porthos := mysql.New("porthos", db2)
//	mgr, err := troth.Open(ctx, troth.Config{
//		Domain:    "bank",
//		Resources: []troth.Resource{athos, porthos},
//	})
//	...
//	defer mgr.Close(ctx)
//
//	err = mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
//		a, err := athos.DB(ctx, tx) // a genuine *sql.DB, pinned to this transaction
//		if err != nil {
//			return err
//		}
//		b, err := porthos.DB(ctx, tx)
//		if err != nil {
//			return err
//		}
//		if _, err := a.ExecContext(ctx, "UPDATE account SET balance = balance - 100 WHERE name = 'alice'"); err != nil {
//			return err
//		}
//		_, err = b.ExecContext(ctx, "UPDATE account SET balance = balance + 100 WHERE name = 'bob'")
//		return err
//	})
//
// # What is promised
//
// Atomic: all branches of a transaction commit, or all roll back, after any crash
// of the program, of a database or of the network at any instant, once recovery
// has reached every database.
//
// One decision, never reversed: a transaction is committed at the instant its
// commit record becomes durable in exactly one decision register.
//
// Truthful: the caller hears that it committed (nil), that it was rolled back
// ([ErrRolledBack]), that it committed and some branch is still finishing
// ([ErrPending]), or that nobody knows yet ([ErrUndecided]), with an id to ask
// again. Never a guess.
//
// Any process can recover: it needs the databases, and no name or volume of its
// own, unless decisions are kept in a file log.
//
// # What is not promised
//
// Isolation across databases: each database isolates its own branch, and a reader
// of two databases may see one branch committed a moment before the other.
// Availability while the database that holds a decision is down: prepared branches
// wait for it, with their locks.
//
// # How it works
//
// Two-phase commit with presumed abort. All work comes first. Then every database
// that wrote, but one, is asked to prepare: to promise that it can commit whatever
// happens. Then the decision is recorded, durably, in one place: by default a row
// in the remaining database, the home participant, written in that database's own
// commit. Then the others commit. A crash before the record means abort, after it
// commit, and whoever recovers reads the record. One database that wrote commits in
// one phase; databases that only read take no part.
//
// Packages postgres, pgxtx, mysql, sqlite and plainsql make databases take part;
// filelog and sqlregister keep decisions elsewhere; twophase has the interface of
// gosql2pc.
package troth
