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
// with fewer decisions than were confirmed, with one exception: damage that turns
// the end of the log into zeros, from some place through the very last frame, looks
// exactly like frames that were never written, or a write that a power cut tore.
// Bits that rot are found everywhere.
//
// The exception is narrow. A file of its own, the mark, says once a second and on
// Close how far the log was synced, and Open refuses a log that ends before. So
// what a zeroed end can hide is what was confirmed in the last second before a
// crash; a sector of 512 bytes holds about three frames. Whoever loses the mark too,
// or has a log that an earlier version wrote last, loses all frames in the
// zeroed block: 19 of one decision each in 4096 bytes. An idle log also writes a
// frame that only confirms the one before.
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
// log of the same identity, and a restored backup has forgotten what was decided
// since: run beside the original, or after it, it would roll back what the original
// committed. Open refuses a copy made file by file with [ErrCopied], until an
// operator says that it is meant. It does not notice a clone or a snapshot of the
// whole file system, nor copies where inodes do not last (FUSE, overlayfs, network
// file systems, memory).
package filelog
