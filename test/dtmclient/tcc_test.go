package dtmclient_test

import (
	"errors"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmcli/dtmimp"
)

var errSecondThoughts = errors.New("the caller has second thoughts")

func giveUp() error { return errSecondThoughts }

func TestTCC(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		if err := w.tcc(gid, quickAndWait, goOn, w.transfer(30)...); err != nil {
			t.Fatal(err)
		}
		w.requireStatus(t, gid, "succeed")
		requireBranches(t, w.query(t, gid), "01 cancel prepared", "01 confirm succeed", "02 cancel prepared", "02 confirm succeed")
		w.athos.requireCalls("01 try", "01 confirm")
		w.requireMoney(70, 130)
	})
}

// The second bank refuses its try, or the caller has second thoughts: both are
// cancelled, whether they were tried or not.
func TestTCCCancelled(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		if err := w.tcc(gid, quick, goOn, step{w.athos, 30}, step{w.porthos, -101}); err == nil {
			t.Error("the client was told that it succeeded")
		}
		requireBranches(t, w.await(t, gid, "failed"), "01 cancel succeed", "01 confirm prepared", "02 cancel succeed", "02 confirm prepared")
		w.requireMoney(100, 100)

		gid = w.gid()
		if err := w.tcc(gid, quick, giveUp, w.transfer(30)...); !errors.Is(err, errSecondThoughts) {
			t.Errorf("got %v", err)
		}
		r := w.await(t, gid, "failed")
		if got := r.Transaction.RollbackReason; got != errSecondThoughts.Error() {
			t.Errorf("its reason is %q", got)
		}
		w.requireMoney(100, 100)
	})
}

// Phase two is repeated until it succeeds: a confirm cannot be refused, nor a cancel.
func TestTCCPersists(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		w.athos.next("confirm", refuses, forgets)
		w.porthos.next("confirm", isBusy)
		if err := w.tcc(gid, quick, goOn, w.transfer(30)...); err != nil {
			t.Fatal(err)
		}
		w.hurry(t, gid, "succeed")
		w.requireMoney(70, 130)

		gid = w.gid()
		w.athos.next("cancel", breaks, forgets)
		w.porthos.next("cancel", refuses)
		if err := w.tcc(gid, quick, giveUp, w.transfer(30)...); err == nil {
			t.Error("it was told that it succeeded")
		}
		w.hurry(t, gid, "failed")
		w.requireMoney(70, 130)
	})
}

// The caller is not heard of for some seconds after its tries: they are cancelled, and its
// late submission is refused.
func TestTCCTimeout(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		err := w.tcc(gid, func(t *dtmimp.TransBase) { quick(t); t.TimeoutToFail = 4 }, func() error {
			r := w.await(t, gid, "failed")
			requireBranches(t, r, "01 cancel succeed", "01 confirm prepared", "02 cancel succeed", "02 confirm prepared")
			return nil
		}, w.transfer(30)...)
		if err == nil {
			t.Error("its late submission was taken")
		}
		w.await(t, gid, "failed")
		w.requireMoney(100, 100)
	})
}

// A branch that is itself a caller registers branches of its own under its id.
func TestTCCNested(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), "http")
	gid := w.gid()
	inner := dtmcli.Tcc{TransBase: *dtmimp.NewTransBase(gid, "tcc", w.http, "01")}
	err := w.tcc(gid, quickAndWait, func() error {
		_, err := inner.CallBranch(amount{30}, w.to(w.porthos, "try"), w.to(w.porthos, "confirm"), w.to(w.porthos, "cancel"))
		return err
	}, step{w.athos, -30})
	if err != nil {
		t.Fatal(err)
	}
	w.porthos.requireCalls("0101 try", "0101 confirm")
	w.requireMoney(70, 130)
}
