package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/embedded"
	"github.com/troth-tx/troth/store/memory"
	"github.com/troth-tx/troth/store/mysql"
	"github.com/troth-tx/troth/store/postgres"
)

type storeKind uint8

const (
	storeDirectory storeKind = iota + 1
	storeDatabase
	storeMemory
)

// A storeAddress says where transactions are kept.
type storeAddress struct {
	kind  storeKind
	dir   string
	db    address
	shown string // without a password
}

// parseStore reads a directory or the address of a database. It touches neither.
func parseStore(text string) (storeAddress, error) {
	if text == "memory:" { // for tests: not in the help, as nobody wants to lose transactions
		return storeAddress{kind: storeMemory, shown: text}, nil
	}
	if scheme, _, ok := strings.Cut(text, "://"); !ok {
		dir, err := filepath.Abs(text)
		return storeAddress{kind: storeDirectory, dir: dir, shown: dir}, err
	} else if scheme != "postgres" && scheme != "postgresql" && scheme != "mysql" && scheme != "mariadb" {
		return storeAddress{}, errors.New("not a store that troth knows: write a directory, postgres://user@host/db or mysql://user@host/db")
	}
	db, err := parseAddress(text)
	return storeAddress{kind: storeDatabase, db: db, shown: db.shown}, err
}

// openedStore is a store with what it stands on, which is closed after it.
type openedStore struct {
	store.Store
	under func() error
}

// poolSize is how many connections a server's store may have: a few write for many, and
// as many read.
const poolSize = 16

// openStore opens what a storeAddress says. What would lose transactions in a crash is
// refused, unless unsafe names it (S13).
func openStore(ctx context.Context, s storeAddress, unsafe []string, log *slog.Logger) (o openedStore, err error) {
	o.under = func() error { return nil }
	switch s.kind {
	case storeMemory:
		o.Store = memory.New()
		return o, nil
	case storeDirectory:
		o.Store, err = openDirectory(ctx, s.dir, unsafe, log)
	case storeDatabase:
		var db *sql.DB
		if db, err = s.db.open(); err != nil {
			break
		}
		db.SetMaxOpenConns(poolSize)
		db.SetMaxIdleConns(poolSize)
		o.under = db.Close
		if o.Store, err = openDatabase(ctx, s.db.engine, db, unsafe, log); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		return o, fmt.Errorf("--store: %w", err)
	}
	return o, nil
}

// The concrete stores are not returned as they are: a nil pointer in an interface is
// not nil.

func openDatabase(ctx context.Context, e engine, db *sql.DB, unsafe []string, log *slog.Logger) (store.Store, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, storeOpenTimeout, fmt.Errorf("the database does not answer within %v", storeOpenTimeout))
	defer cancel()
	var s store.Store
	var err error
	switch e {
	case enginePostgres:
		s, err = postgres.Open(ctx, db, &postgres.Options{Allow: unsafe, Logger: log})
	case engineMySQL:
		s, err = mysql.Open(ctx, db, &mysql.Options{Allow: unsafe, Logger: log})
	case engineSQLite:
		err = errors.New("for a file name a directory: troth makes the file in it")
	}
	switch {
	case err == nil:
		return s, nil
	case strings.Contains(err.Error(), "Options.Allow"):
		return nil, fmt.Errorf("%w (here: --accept-unsafe NAME)", err)
	}
	return nil, explained(ctx, err)
}

const storeOpenTimeout = 30 * time.Second

// The names by which --accept-unsafe knows disks that forget or lie.
const (
	unsafeTmpfs   = "tmpfs"
	unsafeNetwork = "network-disk"
)

func openDirectory(ctx context.Context, dir string, unsafe []string, log *slog.Logger) (store.Store, error) {
	switch kind := diskOf(dir); {
	case kind == "" || slices.Contains(unsafe, kind):
	case kind == unsafeTmpfs:
		return nil, fmt.Errorf("%s is on a file system in memory: with the machine all transactions would be gone; name another directory, or say --accept-unsafe %s", dir, kind)
	default:
		return nil, fmt.Errorf("%s is on a disk of the network, whose locks and syncs cannot be relied on; name a directory on a disk of this machine, or a database as the store, or say --accept-unsafe %s", dir, kind)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	s, err := embedded.Open(ctx, dir, &embedded.Options{Logger: log})
	if err != nil {
		return nil, err
	}
	return s, nil
}
