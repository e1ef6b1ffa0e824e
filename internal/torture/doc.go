// Package torture runs real managers on real databases, breaks everything around
// them at random, and looks from outside whether a promise was broken.
//
// A run is a sequence of epochs. In each, a schedule of faults is drawn from the
// run's seed (a swarm: every kind of fault is on or off for the whole epoch), the
// managers' clients go on working under it, then everything is healed and the
// databases are compared with what the clients were told:
//
//	I1   a transaction's journal rows are in all its databases or in none
//	I2   what a client was told to be committed is there
//	I3   what a client was told to be rolled back is nowhere; what nobody knew is
//	     known to Manager.Outcome, which says what the databases say
//	I4   no branch of ours is in doubt for longer than 30 seconds while its
//	     database and one manager are up
//	I5   every balance is what it was plus its journal rows, each of which is there
//	     once; the sum of all balances does not change
//	I7   everything is final within 30 seconds after the heal
//	I9   what others prepared is left alone
//	I10  a transaction that locks in two databases sees a constant sum
//	I12  decision records and witness rows are few again
//	I13  outcomes only move forward, whoever is asked
//
// The managers are processes of their own, for SIGKILL and SIGSTOP to act on. The
// program that runs the torture is also theirs, see [Child].
package torture
