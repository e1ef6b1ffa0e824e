package dtmclient_test

import (
	"errors"
	"testing"

	"github.com/dtm-labs/client/dtmcli/dtmimp"
)

func TestXA(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		if err := w.xa(gid, quickAndWait, goOn, w.transfer(30)...); err != nil {
			t.Fatal(err)
		}
		w.requireStatus(t, gid, "succeed")
		requireBranches(t, w.query(t, gid), "01 rollback prepared", "01 commit succeed", "02 rollback prepared", "02 commit succeed")
		w.athos.requireCalls("01 xa action", "01 xa commit")
		w.requireMoney(70, 130)
	})
}

func TestXARolledBack(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		if err := w.xa(gid, quick, goOn, step{w.athos, 30}, step{w.porthos, -101}); err == nil {
			t.Error("the client was told that it succeeded")
		}
		w.await(t, gid, "failed")
		w.requireMoney(100, 100)

		gid = w.gid()
		if err := w.xa(gid, quick, giveUp, w.transfer(30)...); !errors.Is(err, errSecondThoughts) {
			t.Errorf("got %v", err)
		}
		w.await(t, gid, "failed")
		w.requireMoney(100, 100)
	})
}

// Phase two is repeated until it succeeds.
func TestXAPersists(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		w.athos.next("xa commit", breaks, forgets)
		w.porthos.next("xa commit", isBusy)
		if err := w.xa(gid, quick, goOn, w.transfer(30)...); err != nil {
			t.Fatal(err)
		}
		w.hurry(t, gid, "succeed")
		w.requireMoney(70, 130)
	})
}

// The caller is not heard of for some seconds: what is prepared is rolled back, and its late
// submission is refused.
func TestXATimeout(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		err := w.xa(gid, func(t *dtmimp.TransBase) { quick(t); t.TimeoutToFail = 4 }, func() error {
			w.await(t, gid, "failed")
			return nil
		}, w.transfer(30)...)
		if err == nil {
			t.Error("its late submission was taken")
		}
		w.await(t, gid, "failed")
		w.requireMoney(100, 100)
	})
}
