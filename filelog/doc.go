// Package filelog is a decision register on a local disk: an append-only log that
// one process owns.
//
//	reg, err := filelog.Open("/var/lib/bank/troth")
//	...
//	mgr, err := troth.Open(ctx, troth.Config{Register: reg, ...})
//
// Use it where tables in the databases that take part are unwelcome and the
// process has a disk that outlives it. The log must survive as long as any branch
// may be in doubt: a container's own file system does not.
//
// # Promise
//
// Decide(commit) returns after the record is on disk. Many callers share one
// sync: a batch is written as one frame, and while it is being synced the next
// one fills. Decide(abort) writes nothing, see [Log.Decide].
//
// After any crash [Open] finds every decision that was confirmed, or refuses with
// a [*CorruptError] that names the file, the place and the reason. It never starts
// with fewer decisions than were confirmed, with one exception that no single log
// can close: damage that turns the end of the log into zeros, from some place
// through the very last frame, looks exactly like frames that were never written,
// or a write that a power cut tore. Damage that leaves any later frame is found;
// therefore one more frame, which only confirms, is written when the log has been
// idle for a second and on Close. Bits that rot are found everywhere.
//
// # Failure
//
// A write or sync that fails poisons the log: what reached the disk is not known,
// and a second sync would not tell (the kernel may have dropped the pages and
// marked them clean). Every later call fails with [ErrFailed] until the log is
// closed and opened again. Open never trusts the old pages: it copies what is
// live into a new segment and syncs that.
//
// A disk without room for the next segment is not a failure of this kind: nothing
// was written. Decide fails while it lasts, and works again afterwards.
//
// # Limits
//
// One process owns the directory, by flock. A copy of the directory is another
// log of the same identity: never run both. A restored backup has forgotten what
// was decided since.
package filelog
