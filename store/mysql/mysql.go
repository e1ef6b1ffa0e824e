// Package mysql is a store.Store in a MySQL 8 or MariaDB database, MariaDB from 10.6 on.
// Any number of processes may share it.
//
//	db, err := sql.Open("mysql", "user:password@tcp(host)/database")
//	s, err := mysql.Open(ctx, db, nil)
//
// The driver is github.com/go-sql-driver/mysql, with its default character set. The view
// troth_overview is for people.
package mysql

import (
	"context"
	"database/sql"
	"log/slog"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/internal/sqlstore"
)

// Options are what may be changed. Zero fields have defaults.
type Options struct {
	// NoCreate says that the tables are there, because somebody ran the SQL of Schema:
	// then Open needs no right to make any, and fails if they are not up to date.
	NoCreate bool

	// Writers is how many transactions of the database write at a time, each with many
	// callers' changes, and on a connection of its own. One more connection does other
	// work. More of them make smaller batches, which costs both sides: raise it only
	// where the server is far away or slow to sync, and has processors to spare.
	// Defaults to 1.
	Writers int

	// Timeout is how long one transaction of the database may take. Defaults to 30 s.
	Timeout time.Duration

	// Allow names settings of the server that are accepted although a crash can lose
	// with them what was confirmed: "innodb_flush_log_at_trx_commit", "sync_binlog"; or
	// although what is read with them can be old: "wsrep_on", "autocommit",
	// "tx_isolation", "transaction_isolation".
	Allow []string

	// Logger hears of what a person should know. Nil is silent.
	Logger *slog.Logger
}

// A Store is a store.Store in MySQL or MariaDB.
type Store struct{ *sqlstore.Store }

var _ store.Store = (*Store)(nil)

// Open opens the store in the database of db, and makes or upgrades its tables unless
// NoCreate says not to. It refuses tables of a newer program, and a server that can lose
// what it confirmed, or whose sessions read what is not so. db stays open until its owner
// closes it, after the store; it must allow more connections than Writers. Nil options are
// the defaults.
func Open(ctx context.Context, db *sql.DB, options *Options) (*Store, error) {
	var o Options
	if options != nil {
		o = *options
	}
	s, err := sqlstore.Open(ctx, sqlstore.MySQL{}, db, sqlstore.ServerOptions(o))
	if err != nil {
		return nil, err
	}
	return &Store{s}, nil
}

// Schema is the SQL that makes the tables, for NoCreate. A later version of troth may
// need more: it says so, and its Schema has all from the beginning.
func Schema() string { return sqlstore.Schema(sqlstore.MySQL{}) }
