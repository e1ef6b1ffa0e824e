package dbserver

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
)

// PostgresConfig configures a PostgreSQL server.
type PostgresConfig struct {
	// Settings are lines of postgresql.conf. They replace our own:
	// max_prepared_transactions 200, max_connections 200, a small buffer pool,
	// jit off, everything about durability on.
	Settings map[string]string
	// Env is added to the server's otherwise bare environment, as NAME=value. A
	// library named by LD_PRELOAD must be readable by the server's user.
	Env []string
	// Dir is where the server's own directory is made. Defaults to the
	// directory for temporary files. It must be short, because it is part of a
	// unix socket's path, and the server's user must be able to enter it.
	Dir string
}

// Postgres is a running PostgreSQL server. Its superuser is "postgres", and it
// asks for no password.
type Postgres struct {
	server
	externalURL *url.URL
}

// StartPostgres starts a new PostgreSQL server and returns once it answers.
// ctx bounds the start alone; the server runs until Close or until this
// process ends.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	acct, err := findAccount("postgres")
	if err != nil {
		return nil, err
	}
	p := &Postgres{server: server{
		engine: "postgres", account: acct, env: cfg.Env,
		stopSignal: syscall.SIGINT, // "fast": SIGTERM would wait for clients
	}}
	p.configure = func() error { return p.writeConfig(cfg.Settings) }
	p.command = func() (string, []string) {
		return filepath.Join(bin, "postgres"), []string{"-D", p.dataDir()}
	}
	p.ping = p.pingSQL
	if err := p.prepare(cfg.Dir); err != nil {
		return nil, p.closeAfter(err)
	}
	err = p.fillFromTemplate(ctx, filepath.Join(bin, "initdb"),
		"-D", p.dataDir(), "-U", "postgres", "-A", "trust", "--encoding=UTF8", "--locale=C")
	if err == nil {
		err = p.renewSystemIdentifier(ctx, filepath.Join(bin, "pg_resetwal"))
	}
	if err == nil {
		err = p.startFirst(ctx)
	}
	if err != nil {
		return nil, p.closeAfter(err)
	}
	return p, nil
}

// ExternalPostgres returns a server that runs already: dsn is a URL whose user
// may make databases.
func ExternalPostgres(dsn string) (*Postgres, error) {
	u, err := url.Parse(dsn)
	if err != nil || u.Host == "" { // not shown: it may hold a password
		return nil, errors.New("dbserver: want a URL such as postgres://user@host:5432/")
	}
	return &Postgres{server: server{engine: "postgres", external: true, address: u.Host}, externalURL: u}, nil
}

// findPostgres returns the directory of the server's programs. Debian keeps
// them out of PATH.
func findPostgres() (string, error) {
	if dir := os.Getenv("TROTH_POSTGRES_BIN"); dir != "" {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
			return "", fmt.Errorf("TROTH_POSTGRES_BIN: %w", err)
		}
		return dir, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right: no error
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4]) // not a number: sorts first
		return n
	}
	if len(found) > 0 {
		newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
		return filepath.Dir(newest), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", fmt.Errorf("PostgreSQL server: %w (or set TROTH_POSTGRES_BIN to the directory of initdb)", ErrNotInstalled)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}

func (p *Postgres) writeConfig(settings map[string]string) error {
	all := map[string]string{
		"listen_addresses":           "127.0.0.1",
		"unix_socket_directories":    p.dir,
		"fsync":                      "on",
		"synchronous_commit":         "on",
		"full_page_writes":           "on",
		"max_connections":            "200",
		"max_prepared_transactions":  "200",
		"shared_buffers":             "32MB",
		"jit":                        "off",
		"log_line_prefix":            "%m [%p] ",
		"dynamic_shared_memory_type": "mmap", // files of the data directory: nothing is left in /dev/shm by a kill
	}
	maps.Copy(all, settings)
	all["port"] = strconv.Itoa(p.port)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s = '%s'\n", key, strings.ReplaceAll(all[key], "'", "''"))
	}
	path := filepath.Join(p.dataDir(), "postgresql.conf")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return err
	}
	return p.account.own(path)
}

// renewSystemIdentifier makes a copy of the template a server of its own: two
// servers with one identifier would look like one, or like replicas. initdb
// alone sets the identifier, so it is changed in the control file (its first
// eight bytes, little-endian on all platforms we run on, under a CRC-32C that
// follows the data it covers), and pg_resetwal then writes it into the log.
func (p *Postgres) renewSystemIdentifier(ctx context.Context, resetwal string) error {
	path := filepath.Join(p.dataDir(), "global", "pg_control")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	// The place of the checksum depends on the version: it is where it matches.
	for at := 64; at+4 <= min(len(b), 512); at += 4 {
		if binary.NativeEndian.Uint32(b[at:]) != crc32.Checksum(b[:at], table) {
			continue
		}
		if _, err := rand.Read(b[:7]); err != nil { // not the highest byte: tools print it signed
			return err
		}
		binary.NativeEndian.PutUint32(b[at:], crc32.Checksum(b[:at], table))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
		return p.runTool(ctx, resetwal, "-f", "-D", p.dataDir())
	}
	return errors.New("dbserver: found no checksum in pg_control: this version of PostgreSQL is not known here")
}

func (p *Postgres) pingSQL(ctx context.Context) error {
	return p.withDB("postgres", func(db *sql.DB) error { return db.PingContext(ctx) })
}

// withDB calls f with a short-lived handle. It reads s.port without the mutex
// because starting holds that.
func (p *Postgres) withDB(database string, f func(db *sql.DB) error) error {
	db, err := sql.Open("pgx", p.DSN(database))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return f(db)
}

// DSN returns the URL of a database, as understood by pgx and lib/pq. params
// are "name=value" pairs.
func (p *Postgres) DSN(database string, params ...string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Path: "/" + database,
		Host: "127.0.0.1:" + strconv.Itoa(p.port), RawQuery: "sslmode=disable",
	}
	if p.externalURL != nil {
		u = *p.externalURL
		u.Path = "/" + database
	}
	query := u.Query()
	for _, param := range params {
		name, value, _ := strings.Cut(param, "=")
		query.Set(name, value)
	}
	// pgx takes a plus sign literally; Encode writes every space as one, and
	// every plus sign as %2B.
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return u.String()
}

// Socket returns the directory of the unix socket, for host= in a connection
// string.
func (p *Postgres) Socket() string { return p.dir }

// CreateDatabase makes an empty database.
func (p *Postgres) CreateDatabase(ctx context.Context, name string) error {
	return p.withDB("postgres", func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "CREATE DATABASE "+quotePostgres(name))
		return err
	})
}

// DropDatabase removes a database, prepared transactions and open sessions
// included. A database that does not exist is no error.
func (p *Postgres) DropDatabase(ctx context.Context, name string) error {
	const triesMax = 5 // a session that is just ending may still have prepared something
	var err error
	for range triesMax {
		if err = p.rollbackPrepared(ctx, name); err != nil {
			continue
		}
		err = p.withDB("postgres", func(db *sql.DB) error {
			_, err := db.ExecContext(ctx, "DROP DATABASE IF EXISTS "+quotePostgres(name)+" WITH (FORCE)")
			return err
		})
		if err == nil {
			return nil
		}
	}
	return err
}

// rollbackPrepared ends all prepared transactions of a database, which
// PostgreSQL allows only in a session of that database. Sessions end first,
// because one of them could be about to prepare.
func (p *Postgres) rollbackPrepared(ctx context.Context, database string) error {
	var exists bool
	err := p.withDB("postgres", func(db *sql.DB) error {
		const query = "SELECT count(pg_terminate_backend(pid)) >= 0, EXISTS (SELECT FROM pg_database WHERE datname = $1)" +
			" FROM pg_stat_activity WHERE datname = $1"
		var ignored bool
		return db.QueryRowContext(ctx, query, database).Scan(&ignored, &exists)
	})
	if err != nil || !exists {
		return err
	}
	return p.withDB(database, func(db *sql.DB) error {
		gids, err := queryStrings(ctx, db, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
		if err != nil {
			return err
		}
		for _, gid := range gids {
			if _, err := db.ExecContext(ctx, "ROLLBACK PREPARED '"+strings.ReplaceAll(gid, "'", "''")+"'"); err != nil {
				return fmt.Errorf("roll back prepared %s: %w", gid, err)
			}
		}
		return nil
	})
}

func quotePostgres(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func queryStrings(ctx context.Context, db *sql.DB, query string, args ...any) ([]string, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var all []string
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}
