package bench

import (
	"context"
	"fmt"
	"testing"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/postgres"
)

// What a transaction costs is counted, on real servers: forced writes by a library
// preloaded into them, round trips at the client's sockets. The figures are part
// of what troth promises (DESIGN: 2N-1 forced writes for N writing branches).
func TestCosts(t *testing.T) {
	w, err := newWorld(t.Context(), Loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, pair := range []string{"PG+PG", "PG+MariaDB", "MariaDB+MariaDB"} {
		t.Run(pair, func(t *testing.T) {
			ways, err := w.ways(t.Context(), pairs[pair])
			if err != nil {
				t.Fatal(err)
			}
			for _, y := range ways {
				t.Run(y.name, func(t *testing.T) { w.checkCost(t, pair, y) })
				if err := y.close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Run("fewer writers", w.checkFewerWriters)
}

// cost is the most that a transfer may take.
type cost struct{ trips, syncs float64 }

var costs = map[string]map[string]cost{
	"PG+PG": {
		"dual-unsafe": {6, 2}, "sequential-2pc": {8, 4}, "sequential-2pc/plain": {8, 4},
		"troth": {5, 3}, "troth@decision": {5, 3}, "troth/plain": {5, 3}, "troth+filelog": {6, 4}, "troth+sql": {7, 5},
		"pgxtx": {5, 3}, "pgxtx@decision": {5, 3}, "pgxtx queued": {3, 3}, "pgxtx queued@decision": {3, 3},
	},
	"PG+MariaDB": {
		"dual-unsafe": {6, 2}, "sequential-2pc": {9, 4}, "sequential-2pc/plain": {9, 4},
		"troth": {5, 3}, "troth@decision": {5, 3}, "troth/plain": {8, 3}, "troth+filelog": {6, 4}, "troth+sql": {7, 5},
	},
	"MariaDB+MariaDB": {
		"dual-unsafe": {6, 2}, "sequential-2pc": {10, 4}, "sequential-2pc/plain": {10, 4},
		"troth": {5, 3}, "troth@decision": {5, 3}, "troth/plain": {11, 3}, "troth+filelog": {6, 4}, "troth+sql": {7, 5},
	},
}

// slack is what forgetting in the background and the servers' own housekeeping
// may add, per transaction.
const slack = 0.45

func (w *world) checkCost(t *testing.T, pair string, y way) {
	t.Helper()
	for i := range 20 { // connections, plans
		if err := y.transfer(t.Context(), i, i+1, next.Add(1)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := w.count(t.Context(), y)
	if err != nil {
		t.Fatal(err)
	}
	want, ok := costs[pair][y.name]
	if !ok {
		t.Fatalf("no cost is promised for %q", y.name)
	}
	if c.RoundTrips > want.trips+slack || c.Syncs > want.syncs+slack {
		t.Errorf("%.2f round trips and %.2f forced writes, want at most %.0f and %.0f", c.RoundTrips, c.Syncs, want.trips, want.syncs)
	}
	if c.Syncs < want.syncs-slack {
		t.Errorf("%.2f forced writes, fewer than the %.0f that safety takes", c.Syncs, want.syncs)
	}
}

// One writer costs one forced write, readers none.
func (w *world) checkFewerWriters(t *testing.T) {
	dbs, closeAll, err := w.openPair(pairs["PG+PG"], driverDefault)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closeAll() }()
	a, b := postgres.New("athos", dbs[0]), postgres.New("porthos", dbs[1])
	mgr, err := open(t.Context(), nil, a, b)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mgr.Close(context.Background()) }()
	for writers, want := range []float64{0, 1} {
		y := way{transfer: func(ctx context.Context, from, to int, _ int64) error {
			return mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
				da, err := a.DB(ctx, tx)
				if err != nil {
					return err
				}
				db, err := b.DB(ctx, tx)
				if err != nil {
					return err
				}
				var balance int
				if err := da.QueryRowContext(ctx, fmt.Sprintf("SELECT balance FROM account WHERE id = %d", from)).Scan(&balance); err != nil {
					return err
				}
				if writers == 0 {
					return db.QueryRowContext(ctx, fmt.Sprintf("SELECT balance FROM account WHERE id = %d", to)).Scan(&balance)
				}
				_, err = db.ExecContext(ctx, statement(receive, to))
				return err
			})
		}}
		c, err := w.count(t.Context(), y)
		if err != nil {
			t.Fatal(err)
		}
		if c.Syncs > want+slack || c.Syncs < want-slack {
			t.Errorf("%d writers: %.2f forced writes, want %.0f", writers, c.Syncs, want)
		}
	}
}
