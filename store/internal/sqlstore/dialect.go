package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"
)

// A Dialect is what differs between databases.
type Dialect interface {
	name() string // of the directory of its migrations
	goose() goose.Dialect
	versionColumns() string // of the table in which goose notes what it has done

	// settings is a query for names and values of settings that a session of the pool has,
	// and what they should be.
	settings() (query string, settings []setting)

	// lockSchema keeps other processes from changing tables meanwhile, where goose does not.
	lockSchema(ctx context.Context, db *sql.DB) (unlock func(), err error)

	// setup are the settings of a writer's session. One of them, where there is such a
	// thing: the database ends a session that has said nothing for 3 s in the middle of a
	// transaction. An engine that freezes there, or is cut off, would hold its locks for
	// as long, and all others of the store would wait for them. A writer takes
	// milliseconds. When a frozen one wakes its COMMIT fails, with an outcome that is not
	// known, and it reads what holds.
	setup() []string

	prepares() bool     // whether statements are prepared here; else the driver does it
	begin() string      // READ COMMITTED, for writing
	bind(string) string // a statement with "?" for the arguments

	// again reports whether a transaction that failed so, before its COMMIT, is to be
	// tried again: a deadlock, or somebody made the same thing meanwhile.
	again(error) bool

	// broken reports whether the database cannot be trusted until it is opened anew.
	broken(error) bool

	// readOnly reports whether the server takes no changes from this connection.
	readOnly(error) bool

	// lookup locks the transactions that are there, in the order of their gids, and
	// reports them. gids are sorted.
	lookup(ctx context.Context, s *session, gids []string, found func(gid string, at place)) error

	insert(ctx context.Context, s *session, rows []*row) error
	update(ctx context.Context, s *session, rows []*row) error
	add(ctx context.Context, s *session, parts []part) error

	// onceMax is how many rows may be given to once; 0: there is no such statement.
	onceMax() int

	// once writes rows of different transactions, in a statement that commits itself,
	// and returns the gids of those that it wrote: of an insert, unless there is one;
	// of others, if their versions are as before. It may as well refuse all of them if
	// one of them cannot be written so. It sets s.plain where the server does not know
	// such a statement.
	once(ctx context.Context, s *session, rows []*row) (written []string, err error)

	// refused reports whether the server said that once has done nothing, on a
	// connection that is still good. After any other error it may have been done.
	refused(error) bool

	// present returns those gids that are there: asked where once wrote only some.
	present(ctx context.Context, s *session, gids []string) ([]string, error)

	// in is a condition for one of some numbers, which are never none.
	in(column string, numbers []int64) (condition string, args []any)

	skipLocked() string           // ends a SELECT that takes what nobody has
	insertNew(into string) string // "INSERT INTO into ..." that does nothing if it is there
}

// Columns of the statements that write. Every dialect gives values in this order.
const (
	insertColumns = "seq, gid, owner, pattern, state, version, attempts, created, updated, finished, due, leased, reason, progress"
	insertCount   = 14
)

func (r *row) appendInsert(args []any) []any {
	return append(args, r.seq, r.gid, r.owner, int64(r.pattern), int64(r.state), r.version, int64(r.attempts),
		r.created, r.updated, r.finished, r.due, r.leased, r.reason, r.progress)
}

// pieces calls f for consecutive pieces of n rows that have at most statementMax bytes,
// unless one row alone has more. size tells a row's.
func pieces(n int, size func(i int) int, f func(from, to int) error) error {
	for from, to := 0, 0; from < n; from = to {
		for bytes := 0; to < n; to++ {
			if bytes += size(to); bytes > statementMax && to > from {
				break
			}
		}
		if err := f(from, to); err != nil {
			return err
		}
	}
	return nil
}

// chunks is pieces with lengths that come again, so that there are few different
// statements to prepare: up to most, a multiple of chunkStep or less than that.
func chunks(n, most int, size func(i int) int, f func(from, to int) error) error {
	return pieces(n, size, func(from, end int) error {
		for from < end {
			to := from + min(most, end-from)
			if to-from > chunkStep {
				to -= (to - from) % chunkStep
			}
			if err := f(from, to); err != nil {
				return err
			}
			from = to
		}
		return nil
	})
}

const chunkStep = 8

// statementMax is how many bytes a statement of several rows may have. The least that
// servers accept by default is 16 MiB (MariaDB).
const statementMax = 4 << 20

// repeated is a list of n times the text.
func repeated(text string, n int) string {
	return text + strings.Repeat(", "+text, n-1)
}

// mysqlNumber is the error number in a *mysql.MySQLError, whose field Number has no
// method; 0 if there is none. This package does not choose a driver.
func mysqlNumber(err error) uint64 {
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.Indirect(reflect.ValueOf(err))
		if v.Kind() != reflect.Struct {
			continue
		}
		if n := v.FieldByName("Number"); n.IsValid() && n.Kind() == reflect.Uint16 {
			return n.Uint()
		}
	}
	return 0
}

// sqlState is the SQLSTATE in an error of pgx; empty if there is none.
func sqlState(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// sqliteCode is the primary result code in an error of modernc.org/sqlite; 0 if there
// is none.
func sqliteCode(err error) int {
	var e interface{ Code() int }
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

func numberIn(err error, numbers ...uint64) bool { return slices.Contains(numbers, mysqlNumber(err)) }

func stateIn(err error, states ...string) bool { return slices.Contains(states, sqlState(err)) }
