package sqlstore

import (
	"context"
	"strings"
)

// mysqlOnceMax is how many changes a block has at most: it writes them one by one, and
// more of them are quicker in the few statements of the usual way.
const mysqlOnceMax = 8

func (MySQL) onceMax() int { return mysqlOnceMax }

// refused: what is given as the reason here was met before the COMMIT and the block has
// rolled back, or the server rolled back in place of the COMMIT. An error that leaves the
// COMMIT in doubt, that of a server that ends, or of a statement that was killed, is none
// of these.
func (MySQL) refused(err error) bool {
	return numberIn(
		err,
		1064, 1295, // the block itself: MySQL has none outside of routines
		1644,                   // a save that came too late, or whose transaction is not there
		1062,                   // the transaction exists
		1213, 1205, 1020, 1637, // other transactions are in the way
		1048, 1264, 1364, 1366, 1406, 4025, // values that cannot be
		1044, 1142, 1143, 1290, 1792, 1836, // no right to write, or nobody has it
		1114, // no room
	)
}

// The parts of the block. A save that is not based on the version that is there ends it.
const (
	mysqlOnceBegin = "BEGIN NOT ATOMIC DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END; "
	mysqlOnceSave  = "UPDATE troth_transaction SET state = ?, version = ?, attempts = ?, updated = ?, finished = ?, due = ?, leased = ?," +
		" reason = ?, progress = ? WHERE gid = ? AND version = ? AND created = ?; IF ROW_COUNT() <> 1 THEN SIGNAL SQLSTATE '45000'; END IF; "
	mysqlOnceAdd = "INSERT INTO troth_addition (seq, part, content) SELECT seq, ?, ? FROM troth_transaction WHERE gid = ?; "
	mysqlOnceEnd = "COMMIT; END"
)

// once is a block of statements that MariaDB prepares and runs as one. All of it is
// written, or nothing: who has lost, and why, the usual way finds out.
func (MySQL) once(ctx context.Context, s *session, rows []*row) (written []string, err error) {
	var inserts, updates []*row
	parts := 0
	for _, r := range rows {
		if parts += len(r.parts); r.insert {
			inserts = append(inserts, r)
		} else {
			updates = append(updates, r)
		}
		written = append(written, r.gid)
	}
	s.args = s.args[:0]
	for _, r := range inserts {
		s.args = r.appendInsert(s.args)
	}
	for _, r := range inserts {
		s.args = append(s.args, r.seq, r.definition)
	}
	for _, r := range updates {
		s.args = append(s.args, int64(r.state), r.version, int64(r.attempts), r.updated, r.finished, r.due, r.leased,
			r.reason, r.progress, r.gid, r.before.version, r.created)
	}
	for _, r := range updates {
		for _, p := range r.parts {
			s.args = append(s.args, p.number, p.content, r.gid)
		}
	}
	// No change has more than one part, so these are few.
	shape := (len(inserts)*(mysqlOnceMax+1)+len(updates))*(mysqlOnceMax+1) + parts
	_, err = s.exec(ctx, s.text("once", shape, func(int) string { return mysqlBlock(len(inserts), len(updates), parts) }), s.args...)
	s.plain = numberIn(err, 1064, 1295)
	return written, err
}

func mysqlBlock(inserts, updates, parts int) string {
	var b strings.Builder
	b.WriteString(mysqlOnceBegin)
	if inserts > 0 {
		b.WriteString(mysqlInsert + repeated(mysqlRow, inserts) + "; " + mysqlDefine + repeated("(?, ?)", inserts) + "; ")
	}
	b.WriteString(strings.Repeat(mysqlOnceSave, updates))
	b.WriteString(strings.Repeat(mysqlOnceAdd, parts))
	b.WriteString(mysqlOnceEnd)
	return b.String()
}

// present is not asked: once writes all or nothing.
func (MySQL) present(context.Context, *session, []string) ([]string, error) { return nil, errUsual }
