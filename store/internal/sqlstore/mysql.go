package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/pressly/goose/v3"
)

// MySQL is the dialect of MySQL 8 and MariaDB from 10.6 on.
type MySQL struct{}

var _ Dialect = MySQL{}

func (MySQL) name() string         { return "mysql" }
func (MySQL) goose() goose.Dialect { return goose.DialectMySQL }

func (MySQL) versionColumns() string {
	return "id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, version_id bigint NOT NULL, is_applied boolean NOT NULL," +
		" tstamp timestamp NULL DEFAULT now()"
}

// settings: reads take what the pool's sessions have. Where they do not commit by
// themselves, they see for ever what was there at their first.
func (MySQL) settings() (string, []setting) {
	committed := []string{"read-committed", "repeatable-read", "serializable"}
	const isolation = "leave the isolation level at its default, in the server's configuration and in the data source name"
	query := "SHOW SESSION VARIABLES WHERE Variable_name IN ('innodb_flush_log_at_trx_commit', 'log_bin', 'sync_binlog', 'wsrep_on'," +
		" 'autocommit', 'tx_isolation', 'transaction_isolation')"
	return query, []setting{
		{"innodb_flush_log_at_trx_commit", []string{"1"}, harmLost, "run SET GLOBAL innodb_flush_log_at_trx_commit = 1, and put it into the server's configuration"},
		{"sync_binlog", []string{"1"}, harmLost, "run SET GLOBAL sync_binlog = 1, and put it into the server's configuration"},
		{"wsrep_on", []string{"off"}, harmOld, "use a server that is not part of a Galera cluster, whose nodes can answer with old data"},
		{"autocommit", []string{"on"}, harmOld, "leave it on, in the server's configuration and in the data source name"},
		{"tx_isolation", committed, harmOld, isolation},
		{"transaction_isolation", committed, harmOld, isolation}, // its name in MySQL
	}
}

// lockSchema takes a lock of the server that is named for the database, and ends with
// its connection.
func (MySQL) lockSchema(ctx context.Context, db *sql.DB) (unlock func(), err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	const name = "CONCAT('troth-', SHA1(DATABASE()))"
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK("+name+", 60)").Scan(&got); err != nil || got.Int64 != 1 {
		return nil, errors.Join(errors.New("another process changes the tables for too long"), err, conn.Close())
	}
	return func() {
		_, _ = conn.ExecContext(context.WithoutCancel(ctx), "DO RELEASE_LOCK("+name+")") // else it ends with the connection
		_ = conn.Close()
	}, nil
}

// setup: READ COMMITTED, because a search for what is not there would lock the gap, and
// two stores would wait for each other's. Without autocommit the first statement begins
// a transaction, which saves a round trip. MySQL has no limit of idle transactions: to it
// the last setting is a comment.
func (MySQL) setup() []string {
	return []string{
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
		"SET SESSION autocommit = 0 /*M! , SESSION idle_transaction_timeout = 3 */",
	}
}

func (MySQL) prepares() bool       { return true }
func (MySQL) begin() string        { return "" }
func (MySQL) bind(s string) string { return s }

// again: a deadlock, a lock that was not given in time, a snapshot that is too old
// (MariaDB), or another store made the same thing meanwhile.
func (MySQL) again(err error) bool { return numberIn(err, 1213, 1205, 1020, 1062) }

func (MySQL) broken(error) bool { return false }

func (MySQL) readOnly(err error) bool { return numberIn(err, 1290, 1792, 1836) }

func (MySQL) skipLocked() string { return " FOR UPDATE SKIP LOCKED" }

func (MySQL) insertNew(into string) string { return "INSERT IGNORE INTO " + into }

func (MySQL) in(column string, numbers []int64) (string, []any) {
	return column + " IN (" + joined(numbers) + ")", nil
}

// rowsMax is how many rows a statement has at most: 14 arguments each, of 65,535.
const rowsMax = 64

func (MySQL) lookup(ctx context.Context, s *session, gids []string, found func(string, place)) error {
	for part := range slices.Chunk(gids, rowsMax) {
		n := len(part)
		if n > chunkStep { // the last one is asked for several times
			n = (n + chunkStep - 1) / chunkStep * chunkStep
		}
		// The index is forced so that only these rows are ever locked, in its order.
		text := s.text("lookup", n, func(n int) string {
			return "SELECT gid, seq, version, created FROM troth_transaction FORCE INDEX (troth_transaction_gid)" +
				" WHERE gid IN (" + repeated("?", n) + ") ORDER BY gid FOR UPDATE"
		})
		s.args = s.args[:0]
		for i := range n {
			s.args = append(s.args, part[min(i, len(part)-1)])
		}
		rows, err := s.query(ctx, text, s.args...)
		if err := scanPlaces(rows, err, found); err != nil {
			return err
		}
	}
	return nil
}

func scanPlaces(rows *sql.Rows, err error, found func(string, place)) error {
	_, err = scanAll(rows, err, func(rows *sql.Rows) (at place, err error) {
		var gid string
		err = rows.Scan(&gid, &at.seq, &at.version, &at.created)
		found(gid, at)
		return at, err
	})
	return err
}

const (
	mysqlInsert = "INSERT INTO troth_transaction (" + insertColumns + ") VALUES "
	mysqlDefine = "INSERT INTO troth_definition (seq, content) VALUES "
	// VALUES() is the one form that MySQL and MariaDB both have.
	mysqlUpdate = " ON DUPLICATE KEY UPDATE state = VALUES(state), version = VALUES(version), attempts = VALUES(attempts)," +
		" updated = VALUES(updated), finished = VALUES(finished), due = VALUES(due), leased = VALUES(leased)," +
		" reason = VALUES(reason), progress = VALUES(progress)"
)

var mysqlRow = "(" + repeated("?", insertCount) + ")"

func (m MySQL) insert(ctx context.Context, s *session, rows []*row) error {
	if err := m.write(ctx, s, "insert", "", rows); err != nil {
		return err
	}
	return chunks(len(rows), rowsMax, func(i int) int { return len(rows[i].definition) }, func(from, to int) error {
		text := s.text("define", to-from, func(n int) string {
			return mysqlDefine + repeated("(?, ?)", n)
		})
		s.args = s.args[:0]
		for _, r := range rows[from:to] {
			s.args = append(s.args, r.seq, r.definition)
		}
		_, err := s.exec(ctx, text, s.args...)
		return err
	})
}

// update writes rows that are there and locked, as an insertion that finds its place
// taken: neither database can update many rows with a value for each otherwise, in
// words that both understand.
func (m MySQL) update(ctx context.Context, s *session, rows []*row) error {
	return m.write(ctx, s, "update", mysqlUpdate, rows)
}

func (MySQL) write(ctx context.Context, s *session, name, end string, rows []*row) error {
	return chunks(len(rows), rowsMax, func(i int) int { return len(rows[i].progress) }, func(from, to int) error {
		text := s.text(name, to-from, func(n int) string { return mysqlInsert + repeated(mysqlRow, n) + end })
		s.args = s.args[:0]
		for _, r := range rows[from:to] {
			s.args = r.appendInsert(s.args)
		}
		_, err := s.exec(ctx, text, s.args...)
		return err
	})
}

func (MySQL) add(ctx context.Context, s *session, parts []part) error {
	return chunks(len(parts), rowsMax, func(i int) int { return len(parts[i].content) }, func(from, to int) error {
		text := s.text("add", to-from, func(n int) string {
			return "INSERT INTO troth_addition (seq, part, content) VALUES " + repeated("(?, ?, ?)", n)
		})
		s.args = s.args[:0]
		for _, p := range parts[from:to] {
			s.args = append(s.args, p.seq, p.number, p.content)
		}
		_, err := s.exec(ctx, text, s.args...)
		return err
	})
}
