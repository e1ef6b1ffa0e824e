package examples_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/troth-tx/troth/internal/dbserver"
	"github.com/troth-tx/troth/internal/dbtest"
)

// serviceTests are of the programs that talk to a server, which they get with --server.
var serviceTests = map[string]func(t *testing.T, run runner){
	"transfer-message":    testTransferMessage,
	"saga-trip":           testSagaTrip,
	"tcc-order":           testTCCOrder,
	"food-order-services": testFoodOrderServices,
	"workflow-transfer":   testWorkflowTransfer,
}

// startServer runs "troth serve" until the test and all below it have ended, and
// returns its address.
func startServer(t *testing.T, bin string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "troth"), "serve", "-o", "json",
		"--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--store", t.TempDir(), "--accept-unsafe", "tmpfs", "--accept-unsafe", "network-disk",
		"--request-timeout", "1m") // a busy machine is late
	cmd.Dir, cmd.Env, cmd.Stderr = t.TempDir(), []string{"HOME=" + t.TempDir()}, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // t's context has ended by then
	var at struct{ HTTP string }
	if err := json.NewDecoder(out).Decode(&at); err != nil || at.HTTP == "" {
		t.Fatalf("troth serve does not say where it listens: %v", err)
	}
	return "http://" + at.HTTP
}

func testTransferMessage(t *testing.T, run runner) {
	dir, listen := t.TempDir(), freeAddress(t)
	bank := func(args ...string) (string, error) {
		return run(t, append([]string{"--dir", dir, "--listen", listen}, args...)...)
	}
	money := func(alice, bob string) {
		t.Helper()
		requireValue(t, "sqlite", filepath.Join(dir, "athos.db"), "SELECT balance FROM account", alice)
		requireValue(t, "sqlite", filepath.Join(dir, "porthos.db"), "SELECT balance FROM account", bob)
	}
	out, err := bank("--amount", "50")
	requireExit(t, err, 0)
	requireLines(t, out, "before: Alice 200 at athos, Bob 0 at porthos, together 200", "is delivered",
		"after:  Alice 150 at athos, Bob 50 at porthos, together 200")
	money("150", "50")

	out, err = bank("--die-before-submit")
	requireKilled(t, err)
	requireLines(t, out, "killed: athos has committed, and told nobody")
	money("120", "50")

	out, err = bank("--serve-only")
	requireExit(t, err, 0)
	requireLines(t, out, "is delivered", "after:  Alice 120 at athos, Bob 80 at porthos, together 200")
	money("120", "80")

	out, err = bank("--amount", "1000")
	requireExit(t, err, 0)
	requireLines(t, out, "refused: ", "not enough money", "after:  Alice 120 at athos, Bob 80 at porthos, together 200")
	money("120", "80")
	out, err = bank("--server", nowhere)
	requireHint(t, out, err)
	money("120", "80")
}

func testSagaTrip(t *testing.T, run runner) {
	out, err := run(t)
	requireExit(t, err, 0)
	trips := strings.Split(out, "'s trip:")
	if len(trips) != 4 {
		t.Fatalf("it does not tell of three trips, but:\n%s", out)
	}
	const booked = "flight: Ann\n  hotel: Ann\n  car: Ann\n"
	requireLines(t, trips[1], "a flight for Ann is booked", "a hotel for Ann is booked", "a car for Ann is booked", "is booked\n  "+booked)
	requireLines(t, trips[2], "a flight for Bob is booked", "no hotel is left for Bob", "the flight of Bob is cancelled", "is cancelled\n  "+booked)
	if strings.Contains(trips[2], "car for Bob") {
		t.Errorf("a car was asked for, though there was no hotel:\n%s", trips[2])
	}
	requireLines(t, trips[3], "no hotel is left for Cleo", "is cancelled\n  "+booked)
	out, err = run(t, "--server", nowhere)
	requireHint(t, out, err)
}

func testTCCOrder(t *testing.T, run runner) {
	out, err := run(t)
	requireExit(t, err, 0)
	requireLines(t, out,
		"Ada orders 2 lamps for 60:\n"+
			"  reserved:  lamps 3 free and 2 reserved; Ada's credit 40 free and 60 reserved\n"+
			"  confirmed: lamps 3 free and 0 reserved; Ada's credit 40 free and 0 reserved\n",
		"less than 90 is free",
		"  reserved:  lamps 2 free and 1 reserved; Ada's credit 10 free and 30 reserved\n  refused: ",
		"the shop has changed its mind")
	if n := strings.Count(out, "cancelled: lamps 3 free and 0 reserved; Ada's credit 40 free and 0 reserved\n"); n != 2 {
		t.Errorf("%d orders were cancelled without a trace, want 2", n)
	}
	out, err = run(t, "--server", nowhere)
	requireHint(t, out, err)
}

func testFoodOrderServices(t *testing.T, run runner) {
	store, delivery := dbtest.SharedPostgres(t, 0).NewDatabase(t), dbtest.SharedPostgres(t, 1).NewDatabase(t)
	for _, c := range []struct{ pattern, packets, agents, served, refused string }{
		{"tcc", "10", "6", "6", "19"},
		{"tcc", "5", "9", "5", "20"},
		{"xa", "10", "6", "6", "19"},
		{"xa", "5", "9", "5", "20"},
	} {
		out, err := run(t, "--pattern", c.pattern, "--store", store, "--delivery", delivery, "--orders", "25", "--packets", c.packets, "--agents", c.agents)
		requireExit(t, err, 0)
		requireLines(t, out,
			"25 orders by "+c.pattern+": "+c.served+" served, "+c.refused+" refused",
			"in the databases: "+c.served+" packets assigned, "+c.served+" agents assigned, "+c.served+" orders served")
		requireValue(t, "pgx", store, "SELECT count(*) FROM food_packet", c.packets)
		requireValue(t, "pgx", delivery, "SELECT count(*) FROM food_agent", c.agents)
		requireSame(t, store, "SELECT string_agg(for_order::text, ',' ORDER BY for_order) FROM food_packet",
			delivery, "SELECT string_agg(for_order::text, ',' ORDER BY for_order) FROM food_agent")
		requireNothingPrepared(t, store, delivery)
	}
	for _, pattern := range []string{"tcc", "xa"} {
		out, err := run(t, "--pattern", pattern, "--store", store, "--delivery", delivery, "--server", nowhere)
		requireHint(t, out, err)
	}
	out, err := run(t)
	requireExit(t, err, 1)
	requireLines(t, out, "name both databases: --")
}

func testWorkflowTransfer(t *testing.T, run runner) {
	out, err := run(t)
	requireExit(t, err, 0)
	requireLines(t, out,
		"30 to Bob:\n  30 from Alice\n  done: {\"Payee\":\"Bob\",\"Amount\":30}\n  Alice 170 at athos, Bob 30 at porthos, together 200\n",
		"30 to Carol:\n  30 from Alice\n  30 back to Alice\n  rolled back: ",
		"Carol has no account, or not enough in it: failed\n  Alice 170 at athos, Bob 30 at porthos, together 200\n",
		"50 to Bob:\n  50 from Alice\n  given up, as if the process had died\n  done by a later call\n  Alice 120 at athos, Bob 80 at porthos, together 200\n")
	out, err = run(t, "--server", nowhere)
	requireHint(t, out, err)
}

func testEmbeddedOutbox(t *testing.T, run runner) {
	dir := t.TempDir()
	parcels := func(want string) {
		t.Helper()
		requireValue(t, "sqlite", filepath.Join(dir, "warehouse.db"), "SELECT group_concat(item ORDER BY item) FROM parcel", want)
	}
	out, err := run(t, "--dir", dir, "--order", "lamp")
	requireExit(t, err, 0)
	requireLines(t, out, "orders: lamp; parcels: lamp")

	out, err = run(t, "--dir", dir, "--order", "chair", "--kill")
	requireKilled(t, err)
	requireLines(t, out, "killed: the order is committed, and no parcel is on its way")
	parcels("lamp")

	for range 2 {
		out, err = run(t, "--dir", dir)
		requireExit(t, err, 0)
		requireLines(t, out, "orders: chair,lamp; parcels: chair,lamp")
		parcels("chair,lamp")
	}
}

// nowhere is the address of no server. Of two flags --server the second holds.
const nowhere = "http://127.0.0.1:1"

func requireHint(t *testing.T, out string, err error) {
	t.Helper()
	requireExit(t, err, 1)
	requireLines(t, out, "Does a troth server listen at "+nowhere+"? Start one with: go run ./cmd/troth serve\n")
}

// freeAddress is where a program can listen, and again after it has died.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := dbserver.HoldAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
