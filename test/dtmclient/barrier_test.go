package dtmclient_test

import (
	"slices"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmcli/dtmimp"
)

// barriers runs a case on each of the databases.
func barriers(t *testing.T, test func(t *testing.T, w *world, b *bank)) {
	t.Helper()
	protocols(t, func(t *testing.T, w *world) {
		test(t, w, w.athos)
		test(t, w, w.porthos)
	})
}

// Every call comes twice, its answer lost the first time: each is done once.
func TestBarrierRepeated(t *testing.T) {
	barriers(t, func(t *testing.T, w *world, b *bank) {
		for _, work := range []string{"action", "compensate", "confirm", "cancel"} {
			b.next(work, forgets)
		}
		gid := w.gid()
		if err := w.saga(gid, quick, step{b, 10}); err != nil {
			t.Fatal(err)
		}
		w.hurry(t, gid, "succeed")
		b.requireMoney(110)

		gid = w.gid()
		if err := w.saga(gid, quick, step{b, 10}, step{b, -200}); err != nil {
			t.Fatal(err)
		}
		w.hurry(t, gid, "failed")
		b.requireMoney(110)

		gid = w.gid()
		if err := w.tcc(gid, quick, goOn, step{b, 10}); err != nil {
			t.Fatal(err)
		}
		w.hurry(t, gid, "succeed")
		b.requireMoney(120)

		gid = w.gid()
		if err := w.tcc(gid, quick, giveUp, step{b, 10}); err == nil {
			t.Error("it was told that it succeeded")
		}
		w.hurry(t, gid, "failed")
		b.requireMoney(120)
	})
}

// An action that was never done is compensated, which does nothing; and when it comes
// late after all, it does nothing either.
func TestBarrierEmptyAndHanging(t *testing.T) {
	barriers(t, func(t *testing.T, w *world, b *bank) {
		gid := w.gid()
		b.next("action", slices.Repeat([]fault{breaks}, 50)...)
		if err := w.saga(gid, func(t *dtmimp.TransBase) { quick(t); t.TimeoutToFail = 4 }, step{b, 10}); err != nil {
			t.Fatal(err)
		}
		w.await(t, gid, "failed")
		if b.count("compensate") == 0 {
			t.Error("it was not compensated")
		}
		b.requireMoney(100)

		late := dtmcli.BranchBarrier{TransType: "saga", Gid: gid, BranchID: "01", Op: "action"}
		b.heal() // it is the barrier that holds it back
		if err := b.serve("action", &late, 10); err != nil {
			t.Fatal(err)
		}
		b.requireMoney(100)
	})
}

// The same for a try that was lost on its way, and comes after its cancel.
func TestBarrierHangingTry(t *testing.T) {
	barriers(t, func(t *testing.T, w *world, b *bank) {
		gid := w.gid()
		b.next("try", breaks)
		if err := w.tcc(gid, quick, goOn, step{b, 10}); err == nil {
			t.Error("it was told that it succeeded")
		}
		w.await(t, gid, "failed")
		late := dtmcli.BranchBarrier{TransType: "tcc", Gid: gid, BranchID: "01", Op: "try"}
		if err := b.serve("try", &late, 10); err != nil {
			t.Fatal(err)
		}
		b.requireMoney(100)
	})
}
