package dtmclient_test

import (
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmcli/dtmimp"
	"github.com/go-resty/resty/v2"
)

// The client may speak JSON-RPC with the server; it has messages and TCC for it. Branches
// are called by HTTP.
func byJSONRPC(t *dtmimp.TransBase) { t.Protocol, t.WaitResult, t.RetryInterval = dtmimp.Jrpc, true, 1 }

func TestJSONRPCMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), "http")
	gid := w.gid()
	m := dtmcli.NewMsg(w.root+"/api/json-rpc", gid).Add(w.to(w.porthos, "action"), amount{30})
	byJSONRPC(&m.TransBase)
	if err := m.DoAndSubmitDB(w.to(w.athos, "query"), w.athos.db, w.take); err != nil {
		t.Fatal(err)
	}
	w.requireStatus(t, gid, "succeed")
	if err := m.Prepare(w.to(w.athos, "query")); err == nil {
		t.Error("it was prepared after its end")
	}
	w.requireMoney(70, 130)
}

func TestJSONRPCTCC(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sharedServer(t), "http")
	for _, c := range []struct {
		amount int64
		status string
	}{{-30, "succeed"}, {-300, "failed"}} {
		gid := w.gid()
		err := dtmcli.TccGlobalTransaction2(w.root+"/api/json-rpc", gid, func(t *dtmcli.Tcc) { byJSONRPC(&t.TransBase) }, func(t *dtmcli.Tcc) (*resty.Response, error) {
			return t.CallBranch(amount{c.amount}, w.to(w.athos, "try"), w.to(w.athos, "confirm"), w.to(w.athos, "cancel"))
		})
		if (err == nil) != (c.status == "succeed") {
			t.Errorf("%d: got %v", c.amount, err)
		}
		w.await(t, gid, c.status)
	}
	w.requireMoney(70, 100)
}
