package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"

	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/mysql"
	"github.com/troth-tx/troth/store/storetest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func database(tb testing.TB, dsn string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	db.SetMaxIdleConns(16)
	db.SetMaxOpenConns(16)
	return db
}

func open(tb testing.TB, db *sql.DB, o *mysql.Options) *mysql.Store {
	tb.Helper()
	s, err := mysql.Open(context.Background(), db, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func openNew(tb testing.TB) store.Store {
	return open(tb, database(tb, dbtest.SharedMariaDB(tb, 0).NewDatabase(tb)), nil)
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, openNew)
}

func BenchmarkGet(b *testing.B) { storetest.BenchGet(b, openNew) }

func BenchmarkSaga(b *testing.B) { storetest.Bench(b, openNew, dbtest.SharedMariaDB(b, 0).Dir()) }

// What the store confirmed outlives the server's death, and nothing is there by halves.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedMariaDB(t, 1)
	server.MustOwn(t)
	s := open(t, database(t, server.NewDatabase(t)), nil)
	storetest.Kills(t, s, server, 3)
}

func TestTwoStores(t *testing.T) {
	t.Parallel()
	dsn := dbtest.SharedMariaDB(t, 0).NewDatabase(t)
	// They make the tables at the same time.
	opened := make(chan store.Store, 2)
	for range 2 {
		db := database(t, dsn)
		go func() {
			s, err := mysql.Open(context.Background(), db, &mysql.Options{Writers: 2})
			if err != nil {
				t.Error(err)
				opened <- nil
				return
			}
			opened <- s
		}()
	}
	a, b := <-opened, <-opened
	if a == nil || b == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _, _ = a.Close(context.Background()), b.Close(context.Background()) })
	storetest.Shared(t, a, b)
}

// Somebody else can make the tables; without them Open says what is missing.
func TestNoCreate(t *testing.T) {
	t.Parallel()
	dsn := dbtest.SharedMariaDB(t, 0).NewDatabase(t)
	db := database(t, dsn)
	no := &mysql.Options{NoCreate: true}
	if _, err := mysql.Open(t.Context(), db, no); err == nil || !strings.Contains(err.Error(), "Schema()") {
		t.Errorf("Open without tables = %v, want what to do", err)
	}
	script := database(t, dsn+"?multiStatements=true") // as a client for people runs it
	if _, err := script.ExecContext(t.Context(), mysql.Schema()); err != nil {
		t.Fatal(err)
	}
	s := open(t, db, no)
	if err := s.Create(t.Context(), &store.Transaction{GID: "a", Pattern: store.Saga, State: store.Failed, Created: time.Unix(1, 0)}); err != nil {
		t.Fatal(err)
	}
	var row string
	err := db.QueryRowContext(t.Context(), "SELECT CONCAT_WS(' ', gid, pattern, state, ROUND(UNIX_TIMESTAMP(created))) FROM troth_overview").Scan(&row)
	if err != nil || row != "a saga failed 1" {
		t.Errorf("the overview has %q, %v", row, err)
	}
	open(t, db, nil) // there is nothing left to make
	if _, err := db.ExecContext(t.Context(), "INSERT INTO troth_schema_version (version_id, is_applied) VALUES (9999, TRUE)"); err != nil {
		t.Fatal(err)
	}
	if _, err := mysql.Open(t.Context(), db, nil); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("Open of a newer program's tables = %v, want a refusal", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	server, err := dbtest.StartMariaDB(t.Context(), dbtest.MariaDBConfig{Settings: map[string]string{"innodb_flush_log_at_trx_commit": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	db := database(t, server.DSN("mysql"))
	if _, err := mysql.Open(t.Context(), db, nil); err == nil || !strings.Contains(err.Error(), "innodb_flush_log_at_trx_commit is 2") {
		t.Errorf("Open of a server without fsync = %v, want a refusal", err)
	}
	open(t, db, &mysql.Options{Allow: []string{"innodb_flush_log_at_trx_commit"}})
	for name, value := range map[string]string{"autocommit": "0", "tx_isolation": "'READ-UNCOMMITTED'"} {
		sessions := database(t, server.DSN("mysql")+"?"+name+"="+url.QueryEscape(value))
		if _, err := mysql.Open(t.Context(), sessions, &mysql.Options{Allow: []string{"innodb_flush_log_at_trx_commit"}}); err == nil || !strings.Contains(err.Error(), name+" is") {
			t.Errorf("Open with %s = %s: %v, want a refusal", name, value, err)
		}
	}
	db.SetMaxOpenConns(2)
	if _, err := mysql.Open(t.Context(), db, &mysql.Options{Allow: []string{"innodb_flush_log_at_trx_commit"}}); err == nil || !strings.Contains(err.Error(), "SetMaxOpenConns") {
		t.Errorf("Open of a pool that is too small = %v, want a refusal", err)
	}
}

func TestServerFrozen(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedMariaDB(t, 2)
	server.MustOwn(t)
	storetest.Frozen(t, open(t, database(t, server.NewDatabase(t)), nil), server)
}

// A value that the server refuses, by ending the connection, harms nobody else's change.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	s := openNew(t)
	x := &store.Transaction{GID: "large", Pattern: store.Workflow, State: store.Prepared, Created: time.Unix(1, 0)}
	if err := s.Create(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			y := &store.Transaction{GID: fmt.Sprint("small-", i), Pattern: store.Saga, State: store.Prepared, Created: time.Unix(1, 0)}
			if err := s.Create(t.Context(), y); err != nil {
				t.Errorf("Create beside it: %v", err)
			}
		})
	}
	x.Result = strings.Repeat("x", 20<<20) // max_allowed_packet is 16 MiB
	err := s.Save(t.Context(), x, 0)
	wg.Wait()
	if err == nil || errors.Is(err, store.ErrConflict) {
		t.Errorf("Save of too much = %v, want the server's error", err)
	}
	if x, err = s.Get(t.Context(), "large"); err != nil || x.Version != 1 {
		t.Fatalf("it is %+v, %v, want it unchanged", x, err)
	}
	x.Result = "less"
	if err := s.Save(t.Context(), x, 0); err != nil {
		t.Error(err)
	}
}

// The store of a server that only reads says so, and goes on when it takes changes again.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedMariaDB(t, 3)
	server.MustOwn(t)
	dsn := server.NewDatabase(t)
	admin := database(t, dsn)
	exec := func(text string) {
		if _, err := admin.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE USER app@localhost") // root may write to a server that only reads
	exec("CREATE USER app@127.0.0.1")
	var name string
	if err := admin.QueryRowContext(t.Context(), "SELECT DATABASE()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	exec("GRANT ALL ON " + name + ".* TO app@localhost")
	exec("GRANT ALL ON " + name + ".* TO app@127.0.0.1")
	s := open(t, database(t, strings.Replace(dsn, "root@", "app@", 1)), nil)
	storetest.Unwritable(t, s, func() { exec("SET GLOBAL read_only = ON") }, func() { exec("SET GLOBAL read_only = OFF") })
}
