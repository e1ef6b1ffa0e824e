// Package embedded is a store.Store in one directory, without a server: a SQLite
// database that only this process has open.
//
//	s, err := embedded.Open(ctx, "/var/lib/troth", nil)
//
// What it confirms is on disk: it survives the death of the process and of the
// machine. Changes that come at the same time share one sync.
//
// The directory holds the file troth.db, and beside it while the store is open, or was
// not closed, troth.db-wal and troth.db-shm, which belong to it: whoever copies the
// directory of a running store must use SQLite's own means, such as VACUUM INTO. Any
// SQLite shell can read troth_overview there, and the tables.
package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"time"

	"modernc.org/sqlite"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/internal/sqlstore"
)

// ErrLocked is wrapped by the error of Open if another process has the directory open.
var ErrLocked = errors.New("store: another process has the directory open")

// Options are what may be changed. Zero fields have defaults.
type Options struct {
	// Readers is how many reads are under way at a time. Defaults to 4.
	Readers int

	// Logger hears of what a person should know. Nil is silent.
	Logger *slog.Logger

	// Now is the clock by which leases end when the store is opened. Defaults to
	// time.Now.
	Now func() time.Time
}

// A Store is a store.Store in a directory. Reads do not wait for writes.
type Store struct{ *sqlstore.Store }

var _ store.Store = (*Store)(nil)

// Open opens the store in a directory, and makes both if they are not there; the
// directory's parent must be. The directory is this process's until the store is closed
// or the process ends, so every lease ends: what was leased is due now.
//
// The directory gets the mode 0700 and the files 0600. Open refuses a symbolic link,
// a directory that others may write to, and one that another process has open
// (ErrLocked). ctx bounds the opening alone. Nil options are the defaults.
func Open(ctx context.Context, dir string, options *Options) (*Store, error) {
	var o Options
	if options != nil {
		o = *options
	}
	if o.Readers <= 0 {
		o.Readers = 4
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, d, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: open %s: %w", d.path, err), d.close())
	}
	return s, nil
}

func open(ctx context.Context, d *directory, o Options) (*Store, error) {
	// The paths are made absolute, so that a later change of the working directory
	// does not matter.
	path, err := filepath.Abs(filepath.Join(d.path, fileName))
	if err != nil {
		return nil, err
	}
	write, err := connect(path, writerPragmas, 1)
	if err != nil {
		return nil, err
	}
	read, err := connect(path, readerPragmas, o.Readers)
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	closeAll := func() error { return errors.Join(read.Close(), write.Close(), d.close()) }
	closeDBs := func() error { return errors.Join(read.Close(), write.Close()) }
	if err := prepareFile(ctx, write); err != nil {
		return nil, errors.Join(err, closeDBs())
	}
	s := &Store{sqlstore.New(sqlstore.SQLite{}, sqlstore.Config{
		Read: read, Write: write, CloseDB: closeAll, Sole: true, Logger: o.Logger,
	})}
	if err := s.EndLeases(ctx, o.Now()); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// prepareFile refuses a damaged or foreign file, and brings the tables up to date.
func prepareFile(ctx context.Context, db *sql.DB) error {
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the journal is %q: want wal, which needs a local disk that can share memory", mode)
	}
	return sqlstore.Migrate(ctx, sqlstore.SQLite{}, db, true)
}

// Pragmas of the connections. The write-ahead log is synced at every commit (FULL), and
// copied into the file when it has 32 MiB: pages that change often are copied once.
const cacheOfWriter, cacheOfReader = "-16384", "-2048" // KiB

var (
	writerPragmas = []string{
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(" + cacheOfWriter + ")",
		"wal_autocheckpoint(8192)", "journal_size_limit(67108864)", "temp_store(MEMORY)", "trusted_schema(OFF)",
	}
	readerPragmas = []string{
		"busy_timeout(10000)", "query_only(ON)", "cache_size(" + cacheOfReader + ")", "temp_store(MEMORY)", "trusted_schema(OFF)",
	}
)

func connect(path string, pragmas []string, connections int) (*sql.DB, error) {
	values := url.Values{"_pragma": pragmas}
	// "file:" with an escaped path: a "?" or "%" in a directory's name stays its own.
	dsn := (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: values.Encode()}).String()
	connector, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}
