package twophase

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/troth-tx/troth"
)

// groupsOf are the groups that the databases are in.
func groupsOf(dbs ...*sql.DB) map[*group]bool {
	managers.mu.Lock()
	defer managers.mu.Unlock()
	found := make(map[*group]bool)
	for _, db := range dbs {
		if g := managers.groups[db]; g != nil {
			found[g] = true
		}
	}
	return found
}

func only(t *testing.T, groups map[*group]bool) *group {
	t.Helper()
	if len(groups) != 1 {
		t.Fatalf("%d groups", len(groups))
	}
	for g := range groups {
		return g
	}
	return nil
}

// Databases that are used together share a Manager, also if that is found out
// while a transaction is under way on some of them.
func TestGroupsGrow(t *testing.T) {
	t.Parallel()
	a, b, c, d := openNew(t, "postgres"), openNew(t, "mysql"), openNew(t, "postgres"), openNew(t, "sqlite")
	if err := do(t, []*sql.DB{a, b}, insert(1), insert(1)); err != nil {
		t.Fatal(err)
	}
	if err := do(t, []*sql.DB{c}, insert(1)); err != nil {
		t.Fatal(err)
	}
	old := only(t, groupsOf(a, b))
	if len(groupsOf(a, b, c)) != 2 {
		t.Error("a database that was used alone shares a manager")
	}
	err := do(t, []*sql.DB{a, b}, insert(2), func(ctx context.Context, tx *sql.Tx) error {
		if err := do(t, []*sql.DB{b, d, c}, insert(3), insert(3), insert(3)); err != nil {
			return err
		}
		select {
		case <-old.gone:
			return errors.New("the manager ended under the transaction")
		default:
			return insert(2)(ctx, tx)
		}
	})
	if err != nil {
		t.Error(err)
	}
	<-old.gone
	if g := only(t, groupsOf(a, b, c, d)); len(g.members) != 4 {
		t.Errorf("the group has %d members", len(g.members))
	}
	if err := do(t, []*sql.DB{a, c}, insert(4), insert(4)); err != nil {
		t.Error(err)
	}
	requireIDs(t, a, 1, 2, 4)
	requireIDs(t, b, 1, 2, 3)
	requireIDs(t, c, 1, 3, 4)
	requireIDs(t, d, 3)
}

// Closing a database is enough: the background work ends with the next recovery
// pass, and the other databases go on.
func TestClosedDatabase(t *testing.T) {
	t.Parallel()
	a, b := openNew(t, "postgres"), openNew(t, "mysql")
	if err := do(t, []*sql.DB{a, b}, insert(1), insert(1)); err != nil {
		t.Fatal(err)
	}
	g := only(t, groupsOf(a, b))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Recover(t.Context(), b) // or wait five seconds
	t.Log("a pass over a closed database:", err)
	<-g.gone
	if err := do(t, []*sql.DB{a, b}, insert(2), insert(2)); err == nil {
		t.Error("Do with a closed database succeeded")
	}
	if err := do(t, []*sql.DB{b}, insert(3)); err != nil {
		t.Error(err)
	}
	requireIDs(t, b, 1, 3)
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	a, b, other := openNew(t, "postgres"), openNew(t, "mysql"), openNew(t, "sqlite")
	if err := do(t, []*sql.DB{other}, insert(1)); err != nil {
		t.Fatal(err)
	}
	err := do(t, []*sql.DB{a, b}, insert(1), func(ctx context.Context, tx *sql.Tx) error {
		if err := insert(1)(ctx, tx); err != nil {
			return err
		}
		return Shutdown(context.WithoutCancel(ctx), b)
	})
	if !errors.Is(err, troth.ErrClosed) {
		t.Errorf("a Do under which its databases were shut down returned %v", err)
	}
	if n := len(groupsOf(a, b)); n != 0 {
		t.Errorf("%d groups are left", n)
	}
	only(t, groupsOf(other))
	if err := do(t, []*sql.DB{a, b}, insert(2), insert(2)); err != nil {
		t.Errorf("after Shutdown: %v", err)
	}
	requireIDs(t, a, 2)
	requireIDs(t, b, 2)
	g := only(t, groupsOf(a, b))
	for range 2 {
		if err := Shutdown(t.Context(), a, b); err != nil {
			t.Error(err)
		}
	}
	<-g.gone
}

// A database that cannot be used says why, and does not harm those that can.
func TestUnusableDatabase(t *testing.T) {
	t.Parallel()
	a := openNew(t, "postgres")
	if err := do(t, []*sql.DB{a}, insert(1)); err != nil {
		t.Fatal(err)
	}
	g := only(t, groupsOf(a))
	down := openDB(t, "pgx", "postgres://nobody:planted@127.0.0.1:1/none?connect_timeout=2")
	ran := false
	err := do(t, []*sql.DB{a, down}, func(context.Context, *sql.Tx) error { ran = true; return nil }, insert(1))
	if err == nil || ran {
		t.Errorf("Do returned %v; the first function ran: %v", err, ran)
	}
	if only(t, groupsOf(a)) != g {
		t.Error("the group was replaced")
	}
	if err := do(t, []*sql.DB{a}, insert(2)); err != nil {
		t.Error(err)
	}
}
