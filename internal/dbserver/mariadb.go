package dbserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// MariaDBConfig configures a MariaDB server.
type MariaDBConfig struct {
	// Settings are options of the server, with "_" or "-" between words. They
	// replace our own: max_connections 300, a small buffer pool,
	// innodb_flush_log_at_trx_commit 1.
	Settings map[string]string
	// LogBin switches the binary log on, synced at every commit. Crash recovery
	// of XA transactions takes another way then.
	LogBin bool
	// Env and Dir are as in [PostgresConfig].
	Env []string
	Dir string
}

// MariaDB is a running MariaDB server. Its user is "root", without a password.
type MariaDB struct {
	server
	externalDSN *mysql.Config
}

// StartMariaDB starts a new MariaDB server and returns once it answers. ctx
// bounds the start alone; the server runs until Close or until this process
// ends.
func StartMariaDB(ctx context.Context, cfg MariaDBConfig) (*MariaDB, error) {
	daemon, install, err := findMariaDB()
	if err != nil {
		return nil, err
	}
	acct, err := findAccount("mysql")
	if err != nil {
		return nil, err
	}
	m := &MariaDB{server: server{engine: "mariadb", account: acct, env: cfg.Env, stopSignal: syscall.SIGTERM}}
	m.configure = func() error { return m.writeConfig(cfg) }
	m.command = func() (string, []string) {
		return daemon, []string{"--defaults-file=" + m.configFile()}
	}
	m.ping = m.pingSQL
	if err := m.prepare(cfg.Dir); err != nil {
		return nil, m.closeAfter(err)
	}
	err = m.fillFromTemplate(ctx, install, "--no-defaults", "--datadir="+m.dataDir(),
		"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
		"--innodb-log-file-size="+mariadbLogSize)
	if err == nil {
		err = m.startFirst(ctx)
	}
	if err != nil {
		return nil, m.closeAfter(err)
	}
	return m, nil
}

// ExternalMariaDB returns a server that runs already: dsn is a data source name
// of go-sql-driver/mysql. Its user must be allowed to make databases.
func ExternalMariaDB(dsn string) (*MariaDB, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil { // not shown: it may hold a password
		return nil, errors.New("dbserver: want a data source name such as user:password@tcp(host:3306)/")
	}
	return &MariaDB{server: server{engine: "mariadb", external: true, address: cfg.Addr}, externalDSN: cfg}, nil
}

// mariadbLogSize is a sixth of the default, as every start copies it.
const mariadbLogSize = "16M"

func findMariaDB() (daemon, install string, err error) {
	path := os.Getenv("PATH") + ":/usr/sbin:/usr/libexec:/usr/local/sbin"
	if dir := os.Getenv("TROTH_MARIADB_BIN"); dir != "" {
		path = dir
	}
	find := func(name string) string {
		for _, dir := range filepath.SplitList(path) {
			if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return found
			}
		}
		return ""
	}
	daemon, install = find("mariadbd"), find("mariadb-install-db")
	if daemon == "" || install == "" {
		return "", "", fmt.Errorf("MariaDB server: %w (or set TROTH_MARIADB_BIN to the directory of mariadbd and mariadb-install-db)", ErrNotInstalled)
	}
	return daemon, install, nil
}

func (m *MariaDB) configFile() string { return filepath.Join(m.dir, "my.cnf") }

func (m *MariaDB) writeConfig(cfg MariaDBConfig) error {
	all := map[string]string{
		"datadir":                        m.dataDir(),
		"socket":                         m.Socket(),
		"pid_file":                       filepath.Join(m.dir, "pid"),
		"bind_address":                   "127.0.0.1",
		"skip_name_resolve":              "ON",
		"innodb_flush_log_at_trx_commit": "1",
		"innodb_buffer_pool_size":        "32M",
		"innodb_log_file_size":           mariadbLogSize,
		"max_connections":                "300",
		"server_id":                      strconv.Itoa(m.port), // differs among the servers of one machine
	}
	if cfg.LogBin {
		all["log_bin"] = filepath.Join(m.dataDir(), "binlog")
		all["sync_binlog"] = "1"
	}
	for key, value := range cfg.Settings {
		all[strings.ReplaceAll(key, "-", "_")] = value
	}
	all["port"] = strconv.Itoa(m.port)
	var b strings.Builder
	b.WriteString("[mariadbd]\n")
	for _, key := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s = %s\n", key, all[key])
	}
	if err := os.WriteFile(m.configFile(), []byte(b.String()), 0o600); err != nil {
		return err
	}
	return m.account.own(m.configFile())
}

func (m *MariaDB) pingSQL(ctx context.Context) error {
	return m.withDB("", func(db *sql.DB) error { return db.PingContext(ctx) })
}

func (m *MariaDB) config(database string) *mysql.Config {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr = "root", "tcp", "127.0.0.1:"+strconv.Itoa(m.port)
	if m.externalDSN != nil {
		cfg = m.externalDSN.Clone()
	}
	cfg.DBName = database
	return cfg
}

// withDB calls f with a short-lived handle. It reads s.port without the mutex
// because starting holds that.
func (m *MariaDB) withDB(database string, f func(db *sql.DB) error) error {
	cfg := m.config(database)
	cfg.Logger = &mysql.NopLogger{} // a server that is starting breaks connections: not news
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer func() { _ = db.Close() }()
	return f(db)
}

// DSN returns the data source name of a database, as understood by
// go-sql-driver/mysql. params are "name=value" pairs such as "parseTime=true";
// values must be URL-encoded.
func (m *MariaDB) DSN(database string, params ...string) string {
	dsn := m.config(database).FormatDSN()
	if len(params) == 0 {
		return dsn
	}
	separator := "?"
	if strings.Contains(dsn, "?") {
		separator = "&"
	}
	return dsn + separator + strings.Join(params, "&")
}

// Socket returns the path of the unix socket.
func (m *MariaDB) Socket() string { return filepath.Join(m.dir, "sock") }

// CreateDatabase makes an empty database.
func (m *MariaDB) CreateDatabase(ctx context.Context, name string) error {
	return m.withDB("", func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "CREATE DATABASE "+quoteMariaDB(name))
		return err
	})
}

// DropDatabase removes a database and ends the sessions that use it. It fails
// after two seconds if a prepared branch still locks something there: which
// branches belong to a database MariaDB does not tell, so see
// [MariaDB.RollbackPrepared]. A database that does not exist is no error.
func (m *MariaDB) DropDatabase(ctx context.Context, name string) error {
	return m.withDB("", func(db *sql.DB) error {
		ids, err := sessions(ctx, db, func(_, database string) bool { return database == name })
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := killSession(ctx, db, id); err != nil {
				return err
			}
		}
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		if _, err := conn.ExecContext(ctx, "SET lock_wait_timeout = 2, innodb_lock_wait_timeout = 2"); err != nil {
			return err
		}
		_, err = conn.ExecContext(ctx, "DROP DATABASE IF EXISTS "+quoteMariaDB(name))
		return err
	})
}

// RollbackPrepared ends all sessions but its own and rolls back all prepared
// branches of the whole server, whoever made them.
func (m *MariaDB) RollbackPrepared(ctx context.Context) error {
	return m.withDB("", func(db *sql.DB) error {
		db.SetMaxOpenConns(1)
		var own string
		if err := db.QueryRowContext(ctx, "SELECT connection_id()").Scan(&own); err != nil {
			return err
		}
		ids, err := sessions(ctx, db, func(id, _ string) bool { return id != own })
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := killSession(ctx, db, id); err != nil {
				return err
			}
		}
		return rollbackAll(ctx, db)
	})
}

// sessions lists the ids of the sessions that want holds for, without the
// server's own threads. information_schema.processlist would be shorter and crashes
// the server (10.11.19) while sessions come and go.
func sessions(ctx context.Context, db *sql.DB, want func(id, database string) bool) ([]string, error) {
	rows, err := db.QueryContext(ctx, "SHOW PROCESSLIST")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // read to its end, or the error is Err's
	var ids []string
	for rows.Next() {
		var id, user string
		var database sql.NullString
		var rest sql.RawBytes
		if err := rows.Scan(&id, &user, &rest, &database, &rest, &rest, &rest, &rest, &rest); err != nil {
			return nil, err
		}
		if user != "system user" && want(id, database.String) {
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}

// rollbackAll tries again until none is left: as long as a session that was
// told to end is not gone, its branch is listed but "unknown".
func rollbackAll(ctx context.Context, db *sql.DB) error {
	for {
		xids, err := preparedXIDs(ctx, db)
		if err != nil || len(xids) == 0 {
			return err
		}
		for _, xid := range xids {
			_, err := db.ExecContext(ctx, "XA ROLLBACK "+xid)
			var answer *mysql.MySQLError
			// 1402: it had only read, and is gone now.
			if errors.As(err, &answer) && (answer.Number == 1402 || answer.Number == errUnknownXID) {
				continue
			}
			if err != nil {
				return fmt.Errorf("roll back prepared %s: %w", xid, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("prepared branches remain: %v: %w", xids, ctx.Err())
		case <-time.After(pingInterval):
		}
	}
}

const errUnknownXID = 1397

func killSession(ctx context.Context, db *sql.DB, id string) error {
	_, err := db.ExecContext(ctx, "KILL "+id)
	var answer *mysql.MySQLError
	if errors.As(err, &answer) && answer.Number == 1094 { // it ended by itself
		return nil
	}
	return err
}

// preparedXIDs returns all prepared branches as literals for XA statements.
func preparedXIDs(ctx context.Context, db *sql.DB) ([]string, error) {
	rows, err := db.QueryContext(ctx, "XA RECOVER")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var xids []string
	for rows.Next() {
		var format int64
		var gtridLen, bqualLen int
		var data []byte
		if err := rows.Scan(&format, &gtridLen, &bqualLen, &data); err != nil {
			return nil, err
		}
		if gtridLen+bqualLen > len(data) {
			return nil, fmt.Errorf("XA RECOVER: %d and %d bytes of %d", gtridLen, bqualLen, len(data))
		}
		xids = append(xids, fmt.Sprintf("X'%x',X'%x',%d", data[:gtridLen], data[gtridLen:gtridLen+bqualLen], format))
	}
	return xids, rows.Err()
}

func quoteMariaDB(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
