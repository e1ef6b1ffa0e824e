package mysql

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/filelog"
	"github.com/troth-tx/troth/internal/dbtest"
)

// A register may forget without a flush (its contract), and the file log does so
// up to a second late. If the witness rows went at once, then after SIGKILL in between the
// record would be back and its proof not: upkeep would call a transaction that
// committed everywhere a heuristic one.
func TestKillBetweenForgetAndItsFlush(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedMariaDB(t, 0)
	w := newWorld(t, server.NewDatabase(t))
	v := newWorld(t, server.NewDatabase(t))
	a, b := New("athos", w.pool), New("porthos", v.pool)
	dir := t.TempDir() + "/log"
	log, err := filelog.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := troth.Open(t.Context(), troth.Config{Domain: "bank", Resources: []troth.Resource{a, b}, Register: log, KeepDecisions: -1})
	if err != nil {
		t.Fatal(err)
	}
	err = m.Run(t.Context(), func(ctx context.Context, tx *troth.Tx) error {
		for _, r := range []*Resource{a, b} {
			db, err := r.DB(ctx, tx)
			if err != nil {
				return err
			}
			if _, err := db.ExecContext(ctx, "UPDATE t SET v = v + 1 WHERE id = 1"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for w.int("SELECT COUNT(*) FROM troth_witness")+v.int("SELECT COUNT(*) FROM troth_witness") > 0 {
		time.Sleep(5 * time.Millisecond)
	}
	killed := t.TempDir() + "/log" // what SIGKILL leaves at this moment
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	// A copy has another program's identity; here that program is gone.
	if err := os.WriteFile(killed+"/adopt-copy", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	log, err = filelog.Open(killed)
	if err != nil {
		t.Fatal(err)
	}
	m, err = troth.Open(t.Context(), troth.Config{Domain: "bank", Resources: []troth.Resource{a, b}, Register: log})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	// What upkeep does with the record once it is LifeMax old.
	records, err := log.Committed(t.Context(), 0, "", 10)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("records after the restart: %d", len(records))
	for _, rec := range records {
		for _, br := range rec.Branches {
			r := map[string]*Resource{"athos": a, "porthos": b}[br.Resource]
			err := r.Finish(t.Context(), troth.XID{GID: rec.GID, Place: troth.Place{Identity: log.Identity()}, Branch: br.Branch}, troth.Committed, br.Evidence)
			var h *troth.HeuristicError
			if errors.As(err, &h) {
				t.Errorf("row is %d, committed; upkeep says: %v", w.int("SELECT v FROM t WHERE id = 1"), err)
			}
		}
	}
}
