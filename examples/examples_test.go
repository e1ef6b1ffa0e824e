// Package examples_test runs the example programs as their readers do: as
// processes, on real databases.
package examples_test

import (
	"bytes"
	"database/sql"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql" // database/sql driver "mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	_ "modernc.org/sqlite"             // database/sql driver "sqlite"

	"github.com/troth-tx/troth/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestExamples(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "./...", "../cmd/troth").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for name, test := range map[string]func(t *testing.T, run runner){
		"naive":          testNaive,
		"bank":           testBank,
		"user-order":     testUserOrder,
		"food-order":     testFoodOrder,
		"gorm-two-mysql": testGORM,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, program(bin, name))
			t.Run("without flags", func(t *testing.T) {
				out, err := exec.Command(filepath.Join(bin, name)).CombinedOutput()
				requireExit(t, err, 1)
				requireLines(t, string(out), "name both databases: --")
			})
		})
	}
	t.Run("embedded-outbox", func(t *testing.T) {
		t.Parallel()
		testEmbeddedOutbox(t, program(bin, "embedded-outbox"))
	})
	server := startServer(t, bin)
	for name, test := range serviceTests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, program(bin, name, "--server", server))
		})
	}
}

// runner runs the program under test, and returns what it printed.
type runner func(t *testing.T, args ...string) (string, error)

func program(bin, name string, always ...string) runner {
	return func(t *testing.T, args ...string) (string, error) {
		t.Helper()
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, name), append(slices.Clone(always), args...)...)
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		t.Logf("%s %s\n%s", name, strings.Join(args, " "), out.String())
		return out.String(), err
	}
}

func testNaive(t *testing.T, run runner) {
	athos, porthos := dbtest.SharedPostgres(t, 0).NewDatabase(t), dbtest.SharedPostgres(t, 1).NewDatabase(t)
	out, err := run(t, "--from", athos, "--to", porthos, "--amount", "50")
	requireExit(t, err, 0)
	requireLines(t, out, "before: Alice 200, Bob 0, together 200", "after:  Alice 150, Bob 50, together 200")

	out, err = run(t, "--from", athos, "--to", porthos, "--kill")
	requireKilled(t, err)
	requireLines(t, out, "killed between the two commits")
	out, err = run(t, "--from", athos, "--to", porthos, "--times", "0")
	requireExit(t, err, 0)
	requireLines(t, out, "after:  Alice 50, Bob 50, together 100")
}

func testBank(t *testing.T, run runner) {
	athos, porthos := dbtest.SharedPostgres(t, 0).NewDatabase(t), dbtest.SharedPostgres(t, 1).NewDatabase(t)
	out, err := run(t, "--from", athos, "--to", porthos, "--amount", "100", "--times", "3")
	requireExit(t, err, 1)
	requireLines(t, out,
		"before: Alice 200, Bob 0, together 200",
		"transfer 1 of 100: committed in both databases",
		"transfer 2 of 100: committed in both databases",
		"transfer 3 of 100: refused, rolled back in both databases",
		"after:  Alice 0, Bob 200, together 200",
		`violates check constraint "account_balance_check"`,
	)
	requireValue(t, "pgx", athos, "SELECT balance FROM account", "0")
	requireValue(t, "pgx", porthos, "SELECT balance FROM account", "200")
	requireNothingPrepared(t, athos, porthos)

	out, err = run(t, "--from", athos, "--to", "postgres://bob:tulip@127.0.0.1:1/porthos")
	requireExit(t, err, 1)
	requireLines(t, out, "--to: ")
	if strings.Contains(out, "tulip") {
		t.Error("it tells the password")
	}
}

func testUserOrder(t *testing.T, run runner) {
	users, orders := dbtest.SharedPostgres(t, 0).NewDatabase(t), dbtest.SharedMariaDB(t, 0).NewDatabase(t)
	out, err := run(t, "--users", users, "--orders", orders, "--name", "ada", "--item", "lamp")
	requireExit(t, err, 0)
	requireLines(t, out, "user 1, ada, with order 1 of a lamp", "in the databases: 1 users, 1 orders")

	out, err = run(t, "--users", users, "--orders", orders, "--name", "bob", "--item", "moon")
	requireExit(t, err, 1)
	requireLines(t, out, "no user and no order: troth: rolled back", "insert the order", "in the databases: 1 users, 1 orders")

	out, err = run(t, "--users", users, "--orders", orders, "--name", "ada", "--item", "lamp")
	requireExit(t, err, 1)
	requireLines(t, out, "insert the user", "in the databases: 1 users, 1 orders")

	requireValue(t, "pgx", users, "SELECT string_agg(name, ',') FROM users", "ada")
	requireValue(t, "mysql", orders, "SELECT group_concat(item) FROM orders", "lamp")
	requireNothingPrepared(t, users)
}

func testFoodOrder(t *testing.T, run runner) {
	store, delivery := dbtest.SharedPostgres(t, 0).NewDatabase(t), dbtest.SharedPostgres(t, 1).NewDatabase(t)
	for _, c := range []struct{ packets, agents, served string }{{"10", "6", "6"}, {"5", "9", "5"}} {
		out, err := run(t, "--store", store, "--delivery", delivery, "--orders", "25", "--packets", c.packets, "--agents", c.agents)
		requireExit(t, err, 0)
		requireLines(t, out,
			"25 orders: "+c.served+" served",
			"in the databases: "+c.served+" packets assigned, "+c.served+" agents assigned, "+c.served+" orders served")
		requireSame(t, store, "SELECT string_agg(for_order::text, ',' ORDER BY for_order) FROM food_packet",
			delivery, "SELECT string_agg(for_order::text, ',' ORDER BY for_order) FROM food_agent")
		requireNothingPrepared(t, store, delivery)
	}
}

func testGORM(t *testing.T, run runner) {
	test1, test2 := dbtest.SharedMariaDB(t, 0).NewDatabase(t), dbtest.SharedMariaDB(t, 0).NewDatabase(t)
	for range 2 {
		out, err := run(t, "--test1", test1, "--test2", test2)
		requireExit(t, err, 0)
		requireLines(t, out,
			"ada: committed in both databases",
			"bob: rolled back in both databases: troth: rolled back", "Duplicate entry 'ada'",
			"test1: ada, 36;\n", "test2: ada, 36;\n")
		for _, dsn := range []string{test1, test2} {
			requireValue(t, "mysql", dsn, "SELECT group_concat(concat(name, ' ', age)) FROM example_user", "ada 36")
		}
	}
}

func requireExit(t *testing.T, err error, want int) {
	t.Helper()
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("exit code %d, want %d", got, want)
	}
}

func requireKilled(t *testing.T, err error) {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.String() != "signal: killed" {
		t.Errorf("it was to kill itself, and ended with %v", err)
	}
}

func requireLines(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, s := range want {
		if !strings.Contains(out, s) {
			t.Errorf("it does not say %q, but:\n%s", s, out)
		}
	}
}

func value(t *testing.T, driver, dsn, query string) string {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var got sql.NullString
	if err := db.QueryRowContext(t.Context(), query).Scan(&got); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return got.String
}

func requireValue(t *testing.T, driver, dsn, query, want string) {
	t.Helper()
	if got := value(t, driver, dsn, query); got != want {
		t.Errorf("%s: got %q, want %q", query, got, want)
	}
}

func requireSame(t *testing.T, dsn1, query1, dsn2, query2 string) {
	t.Helper()
	requireValue(t, "pgx", dsn2, query2, value(t, "pgx", dsn1, query1))
}

func requireNothingPrepared(t *testing.T, dsns ...string) {
	t.Helper()
	for _, dsn := range dsns {
		requireValue(t, "pgx", dsn, "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()", "0")
	}
}
