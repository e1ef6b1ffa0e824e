package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// ServerOptions are the options of a store on a server, which the packages postgres and
// mysql explain.
type ServerOptions struct {
	NoCreate bool
	Writers  int
	Timeout  time.Duration
	Allow    []string
	Logger   *slog.Logger
}

// Open opens a store on a server.
func Open(ctx context.Context, d Dialect, db *sql.DB, o ServerOptions) (*Store, error) {
	if o.Writers <= 0 {
		o.Writers = 1
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if limit := db.Stats().MaxOpenConnections; limit > 0 && limit < o.Writers+2 {
		return nil, fmt.Errorf("store: the pool allows %d connections, and %d writers need %d: raise it with SetMaxOpenConns, or have fewer writers",
			limit, o.Writers, o.Writers+2)
	}
	if err := checkSettings(ctx, d, db, o.Allow); err != nil {
		return nil, err
	}
	if err := Migrate(ctx, d, db, !o.NoCreate); err != nil {
		return nil, err
	}
	return New(d, Config{Read: db, Write: db, Writers: o.Writers, Timeout: o.Timeout, Logger: o.Logger}), nil
}

// A setting of a server, which does harm unless it is one of good. A missing one is good.
type setting struct {
	name string
	good []string
	harm string
	fix  string
}

// The harm of settings.
const (
	harmLost = "a crash can lose what was confirmed"
	harmOld  = "what is read can be old, or never have been"
)

// checkSettings refuses settings under which what was confirmed can be lost, or what is
// read is not what was confirmed.
func checkSettings(ctx context.Context, d Dialect, db *sql.DB, allow []string) error {
	text, settings := d.settings()
	rows, err := db.QueryContext(ctx, text)
	values := make(map[string]string)
	_, err = scanAll(rows, err, func(rows *sql.Rows) (name string, err error) {
		var value string
		err = rows.Scan(&name, &value)
		values[name] = strings.ToLower(value)
		return name, err
	})
	if err != nil {
		return fmt.Errorf("store: read the server's settings: %w", err)
	}
	if values["log_bin"] == "off" {
		delete(values, "sync_binlog")
	}
	var bad []error
	for _, s := range settings {
		value, ok := values[s.name]
		if ok && !slices.Contains(s.good, value) && !slices.Contains(allow, s.name) {
			bad = append(bad, fmt.Errorf("store: %s is %s, and %s: %s, or accept it in Options.Allow", s.name, value, s.harm, s.fix))
		}
	}
	return errors.Join(bad...)
}
