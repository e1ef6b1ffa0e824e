package dtmclient_test

import (
	"slices"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmcli/dtmimp"
	"github.com/dtm-labs/client/dtmgrpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestSaga(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		if err := w.saga(gid, quickAndWait, w.transfer(30)...); err != nil {
			t.Fatal(err)
		}
		w.requireStatus(t, gid, "succeed")
		requireBranches(t, w.query(t, gid), "01 compensate prepared", "01 action succeed", "02 compensate prepared", "02 action succeed")
		w.requireMoney(70, 130)
	})
}

// The last step is refused: the others are undone, each when those after it are, and the
// client is told.
func TestSagaRefused(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		w.athos.next("compensate", isBusy)
		if err := w.saga(gid, quickAndWait, step{w.athos, 30}, step{w.athos, -50}, step{w.porthos, -101}); err == nil {
			t.Error("the client was told that it succeeded")
		}
		r := w.await(t, gid, "failed")
		requireBranches(t, r, "01 compensate succeed", "01 action succeed", "02 compensate succeed", "02 action succeed",
			"03 compensate succeed", "03 action failed")
		if r.Transaction.RollbackReason == "" {
			t.Error("it has no reason")
		}
		w.athos.requireCalls("01 action", "02 action", "02 compensate", "02 compensate", "01 compensate")
		w.requireMoney(100, 100)
	})
}

// Only the agreed answers decide: errors, lost answers and delays are asked about again.
func TestSagaPersists(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		w.athos.next("action", isBusy, forgets)
		w.porthos.next("action", breaks)
		if err := w.saga(gid, quick, w.transfer(30)...); err != nil {
			t.Fatal(err)
		}
		w.await(t, gid, "succeed")
		w.athos.requireCalls("01 action", "01 action", "01 action")
		w.porthos.requireCalls("02 action", "02 action")
		w.requireMoney(70, 130)
	})
}

// A compensation is repeated until it succeeds; to refuse is no way out of it.
func TestSagaCompensationPersists(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		w.porthos.next("action", refuses)
		w.athos.next("compensate", breaks, refuses, forgets)
		if err := w.saga(gid, quick, w.transfer(30)...); err != nil {
			t.Fatal(err)
		}
		w.hurry(t, gid, "failed")
		if n := w.athos.count("compensate"); n != 4 {
			t.Errorf("compensated %d times, want 4", n)
		}
		w.requireMoney(100, 100)
	})
}

// Time is over while a bank is busy: all is compensated, and what was never done is
// compensated without harm.
func TestSagaTimeout(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		w.porthos.next("action", slices.Repeat([]fault{isBusy}, 50)...)
		if err := w.saga(gid, func(t *dtmimp.TransBase) { quick(t); t.TimeoutToFail = 2 }, w.transfer(30)...); err != nil {
			t.Fatal(err)
		}
		w.await(t, gid, "failed")
		w.requireMoney(100, 100)
	})
}

// With a retry limit an action that keeps breaking counts as refused.
func TestSagaRetryLimit(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		w.porthos.next("action", slices.Repeat([]fault{breaks}, 50)...)
		if err := w.saga(gid, func(t *dtmimp.TransBase) { quickAndWait(t); t.RetryLimit = 3 }, w.transfer(30)...); err == nil {
			t.Error("the client was told that it succeeded")
		}
		w.await(t, gid, "failed")
		if n := w.porthos.count("action"); n != 4 {
			t.Errorf("called %d times, want once and three repetitions", n)
		}
		w.requireMoney(100, 100)
	})
}

// An old participant refuses by a word in a body with status 200.
func TestSagaRefusedByWord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), "http")
	gid := w.gid()
	w.porthos.next("action", mutters)
	if err := w.saga(gid, quickAndWait, w.transfer(30)...); err == nil {
		t.Error("the client was told that it succeeded")
	}
	w.await(t, gid, "failed")
	w.requireMoney(100, 100)
}

// A concurrent saga with an order: the third step waits for the others.
func TestSagaConcurrent(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		w.athos.next("action", breaks)
		if err := w.concurrent(gid, step{w.athos, -30}, step{w.porthos, 20}, step{w.porthos, 10}); err != nil {
			t.Fatal(err)
		}
		w.await(t, gid, "succeed")
		w.porthos.requireCalls("02 action", "03 action")
		w.requireMoney(70, 130)

		gid = w.gid()
		w.porthos.next("action", refuses)
		if err := w.concurrent(gid, step{w.athos, -30}, step{w.porthos, 20}, step{w.porthos, 10}); err != nil {
			t.Fatal(err)
		}
		w.await(t, gid, "failed")
		w.requireMoney(70, 130)
	})
}

// concurrent submits a saga whose third step waits for the first two.
func (w *world) concurrent(gid string, steps ...step) error {
	if w.protocol == "grpc" {
		s := dtmgrpc.NewSagaGrpc(w.base(), gid)
		quick(&s.TransBase)
		for _, st := range steps {
			s.Add(w.to(st.bank, "action"), w.to(st.bank, "compensate"), wrapperspb.Int64(st.amount))
		}
		return s.AddBranchOrder(2, []int{0, 1}).EnableConcurrent().Submit()
	}
	s := dtmcli.NewSaga(w.base(), gid)
	quick(&s.TransBase)
	for _, st := range steps {
		s.Add(w.to(st.bank, "action"), w.to(st.bank, "compensate"), amount{st.amount})
	}
	return s.AddBranchOrder(2, []int{0, 1}).SetConcurrent().Submit()
}
