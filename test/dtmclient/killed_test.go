package dtmclient_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmcli/dtmimp"
	"github.com/dtm-labs/client/workflow"
)

// The server is killed under its clients, and started again on the same directory.
func killings(t *testing.T, test func(t *testing.T, w *world, p *process)) {
	t.Helper()
	t.Parallel()
	for _, protocol := range []string{"http", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			p := newProcess(t, filepath.Join(t.TempDir(), "store"))
			p.start(t)
			t.Cleanup(func() { p.kill(t) })
			test(t, newWorld(t, &p.server, protocol), p)
		})
	}
}

// After the local commit, before the submission: the sender is asked by the next server.
func TestKilledBeforeSubmit(t *testing.T) {
	killings(t, func(t *testing.T, w *world, p *process) {
		gid := w.gid()
		m := w.message(gid, impatient, step{w.porthos, 30})
		err := m.DoAndSubmitDB(w.to(w.athos, "query"), w.athos.db, func(tx *sql.Tx) error {
			p.kill(t)
			return w.take(tx)
		})
		if err == nil {
			t.Error("the submission was taken by nobody")
		}
		w.athos.requireMoney(70)
		w.porthos.requireCalls()
		p.start(t)
		w.await(t, gid, "succeed")
		w.requireMoney(70, 130)
	})
}

// In the middle of a saga: what was answered before is not asked again, what was not is.
func TestKilledInSaga(t *testing.T) {
	killings(t, func(t *testing.T, w *world, p *process) {
		gid := w.gid()
		w.porthos.next("action", isBusy)
		if err := w.saga(gid, quickAndWait, w.transfer(30)...); err == nil {
			t.Error("it was told that it succeeded")
		}
		p.kill(t)
		w.requireMoney(70, 100)
		p.start(t)
		w.await(t, gid, "succeed")
		w.athos.requireCalls("01 action")
		w.porthos.requireCalls("02 action", "02 action")
		w.requireMoney(70, 130)
	})
}

// Between tries and submission: nobody heard the caller, and all is cancelled.
func TestKilledBeforeConfirm(t *testing.T) {
	killings(t, func(t *testing.T, w *world, p *process) {
		gid := w.gid()
		killed := false
		err := w.tcc(gid, func(t *dtmimp.TransBase) { quick(t); t.TimeoutToFail = 10 }, func() error {
			killed = true
			p.kill(t)
			return nil
		}, w.transfer(30)...)
		if err == nil {
			t.Error("it was told that it succeeded")
		}
		if !killed {
			t.Fatalf("it did not get that far: %v", err)
		}
		p.start(t)
		w.await(t, gid, "failed")
		w.requireMoney(100, 100)
	})
}

// Between phases of XA: what is prepared is committed by the next server.
func TestKilledInXA(t *testing.T) {
	killings(t, func(t *testing.T, w *world, p *process) {
		gid := w.gid()
		w.athos.next("xa commit", breaks)
		w.porthos.next("xa commit", breaks)
		if err := w.xa(gid, quickAndWait, goOn, w.transfer(30)...); err == nil {
			t.Error("it was told that it succeeded")
		}
		p.kill(t)
		p.start(t)
		w.await(t, gid, "succeed")
		w.requireMoney(70, 130)
	})
}

// Between two steps of a workflow: the next server has it resumed.
func TestKilledInWorkflow(t *testing.T) {
	p := newProcess(t, filepath.Join(t.TempDir(), "store"))
	p.start(t)
	t.Cleanup(func() { p.kill(t) })
	f := newFlow(t, &p.server, "http")
	gid := f.gid()
	killed := false
	run := func(wf *workflow.Workflow, _ []byte) ([]byte, error) {
		if err := f.byHTTP(wf, step{f.athos, -30}); err != nil {
			return nil, err
		}
		if !killed {
			killed = true
			p.kill(t)
		}
		return nil, f.byGRPC(wf, step{f.porthos, 30})
	}
	if _, err := f.start(t, gid, run, nil); err == nil || errors.Is(err, dtmcli.ErrFailure) {
		t.Errorf("got %v", err)
	}
	p.start(t)
	f.await(t, gid, "succeed")
	f.requireMoney(70, 130)
}

// Two servers share a store, and the one that took the transaction is killed: the other
// ends it, and the client may ask it.
func TestKilledAnotherTakesOver(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]func(t *testing.T) dtmcli.DBConf{"mysql": mariaDB, "postgres": postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := database(t)
			store := fmt.Sprintf("%s://%s@%s:%d/%s", name, c.User, c.Host, c.Port, c.Db)
			first, second := newProcess(t, store), newProcess(t, store)
			first.start(t)
			second.start(t)
			t.Cleanup(func() { second.kill(t) })
			w := newWorld(t, &first.server, "http")

			saga, message := w.gid(), w.gid()
			w.porthos.next("action", refuses)
			w.athos.next("compensate", isBusy)
			if err := w.saga(saga, quickAndWait, w.transfer(30)...); err == nil {
				t.Error("it was told that it succeeded")
			}
			w.prepareAndDo(t, message)
			first.kill(t)

			second.await(t, saga, "failed")
			second.await(t, message, "succeed")
			w.requireMoney(70, 130)
		})
	}
}
