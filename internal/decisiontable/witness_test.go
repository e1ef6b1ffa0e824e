package decisiontable

import (
	"database/sql"
	"reflect"
	"testing"
	"time"

	"github.com/troth-tx/troth"
)

func TestWitnesses(t *testing.T) {
	t.Parallel()
	e := engines[2]
	for _, opts := range []Options{{}, {WitnessOnly: true}} {
		db := e.new(t)
		table := openTable(t, e, db, opts)
		var want []troth.XID
		for _, resource := range []string{"athos", ""} {
			gid := newGID()
			for branch := 1; branch <= 3; branch++ {
				x := troth.XID{GID: gid, Place: troth.Place{Resource: resource, Identity: table.Identity()}, Branch: branch}
				mustExec(t, db, table.WitnessSQL(x))
				want = append(want, x)
			}
		}
		foreign := want[0]
		foreign.GID = troth.NewGID("bank-1", time.Now())
		mustExec(t, db, table.WitnessSQL(foreign))
		if _, err := db.Exec(table.WitnessSQL(want[0])); !table.dialect.exists(err) {
			t.Errorf("a second witness of a branch gives %v, want a duplicate key", err)
		}
		exists := func(gid troth.GID, branch int, want bool) {
			t.Helper()
			if got, err := table.WitnessExists(t.Context(), gid, branch); err != nil || got != want {
				t.Errorf("WitnessExists(%s, %d) = %v, %v, want %v", gid, branch, got, err, want)
			}
		}
		exists(want[0].GID, 3, true)
		exists(want[0].GID, 4, false)
		exists(newGID(), 1, false)

		for _, limit := range []int{1, 2, 4, 100} {
			var got []troth.XID
			var after Witness
			for {
				page, err := table.Witnesses(t.Context(), 0, after, limit)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					break
				}
				for _, w := range page {
					got = append(got, troth.XID{GID: w.GID, Place: w.Home, Branch: w.Branch})
					if time.Since(w.At).Abs() > time.Minute {
						t.Errorf("the witness of %s is of %v, want now", w.GID, w.At)
					}
				}
				after = page[len(page)-1]
			}
			if want[0].GID > want[3].GID { // made in the same millisecond
				want = append(want[3:], want[:3]...)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("pages of %d list %v, want %v", limit, got, want)
			}
		}
		if page, err := table.Witnesses(t.Context(), time.Hour, Witness{}, 10); err != nil || len(page) != 0 {
			t.Errorf("Witnesses(1h) = %v, %v, want none", page, err)
		}
		if err := table.ForgetWitnesses(t.Context(), []troth.GID{want[0].GID, newGID()}); err != nil {
			t.Fatal(err)
		}
		exists(want[0].GID, 3, false)
		exists(want[3].GID, 3, true)
		if _, err := table.Lookup(t.Context(), want[0].GID); (err != nil) != opts.WitnessOnly {
			t.Errorf("Lookup gives %v, with WitnessOnly %v", err, opts.WitnessOnly)
		}
	}
}

func TestNoWitnessElsewhere(t *testing.T) {
	forEach(t, func(t *testing.T, e engine, db *sql.DB) {
		table := openTable(t, e, db, Options{NoWitness: true})
		if name := table.WitnessName(); name != "" {
			t.Errorf("WitnessName = %s, want none", name)
		}
		if _, err := table.WitnessExists(t.Context(), newGID(), 1); err == nil {
			t.Error("WitnessExists gives no error")
		}
	})
}
