package dtmclient_test

import (
	"database/sql"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmcli/dtmimp"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/dtm-labs/client/dtmgrpc/dtmgimp"
	"github.com/dtm-labs/client/dtmgrpc/dtmgpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// take is the sender's own work: athos gives 30 in its local transaction.
func (w *world) take(tx *sql.Tx) error { return w.athos.change(tx, "action", -30) }

// impatient has the sender of a message asked after some seconds, in which a busy machine
// can begin the local transaction.
func impatient(t *dtmimp.TransBase) { t.TimeoutToFail, t.RetryInterval = 5, 1 }

func TestMessage(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		m := w.message(gid, quickAndWait, step{w.porthos, 30})
		if err := m.DoAndSubmitDB(w.to(w.athos, "query"), w.athos.db, w.take); err != nil {
			t.Fatal(err)
		}
		w.requireStatus(t, gid, "succeed") // it was waited for
		requireBranches(t, w.query(t, gid), "01 action succeed")
		w.athos.requireCalls()
		w.porthos.requireCalls("01 action")
		w.requireMoney(70, 130)
	})
}

// The local transaction fails: there is no message.
func TestMessageNotSent(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		for name, failure := range map[string]error{"refused": dtmcli.ErrFailure, "broken": errBroken} {
			gid := w.gid()
			m := w.message(gid, quick, step{w.porthos, 30})
			err := m.DoAndSubmitDB(w.to(w.athos, "query"), w.athos.db, func(tx *sql.Tx) error {
				return errors.Join(w.take(tx), failure)
			})
			if !errors.Is(err, failure) {
				t.Errorf("%s: got %v", name, err)
			}
			requireBranches(t, w.await(t, gid, "failed"), "01 action prepared")
		}
		if n := w.athos.count("query"); n != 1 { // by the client, which did not know
			t.Errorf("the sender was asked %d times", n)
		}
		w.porthos.requireCalls()
		w.requireMoney(100, 100)
	})
}

// The sender dies after its commit: it is asked, and the message goes out.
func TestMessageSubmitLost(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		w.prepareAndDo(t, gid)
		w.athos.next("query", isBusy)
		w.porthos.next("action", forgets)
		w.await(t, gid, "succeed")
		if n := w.athos.count("query"); n != 2 {
			t.Errorf("the sender was asked %d times", n)
		}
		w.requireMoney(70, 130)
	})
}

// prepareAndDo is a sender that dies before it submits.
func (w *world) prepareAndDo(t *testing.T, gid string) {
	t.Helper()
	m := w.message(gid, impatient, step{w.porthos, 30})
	if err := m.Prepare(w.to(w.athos, "query")); err != nil {
		t.Fatal(err)
	}
	barrier, err := dtmcli.BarrierFrom("msg", gid, "00", "msg")
	if err == nil {
		err = barrier.CallWithDB(w.athos.db, w.take)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The sender dies before its commit: it is asked, and from then on cannot commit.
func TestMessageSenderTooLate(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		m := w.message(gid, impatient, step{w.porthos, 30})
		query := w.to(w.athos, "query")
		if err := m.Prepare(query); err != nil {
			t.Fatal(err)
		}
		w.await(t, gid, "failed")
		barrier, err := dtmcli.BarrierFrom("msg", gid, "00", "msg")
		if err != nil {
			t.Fatal(err)
		}
		if err := barrier.CallWithDB(w.athos.db, w.take); !errors.Is(err, dtmcli.ErrDuplicated) {
			t.Errorf("its commit came through: %v", err)
		}
		if err := m.Submit(); err == nil {
			t.Error("its submission was taken")
		}
		w.porthos.requireCalls()
		w.requireMoney(100, 100)
	})
}

// Nobody may refuse a message: whatever its receiver answers, it is called again, and
// its barrier has it work once.
func TestMessageUntilItArrives(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		w.porthos.next("action", refuses, isBusy, forgets)
		m := w.message(gid, quick, step{w.porthos, 30})
		if err := m.DoAndSubmitDB(w.to(w.athos, "query"), w.athos.db, w.take); err != nil {
			t.Fatal(err)
		}
		w.hurry(t, gid, "succeed")
		w.porthos.requireCalls("01 action", "01 action", "01 action", "01 action")
		w.requireMoney(70, 130)
	})
}

func TestMessageDelayed(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		began := time.Now()
		submit := w.delayed(gid)
		if err := submit(); err != nil {
			t.Fatal(err)
		}
		w.await(t, gid, "succeed")
		if d := time.Since(began); d < time.Second {
			t.Errorf("it arrived after %v, want a second at least", d)
		}
		w.porthos.requireCalls("01 action")
		w.requireMoney(100, 130)
	})
}

func (w *world) delayed(gid string) (submit func() error) {
	if w.protocol == "grpc" {
		return dtmgrpc.NewMsgGrpc(w.base(), gid).Add(w.to(w.porthos, "action"), wrapperspb.Int64(30)).SetDelay(1).Submit
	}
	return dtmcli.NewMsg(w.base(), gid).Add(w.to(w.porthos, "action"), amount{30}).SetDelay(1).Submit
}

func TestMessageToTopic(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		topic := "savers-" + gid
		for _, b := range []*bank{w.athos, w.porthos} {
			w.subscribe(t, topic, w.to(b, "action"))
		}
		if err := w.toTopic(gid, topic); err != nil {
			t.Fatal(err)
		}
		requireBranches(t, w.await(t, gid, "succeed"), "01-01 action succeed", "01-02 action succeed")
		w.requireMoney(130, 130)

		if err := w.toTopic(w.gid(), "nobody-"+gid); err == nil {
			t.Error("a message to a topic that is not there was taken")
		}
	})
}

// subscribe is an administrator: dtm's client has no call for it by HTTP, nor a wrapper
// by gRPC.
func (w *world) subscribe(t *testing.T, topic, address string) {
	t.Helper()
	if w.protocol == "grpc" {
		_, err := dtmgimp.MustGetDtmClient(w.rpc).Subscribe(t.Context(), &dtmgpb.DtmTopicRequest{Topic: topic, URL: address})
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	w.get(t, "/subscribe?"+url.Values{"topic": {topic}, "url": {address}}.Encode(), nil)
}

func (w *world) deleteTopic(t *testing.T, topic string) {
	t.Helper()
	if w.protocol == "grpc" {
		if _, err := dtmgimp.MustGetDtmClient(w.rpc).DeleteTopic(t.Context(), &dtmgpb.DtmTopicRequest{Topic: topic}); err != nil {
			t.Fatal(err)
		}
		return
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, w.http+"/topic/"+topic, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
}

func (w *world) toTopic(gid, topic string) error {
	if w.protocol == "grpc" {
		return dtmgrpc.NewMsgGrpc(w.base(), gid).AddTopic(topic, wrapperspb.Int64(30)).Submit()
	}
	return dtmcli.NewMsg(w.base(), gid).AddTopic(topic, amount{30}).Submit()
}

func TestMessageConcurrent(t *testing.T) {
	t.Parallel() // the client has no field for it by gRPC
	w := newWorld(t, sharedServer(t), "http")
	gid := w.gid()
	w.athos.next("action", slices.Repeat([]fault{isBusy}, 10_000)...)
	m := w.message(gid, func(t *dtmimp.TransBase) { quick(t); t.Concurrent = true }, step{w.athos, 10}, step{w.porthos, 30})
	if err := m.Submit(); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return w.porthos.count("action") > 0 }) // it does not wait for the first
	w.athos.heal()
	w.hurry(t, gid, "succeed")
	w.requireMoney(110, 130)
}
