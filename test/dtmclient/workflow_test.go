package dtmclient_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/dtm-labs/client/workflow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// dtm's client keeps its workflows, the server's address and the protocol in globals: these
// cases run one after the other.

// A flow is a workflow in a world of its own. Whatever its protocol with the server is, it
// may call banks by both, and itself.
type flow struct {
	*world
	conn map[*bank]*grpc.ClientConn // to the banks, with the client's interceptor
}

func workflows(t *testing.T, test func(t *testing.T, f *flow)) {
	t.Helper()
	for _, p := range []string{"http", "grpc"} {
		t.Run(p, func(t *testing.T) { test(t, newFlow(t, sharedServer(t), p)) })
	}
}

func newFlow(t *testing.T, s *server, protocol string) *flow {
	t.Helper()
	f := &flow{world: newWorld(t, s, protocol), conn: map[*bank]*grpc.ClientConn{}}
	for _, b := range []*bank{f.athos, f.porthos} {
		conn, err := grpc.NewClient(b.rpc, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(workflow.Interceptor))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		f.conn[b] = conn
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with the test
	if err != nil {
		t.Fatal(err)
	}
	resume := grpc.NewServer()
	workflow.InitHTTP(f.http, f.athos.url+"/resume")
	workflow.InitGrpc(f.rpc, listener.Addr().String(), resume)
	workflow.SetProtocolForTest(protocol)
	go func() { _ = resume.Serve(listener) }() // ends when it is stopped
	t.Cleanup(resume.Stop)
	return f
}

// start runs a workflow under its gid, which is its name too.
func (f *flow) start(t *testing.T, gid string, run workflow.WfFunc2, input []byte) ([]byte, error) {
	t.Helper()
	err := workflow.Register2(gid, run, func(wf *workflow.Workflow) { wf.TimeoutToFail, wf.RetryInterval = 6, 1 })
	if err != nil {
		t.Fatal(err)
	}
	return workflow.Execute2(gid, gid, input)
}

// byHTTP is a saga's step; the client records what came of it.
func (f *flow) byHTTP(wf *workflow.Workflow, s step) error {
	wf.NewBranch().OnRollback(func(*dtmcli.BranchBarrier) error {
		return f.post(wf, s, "compensate")
	})
	return f.post(wf, s, "action")
}

func (f *flow) post(wf *workflow.Workflow, s step, work string) error {
	_, err := wf.NewRequest().SetBody(amount{s.amount}).Post(s.bank.url + "/" + work)
	return err
}

// byGRPC is a step of TCC.
func (f *flow) byGRPC(wf *workflow.Workflow, s step) error {
	wf.NewBranch().OnCommit(func(*dtmcli.BranchBarrier) error {
		return f.invoke(wf, s, "confirm")
	}).OnRollback(func(*dtmcli.BranchBarrier) error {
		return f.invoke(wf, s, "cancel")
	})
	return f.invoke(wf, s, "try")
}

func (f *flow) invoke(wf *workflow.Workflow, s step, work string) error {
	err := f.conn[s.bank].Invoke(wf.Context, "/bank.Bank/"+work, wrapperspb.Int64(s.amount), &emptypb.Empty{})
	return dtmgrpc.GrpcError2DtmError(err)
}

// locally is a step in the workflow's own database.
func (f *flow) locally(wf *workflow.Workflow, s step) error {
	_, err := wf.NewBranch().OnRollback(func(b *dtmcli.BranchBarrier) error {
		return s.bank.serve("compensate", b, s.amount)
	}).Do(func(b *dtmcli.BranchBarrier) ([]byte, error) {
		return nil, s.bank.serve("action", b, s.amount)
	})
	return err
}

// byXA is a step in the workflow's own database that commits with the workflow.
func (f *flow) byXA(wf *workflow.Workflow, s step) error {
	return s.bank.inXA(s.amount, func(work func(db *sql.DB) error) error {
		_, err := wf.NewBranch().DoXa(s.bank.conf, func(db *sql.DB) ([]byte, error) { return nil, work(db) })
		return err
	})
}

// A workflow with a step of each kind: by HTTP, by gRPC, local, XA.
func TestWorkflow(t *testing.T) {
	workflows(t, func(t *testing.T, f *flow) {
		gid := f.gid()
		run := func(wf *workflow.Workflow, input []byte) ([]byte, error) {
			return bytes.ToUpper(input), errors.Join( // in this order
				f.byHTTP(wf, step{f.athos, -20}),
				f.byXA(wf, step{f.athos, -10}), // and the account is locked
				f.byGRPC(wf, step{f.porthos, 20}),
				f.locally(wf, step{f.porthos, 10}))
		}
		result, err := f.start(t, gid, run, []byte("done"))
		if err != nil || string(result) != "DONE" {
			t.Fatalf("got %q, %v", result, err)
		}
		f.requireStatus(t, gid, "succeed")
		f.requireMoney(70, 130)

		again, err := workflow.Execute2(gid, gid, []byte("done")) // is told what it was
		if err != nil || string(again) != "DONE" {
			t.Errorf("the second time: %q, %v", again, err)
		}
		f.requireMoney(70, 130)
	})
}

// The last step refuses: the others are undone, each in its way.
func TestWorkflowRolledBack(t *testing.T) {
	workflows(t, func(t *testing.T, f *flow) {
		gid := f.gid()
		run := func(wf *workflow.Workflow, _ []byte) ([]byte, error) {
			for _, do := range []func() error{
				func() error { return f.byXA(wf, step{f.athos, -10}) },
				func() error { return f.byHTTP(wf, step{f.porthos, 20}) },
				func() error { return f.byGRPC(wf, step{f.porthos, 20}) },
				func() error { return f.locally(wf, step{f.porthos, -500}) },
			} {
				if err := do(); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}
		if _, err := f.start(t, gid, run, nil); !errors.Is(err, dtmcli.ErrFailure) {
			t.Errorf("got %v", err)
		}
		f.requireStatus(t, gid, "failed")
		f.requireMoney(100, 100)
		if _, err := workflow.Execute2(gid, gid, nil); !errors.Is(err, dtmcli.ErrFailure) {
			t.Errorf("the second time: %v", err)
		}
	})
}

// The client crashes between two steps: the server has the workflow resumed, and the
// steps that were done are not done again.
func TestWorkflowResumed(t *testing.T) {
	workflows(t, func(t *testing.T, f *flow) {
		gid := f.gid()
		crashes := 2
		run := func(wf *workflow.Workflow, input []byte) ([]byte, error) {
			if string(input) != "30 to porthos" {
				return nil, fmt.Errorf("input %q", input)
			}
			if err := f.byHTTP(wf, step{f.athos, -30}); err != nil {
				return nil, err
			}
			if err := f.byGRPC(wf, step{f.porthos, 20}); err != nil {
				return nil, err
			}
			if crashes > 0 {
				crashes--
				return nil, errors.New("crashed")
			}
			return nil, f.locally(wf, step{f.porthos, 10})
		}
		if _, err := f.start(t, gid, run, []byte("30 to porthos")); err == nil {
			t.Fatal("it did not crash")
		}
		f.requireStatus(t, gid, "prepared")
		f.await(t, gid, "succeed")
		if crashes != 0 {
			t.Errorf("%d crashes are left", crashes)
		}
		f.athos.mu.Lock()
		calls := slices.DeleteFunc(slices.Clone(f.athos.calls), func(c string) bool { return c == "00 resume" })
		f.athos.mu.Unlock()
		if want := []string{"01 action"}; !slices.Equal(calls, want) {
			t.Errorf("calls of athos %q, want %q", calls, want)
		}
		f.porthos.requireCalls("02 try", "03 action", "02 confirm")
		f.requireMoney(70, 130)
	})
}

// A bank is busy: the workflow is neither done nor failed, and resumed later.
func TestWorkflowOngoing(t *testing.T) {
	workflows(t, func(t *testing.T, f *flow) {
		gid := f.gid()
		f.porthos.next("action", isBusy)
		run := func(wf *workflow.Workflow, _ []byte) ([]byte, error) {
			if err := f.byXA(wf, step{f.athos, -30}); err != nil {
				return nil, err
			}
			return nil, f.byHTTP(wf, step{f.porthos, 30})
		}
		if _, err := f.start(t, gid, run, nil); !errors.Is(err, dtmcli.ErrOngoing) {
			t.Errorf("got %v", err)
		}
		f.requireStatus(t, gid, "prepared")
		f.await(t, gid, "succeed")
		f.requireMoney(70, 130)
	})
}

// What a workflow was given and returns may be large (dtm: 700 bytes on a SQL store).
func TestWorkflowLargeInput(t *testing.T) {
	workflows(t, func(t *testing.T, f *flow) {
		gid, input := f.gid(), bytes.Repeat([]byte("louis "), 200_000)
		result, err := f.start(t, gid, func(_ *workflow.Workflow, in []byte) ([]byte, error) { return in, nil }, input)
		if err != nil || !bytes.Equal(result, input) {
			t.Errorf("got %d bytes, %v", len(result), err)
		}
	})
}
