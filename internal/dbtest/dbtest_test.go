package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// engine is what the tests below need to treat both engines alike.
type engine struct {
	Server interface {
		Stop(ctx context.Context) error
		Kill() error
		Restart(ctx context.Context) error
		Freeze() error
		Thaw() error
		Running() bool
		Addr() string
		MustOwn(t testing.TB)
	}
	driver, dsn string
	prepare     []string // statements
	prepared    func(ctx context.Context, db *sql.DB) ([]string, error)
}

func (e engine) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open(e.driver, e.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func engines(t *testing.T) map[string]func(t *testing.T) engine {
	t.Helper()
	return map[string]func(t *testing.T) engine{
		"postgres": func(t *testing.T) engine {
			p := SharedPostgres(t, 0)
			return engine{
				Server: p, driver: "pgx", dsn: p.NewDatabase(t),
				prepare: []string{"BEGIN", "INSERT INTO t VALUES (2)", "PREPARE TRANSACTION 'g'"},
				prepared: func(ctx context.Context, db *sql.DB) ([]string, error) {
					return queryStrings(ctx, db, "SELECT gid FROM pg_prepared_xacts")
				},
			}
		},
		"mariadb": func(t *testing.T) engine {
			m := SharedMariaDB(t, 0)
			return engine{
				Server: m, driver: "mysql", dsn: m.NewDatabase(t),
				prepare: []string{"XA START 'g'", "INSERT INTO t VALUES (2)", "XA END 'g'", "XA PREPARE 'g'"},
				prepared: func(ctx context.Context, db *sql.DB) ([]string, error) {
					return queryStrings(ctx, db, "XA RECOVER")
				},
			}
		},
	}
}

func TestCrashKeepsWhatWasAcknowledged(t *testing.T) {
	for name, setup := range engines(t) {
		t.Run(name, func(t *testing.T) {
			e := setup(t)
			e.Server.MustOwn(t)
			addr := e.Server.Addr()
			writeAndPrepare(t, e)

			if err := e.Server.Kill(); err != nil {
				t.Fatal(err)
			}
			if e.Server.Running() {
				t.Error("runs after Kill")
			}
			if err := e.Server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			requireKept(t, e)

			if err := e.Server.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := e.Server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			requireKept(t, e)
			if got := e.Server.Addr(); got != addr {
				t.Errorf("address changed from %s to %s", addr, got)
			}
		})
	}
}

func writeAndPrepare(t *testing.T, e engine) {
	t.Helper()
	conn, err := e.open(t).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	statements := append([]string{"CREATE TABLE t (n int PRIMARY KEY)", "INSERT INTO t VALUES (1)"}, e.prepare...)
	for _, statement := range statements {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func requireKept(t *testing.T, e engine) {
	t.Helper()
	db := e.open(t)
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT n FROM t").Scan(&n); err != nil || n != 1 {
		t.Errorf("committed row: got %d, %v; want 1", n, err)
	}
	if found, err := e.prepared(t.Context(), db); err != nil || len(found) != 1 {
		t.Errorf("prepared: got %q, %v; want one", found, err)
	}
}

func TestFrozenServerAnswersAfterThaw(t *testing.T) {
	for name, setup := range engines(t) {
		t.Run(name, func(t *testing.T) {
			e := setup(t)
			e.Server.MustOwn(t)
			db := e.open(t)
			if err := db.PingContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := e.Server.Freeze(); err != nil {
				t.Fatal(err)
			}
			answered := make(chan error, 1)
			go func() {
				_, err := db.ExecContext(context.WithoutCancel(t.Context()), "SELECT 1")
				answered <- err
			}()
			select {
			case err := <-answered:
				t.Errorf("a frozen server answered (%v)", err)
			case <-time.After(300 * time.Millisecond): // silence has no signal to wait for
			}
			if err := e.Server.Thaw(); err != nil {
				t.Fatal(err)
			}
			if err := <-answered; err != nil {
				t.Error(err)
			}
			// A frozen server can be killed, and comes back.
			if err := e.Server.Freeze(); err != nil {
				t.Fatal(err)
			}
			if err := e.Server.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := e.Server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestPostgresServersDiffer(t *testing.T) {
	identifiers := map[string]bool{}
	for i := range 2 {
		p := SharedPostgres(t, i)
		for _, one := range settings(t, "pgx", p.DSN("postgres"), "SELECT system_identifier::text FROM pg_control_system()") {
			identifiers[one] = true
		}
	}
	if len(identifiers) != 2 {
		t.Errorf("system identifiers of two servers: %v", identifiers)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	p, err := StartPostgres(t.Context(), PostgresConfig{Settings: map[string]string{"max_prepared_transactions": "0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	m, err := StartMariaDB(t.Context(), MariaDBConfig{LogBin: true, Settings: map[string]string{"innodb-lock-wait-timeout": "7"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()

	got := settings(t, "pgx", p.DSN("postgres", "application_name=x y"),
		"SHOW max_prepared_transactions", "SHOW fsync", "SHOW application_name")
	got = append(got, settings(t, "mysql", m.DSN("", "lock_wait_timeout=9"),
		"SELECT @@innodb_lock_wait_timeout", "SELECT @@log_bin", "SELECT @@sync_binlog", "SELECT @@lock_wait_timeout",
		"SELECT @@innodb_flush_log_at_trx_commit")...)
	if s := strings.Join(got, ","); s != "0,on,x y,7,1,1,9,1" {
		t.Errorf("settings: %s", s)
	}

	p.NewDatabase(t) // gone with its server, which is no error
	m.NewDatabase(t)
	dir := m.Dir()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory after Close: %v", err)
	}
}

func settings(t *testing.T, driver, dsn string, queries ...string) []string {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var all []string
	for _, query := range queries {
		got, err := queryStrings(t.Context(), db, query)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		all = append(all, got...)
	}
	return all
}

// queryStrings returns the last column of all rows.
func queryStrings(ctx context.Context, db *sql.DB, query string) ([]string, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var last string
	dest := make([]any, len(columns))
	for i := range dest {
		dest[i] = new(any)
	}
	dest[len(dest)-1] = &last
	var all []string
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		all = append(all, last)
	}
	return all, rows.Err()
}

func TestDatabaseIsDroppedWithWhatIsPrepared(t *testing.T) {
	for name, setup := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Run("user", func(t *testing.T) { writeAndPrepare(t, setup(t)) })
			e := setup(t)
			if found, err := e.prepared(t.Context(), e.open(t)); err != nil || len(found) != 0 {
				t.Errorf("prepared branches outlived their database: %q, %v", found, err)
			}
		})
	}
}

func TestExternalServersAreUsedAndLeftAlone(t *testing.T) {
	p, err := externalPostgres(SharedPostgres(t, 0).DSN("postgres", "application_name=ext"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := externalMariaDB(SharedMariaDB(t, 0).DSN("", "lock_wait_timeout=9"))
	if err != nil {
		t.Fatal(err)
	}
	got := settings(t, "pgx", p.NewDatabase(t), "SHOW application_name")
	got = append(got, settings(t, "mysql", m.NewDatabase(t), "SELECT @@lock_wait_timeout")...)
	if s := strings.Join(got, ","); s != "ext,9" {
		t.Errorf("settings: %s", s)
	}
	for _, err := range []error{p.Kill(), p.Stop(t.Context()), p.Restart(t.Context()), m.Freeze(), m.Thaw()} {
		if !errors.Is(err, ErrExternal) {
			t.Errorf("got %v, want ErrExternal", err)
		}
	}
	if err := errors.Join(p.Close(), m.Close()); err != nil {
		t.Error(err)
	}
	t.Setenv(envMySQL, "a,b")
	if second, err := externalName(envMySQL, 1); second != "b" || err != nil {
		t.Errorf("second name: %q, %v", second, err)
	}
	if _, err := externalName(envMySQL, 2); err == nil {
		t.Error("a third of two names is no error")
	}
}

func TestMissingServerSaysWhatToDo(t *testing.T) {
	t.Setenv("TROTH_MARIADB_BIN", t.TempDir())
	_, err := StartMariaDB(t.Context(), MariaDBConfig{})
	if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), "run scripts/setup") {
		t.Errorf("got %v", err)
	}
}
