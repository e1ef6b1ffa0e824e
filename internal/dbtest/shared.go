// Package dbtest gives tests real PostgreSQL and MariaDB servers, shared by the
// tests of a package, and databases of their own on them. The servers are those
// of package dbserver: see there for what they are and how they end.
//
// TROTH_TEST_POSTGRES and TROTH_TEST_MYSQL name servers to use instead.
package dbtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/troth-tx/troth/internal/dbserver"
)

// Servers to use instead of starting some: data source names, separated by
// commas, the first for index 0.
const (
	envPostgres = "TROTH_TEST_POSTGRES"
	envMySQL    = "TROTH_TEST_MYSQL"
)

const (
	cleanupTimeout = 2 * time.Minute
	leakTimeout    = 30 * time.Second
)

// ErrExternal and ErrNotInstalled are those of package dbserver.
var (
	ErrExternal     = dbserver.ErrExternal
	ErrNotInstalled = dbserver.ErrNotInstalled
)

// PostgresConfig configures a PostgreSQL server.
type PostgresConfig = dbserver.PostgresConfig

// MariaDBConfig configures a MariaDB server.
type MariaDBConfig = dbserver.MariaDBConfig

// Postgres is a running PostgreSQL server, with what tests want of it.
type Postgres struct{ *dbserver.Postgres }

// MariaDB is a running MariaDB server, with what tests want of it.
type MariaDB struct {
	*dbserver.MariaDB

	inUse  sync.Mutex // guards what follows, which is NewDatabase's
	users  int        // tests that have a database here and have not ended
	locked []string   // databases of ended tests that could not be removed yet
}

// StartPostgres is [dbserver.StartPostgres].
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	p, err := dbserver.StartPostgres(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Postgres{p}, nil
}

// StartMariaDB is [dbserver.StartMariaDB].
func StartMariaDB(ctx context.Context, cfg MariaDBConfig) (*MariaDB, error) {
	m, err := dbserver.StartMariaDB(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &MariaDB{MariaDB: m}, nil
}

var (
	sharedPostgres = pool[*Postgres]{
		engine: "PostgreSQL", variable: envPostgres, external: externalPostgres,
		start: func() (*Postgres, error) { return StartPostgres(context.Background(), PostgresConfig{}) },
	}
	sharedMariaDB = pool[*MariaDB]{
		engine: "MariaDB", variable: envMySQL, external: externalMariaDB,
		start: func() (*MariaDB, error) { return StartMariaDB(context.Background(), MariaDBConfig{}) },
	}
)

// pool holds the servers of one kind that a test binary shares among its tests.
type pool[S interface {
	Revive(ctx context.Context) error
	Close() error
}] struct {
	engine   string
	variable string // names servers to use instead
	external func(dsn string) (S, error)
	start    func() (S, error)

	mu      sync.Mutex // held while one starts: two cores start no faster together
	running map[int]S
}

// shared returns the i-th server, alive.
func (p *pool[S]) shared(t testing.TB, i int) S {
	t.Helper()
	s, err := p.get(i)
	if err == nil {
		err = s.Revive(context.Background())
	}
	if err != nil {
		t.Fatalf("%s server %d: %v", p.engine, i, err)
	}
	return s
}

func (p *pool[S]) get(i int) (S, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.running[i]; ok {
		return s, nil
	}
	dsn, err := externalName(p.variable, i)
	var s S
	switch {
	case err != nil:
		return s, err
	case dsn != "":
		s, err = p.external(dsn)
	default:
		s, err = p.start()
	}
	if err != nil {
		return s, err
	}
	if p.running == nil {
		p.running = map[int]S{}
	}
	p.running[i] = s
	return s, nil
}

func (p *pool[S]) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for i, s := range p.running {
		err = errors.Join(err, s.Close())
		delete(p.running, i)
	}
	return err
}

// Main runs the tests of a package, closes the shared servers and exits. If
// all tests passed it also demands that they left no goroutine behind:
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is [Main] for packages that have something to do before they exit with the
// code that it returns. ignore names goroutines that a library keeps for ever.
func Run(m *testing.M, ignore ...goleak.Option) int {
	ignore = append(ignore, goleak.IgnoreCurrent())
	code := m.Run()
	if err := errors.Join(sharedPostgres.close(), sharedMariaDB.close()); err != nil {
		fmt.Fprintln(os.Stderr, "dbtest: close shared servers:", err)
		code = max(code, 1)
	}
	if code == 0 {
		if err := leaks(ignore); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left behind by the tests:", err)
			code = 1
		}
	}
	return code
}

// leaks looks again for a while: goleak gives goroutines that are about to end less than
// a second, which a busy machine may not give them.
func leaks(ignore []goleak.Option) (err error) {
	for end := time.Now().Add(leakTimeout); time.Now().Before(end); {
		if err = goleak.Find(ignore...); err == nil {
			return nil
		}
	}
	return err
}

// SharedPostgres returns the i-th of the PostgreSQL servers that all tests of
// this binary share; it is started on first use and closed by [Main]. A test
// that kills or freezes one harms tests that run in parallel: give such tests
// an index of their own. A server that an earlier test left killed or frozen
// is brought back here.
func SharedPostgres(t testing.TB, i int) *Postgres {
	t.Helper()
	return sharedPostgres.shared(t, i)
}

// SharedMariaDB is [SharedPostgres] for MariaDB.
func SharedMariaDB(t testing.TB, i int) *MariaDB {
	t.Helper()
	return sharedMariaDB.shared(t, i)
}

// externalName returns the i-th name in the variable, and "" if it is not set.
func externalName(variable string, i int) (string, error) {
	value := os.Getenv(variable)
	if value == "" {
		return "", nil
	}
	names := strings.Split(value, ",")
	if i >= len(names) {
		return "", fmt.Errorf("%s names %d servers, and this test needs %d", variable, len(names), i+1)
	}
	return strings.TrimSpace(names[i]), nil
}

func externalPostgres(dsn string) (*Postgres, error) {
	p, err := dbserver.ExternalPostgres(dsn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", envPostgres, err)
	}
	return &Postgres{p}, nil
}

func externalMariaDB(dsn string) (*MariaDB, error) {
	m, err := dbserver.ExternalMariaDB(dsn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", envMySQL, err)
	}
	return &MariaDB{MariaDB: m}, nil
}

// MustOwn ends the test if the server was not started here, because the test
// needs to kill, stop or freeze it. In CI that is a failure: there, a test that
// did not run must not look like one that passed.
func (p *Postgres) MustOwn(t testing.TB) {
	t.Helper()
	mustOwn(t, p.External())
}

// MustOwn is [Postgres.MustOwn] for MariaDB.
func (m *MariaDB) MustOwn(t testing.TB) {
	t.Helper()
	mustOwn(t, m.External())
}

func mustOwn(t testing.TB, external bool) {
	t.Helper()
	if !external {
		return
	}
	const why = "NOT RUN: this test kills, stops or freezes its server, which an external one does not allow; unset " + envPostgres + " and " + envMySQL
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// NewDatabase makes a database for one test and returns its URL. It is removed
// when the test ends, with all that is prepared in it.
func (p *Postgres) NewDatabase(t testing.TB) string {
	t.Helper()
	name := databaseName()
	if err := p.CreateDatabase(t.Context(), name); err != nil {
		t.Fatalf("create database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		if p.Closed() {
			return
		}
		if err := p.Revive(ctx); err != nil {
			t.Errorf("bring PostgreSQL back to drop %s: %v", name, err)
			return
		}
		if err := p.DropDatabase(ctx, name); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})
	return p.DSN(name)
}

// NewDatabase makes a database for one test and returns its data source name.
// It is removed when the test ends. Prepared branches belong to the server, not
// to a database, and a test's branches cannot be told from those of another:
// they are rolled back, and databases they kept from being removed are removed,
// when the last test that has a database on this server ends. On an external
// server they are left alone, and a database they lock stays, with a message.
func (m *MariaDB) NewDatabase(t testing.TB) string {
	t.Helper()
	name := databaseName()
	m.inUse.Lock()
	m.users++
	m.inUse.Unlock()
	t.Cleanup(func() { m.dropForTest(t, name) })
	if err := m.CreateDatabase(t.Context(), name); err != nil {
		t.Fatalf("create database: %v", err)
	}
	return m.DSN(name)
}

func (m *MariaDB) dropForTest(t testing.TB, name string) {
	m.inUse.Lock()
	defer m.inUse.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	m.users--
	if m.Closed() {
		return
	}
	if err := m.Revive(ctx); err != nil {
		t.Errorf("bring MariaDB back to drop %s: %v", name, err)
		return
	}
	if m.users > 0 || m.External() {
		if err := m.DropDatabase(ctx, name); err == nil {
			return
		} else if m.External() {
			t.Logf("database %s stays on the external server: %v", name, err)
			return
		}
		m.locked = append(m.locked, name)
		return
	}
	if err := m.RollbackPrepared(ctx); err != nil {
		t.Errorf("clean up MariaDB: %v", err)
	}
	for _, name := range append(m.locked, name) {
		if err := m.dropAtLast(ctx, name); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	}
	m.locked = nil
}

// dropAtLast removes a database that nobody uses any more: a session that was told to end
// may hold its locks until it has undone its work.
func (m *MariaDB) dropAtLast(ctx context.Context, name string) error {
	for {
		err := m.DropDatabase(ctx, name)
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

func databaseName() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return "troth_test_" + hex.EncodeToString(b[:])
}
