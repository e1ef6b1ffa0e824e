package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/embedded"
	"github.com/troth-tx/troth/store/memory"
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

// openStore opens what a storeAddress says. The caller closes it.
func openStore(ctx context.Context, s storeAddress, log *slog.Logger) (store.Store, error) {
	switch s.kind {
	case storeMemory:
		return memory.New(), nil
	case storeDatabase:
		return nil, errors.New("databases as stores are not there yet")
	case storeDirectory:
	}
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o700); err != nil {
		return nil, fmt.Errorf("--store: %w", err)
	}
	st, err := embedded.Open(ctx, s.dir, &embedded.Options{Logger: log})
	if err != nil {
		return nil, err // not st: a nil pointer in an interface is not nil
	}
	return st, nil
}
