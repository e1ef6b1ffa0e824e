package grpcclient_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/grpcclient"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/grpcapi"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store/memory"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// A world is a server with its engine, a client over gRPC, and a participant.
type world struct {
	*client.Client
	engine    *engine.Engine
	addr      string // the participant's
	conn      *grpc.ClientConn
	workflows *client.Workflows // resumed at the participant
	ahead     atomic.Int64      // how far the engine's clock is ahead, in nanoseconds

	mu     sync.Mutex
	seen   []string
	answer func(call *client.Call) error
}

const method = "/test.Shop/Call"

func newWorld(t *testing.T) *world {
	t.Helper()
	calls, err := outbound.New(outbound.Config{})
	if err != nil {
		t.Fatal(err)
	}
	kept, w := memory.New(), new(world)
	e, err := engine.Open(t.Context(), kept, engine.Config{
		Caller: calls, PollEvery: 20 * time.Millisecond, Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
		Limits: engine.Limits{RetryInterval: 30 * time.Millisecond, RetryIntervalMax: 200 * time.Millisecond, RequestTimeout: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(e.Close(ctx), calls.Close()); err != nil {
			t.Error(err)
		}
	})
	w.engine = e
	server := grpc.NewServer()
	grpcapi.Register(server, grpcapi.Config{Engine: e, Store: kept})
	onServer := listen(t)
	serve(t, onServer, server)
	serverAddr := onServer.Addr().String()
	c, err := client.New(client.Config{Transport: grpcclient.New(dial(t, serverAddr), serverAddr), RetryPause: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w.Client = c

	participant := grpc.NewServer(grpc.UnaryInterceptor(grpcclient.UnaryServerInterceptor()))
	participant.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Shop", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: w.call}},
	}, w)
	l := listen(t)
	w.addr = l.Addr().String()
	w.workflows = c.Workflows(w.addr + grpcclient.ResumeMethod)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.workflows.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	grpcclient.RegisterWorkflows(participant, w.workflows)
	serve(t, l, participant)
	w.conn = dial(t, w.addr)
	return w
}

// later lets the time pass after which the server resumes a workflow.
func (w *world) later() { w.ahead.Add(int64(time.Hour)) }

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func serve(t *testing.T, l net.Listener, s *grpc.Server) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(grpcclient.UnaryClientInterceptor()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// call is the participant's method.
func (w *world) call(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // the type is grpc's
	m := new(wrapperspb.StringValue)
	if err := decode(m); err != nil {
		return nil, err
	}
	return intercept(ctx, m, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, m any) (any, error) {
		call, ok := client.CallFrom(ctx)
		if !ok {
			return nil, status.Error(codes.Internal, "no call in the context")
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.seen = append(w.seen, call.Branch+" "+string(call.Op)+" "+m.(*wrapperspb.StringValue).GetValue())
		if w.answer != nil {
			if err := w.answer(call); err != nil {
				return nil, err
			}
		}
		return wrapperspb.String("did " + string(call.Op)), nil
	})
}

func (w *world) require(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.seen, want) {
		t.Errorf("calls are %q, want %q", w.seen, want)
	}
}

func (w *world) await(t *testing.T, gid, want string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		x, err := w.engine.Get(t.Context(), gid)
		if err != nil {
			t.Fatal(err)
		}
		if x.State.Over() || time.Now().After(deadline) {
			if x.State.String() != want {
				t.Fatalf("%s is %s, want %s", gid, x.State, want)
			}
			return
		}
	}
}

// payload is a StringValue as protobuf writes it.
func payload(s string) []byte { return append([]byte{10, byte(len(s))}, s...) }

func TestSaga(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	saga := w.Saga(client.Wait()).Add(w.addr+method, w.addr+method, payload("one")).Add(w.addr+method, w.addr+method, payload("\u00e9\u0000"))
	for range 2 { // the second is a repetition of one that is over
		if err := saga.Submit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.require(t, "01 action one", "02 action é\u0000")
}

func TestSagaIsUndone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.answer = func(call *client.Call) error {
		if call.Branch == "02" && call.Op == client.OpAction {
			return fmt.Errorf("sold out: %w", client.ErrFailed)
		}
		return nil
	}
	saga := w.Saga(client.Wait()).Add(w.addr+method, w.addr+method, payload("a")).Add(w.addr+method, w.addr+method, payload("b"))
	for range 2 {
		if err := saga.Submit(t.Context()); !errors.Is(err, client.ErrFailed) {
			t.Errorf("error is %v", err)
		}
	}
	w.require(t, "01 action a", "02 action b", "02 compensate b", "01 compensate a")
}

func TestTCC(t *testing.T) {
	t.Parallel()
	for _, kind := range []error{nil, client.ErrFailed, client.ErrOngoing} {
		w := newWorld(t)
		w.answer = func(call *client.Call) error {
			if call.Op == client.OpTry {
				return kind
			}
			return nil
		}
		var tried error
		var gid string
		err := w.TCC(t.Context(), func(ctx context.Context, tcc *client.TCC) error {
			gid = tcc.GID()
			b := client.TCCBranch{Confirm: w.addr + method, Cancel: w.addr + method, Payload: payload("x")}
			tried = tcc.Do(ctx, b, func(ctx context.Context) error {
				reply := new(wrapperspb.StringValue)
				err := w.conn.Invoke(ctx, method, wrapperspb.String("x"), reply)
				if err == nil && reply.GetValue() != "did try" {
					t.Errorf("reply is %q", reply.GetValue())
				}
				return err
			})
			return tried
		}, client.Wait())
		if kind == nil {
			if err != nil {
				t.Fatal(err)
			}
			w.require(t, "01 try x", "01 confirm x")
			continue
		}
		if !errors.Is(err, client.ErrFailed) || !errors.Is(tried, kind) || status.Code(tried) == codes.Unknown {
			t.Errorf("errors are %v and %v, want ErrFailed and %v", err, tried, kind)
		}
		w.await(t, gid, "failed")
		w.require(t, "01 try x", "01 cancel x")
	}
}

func TestWorkflowIsResumed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ws := w.workflows
	failed := false
	w.answer = func(*client.Call) error {
		if !failed {
			failed = true
			return errors.New("out of order")
		}
		return nil
	}
	f := func(ctx context.Context, wf *client.Workflow, input []byte) ([]byte, error) {
		return wf.Step("call").Do(ctx, func(ctx context.Context) ([]byte, error) {
			reply := new(wrapperspb.StringValue)
			err := w.conn.Invoke(ctx, method, wrapperspb.String(string(input)), reply)
			return []byte(reply.GetValue()), err
		})
	}
	if err := ws.Register("wf", f); err != nil {
		t.Fatal(err)
	}
	_, err := ws.Execute(t.Context(), "wf", []byte("in"), client.GID("wf-1"))
	if !errors.Is(err, client.ErrUnknown) {
		t.Fatalf("error is %v", err)
	}
	w.later()
	w.await(t, "wf-1", "succeed")
	result, err := ws.Execute(t.Context(), "wf", []byte("in"), client.GID("wf-1"))
	if err != nil || string(result) != "did action" {
		t.Errorf("result of a workflow that is over: %q, %v", result, err)
	}
	w.require(t, "01-call action in", "01-call action in")
}

// The server gives up on each call after a second; the step takes three, and is done once.
func TestStepLongerThanTheRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const requestTimeout = time.Second
	var runs, begun atomic.Int32
	err := w.workflows.Register("slow", func(ctx context.Context, wf *client.Workflow, _ []byte) ([]byte, error) {
		if runs.Add(1) == 1 {
			return nil, errors.New("this process dies")
		}
		return wf.Step("slow").Do(ctx, func(ctx context.Context) ([]byte, error) {
			begun.Add(1)
			select {
			case <-time.After(3 * requestTimeout):
				return []byte{0xff}, nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.workflows.Execute(t.Context(), "slow", nil, client.GID("slow"), client.RequestTimeout(requestTimeout))
	if err == nil {
		t.Fatal("the first run succeeded")
	}
	w.later()
	w.await(t, "slow", "succeed")
	result, err := w.workflows.Execute(t.Context(), "slow", nil, client.GID("slow"))
	if err != nil || string(result) != "\xff" || begun.Load() != 1 || runs.Load() != 2 {
		t.Errorf("result %q, %v; the step was begun %d times in %d runs, want once in 2", result, err, begun.Load(), runs.Load())
	}
}

// A workflow that panics when it is resumed must not end the process: the server would ask
// the next one. It is run again.
func TestResumedWorkflowPanics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var runs atomic.Int32
	err := w.workflows.Register("shaky", func(context.Context, *client.Workflow, []byte) ([]byte, error) {
		switch runs.Add(1) {
		case 1:
			return nil, errors.New("this process dies")
		case 2:
			panic("planted")
		}
		return []byte("paid"), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.workflows.Execute(t.Context(), "shaky", nil, client.GID("shaky")); err == nil {
		t.Fatal("the first run succeeded")
	}
	w.later()
	w.await(t, "shaky", "succeed")
	if n := runs.Load(); n != 3 {
		t.Errorf("%d runs, want 3", n)
	}
}

// Another workflow, or another input, under a used name is refused, as over HTTP.
func TestWorkflowOfAnotherInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runs := 0
	f := func(context.Context, *client.Workflow, []byte) ([]byte, error) {
		runs++
		return []byte("paid"), nil
	}
	for _, name := range []string{"pay", "refund"} {
		if err := w.workflows.Register(name, f); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, input string
		want        string // part of the refusal
	}{{"pay", "30", ""}, {"pay", "30", ""}, {"pay", "31", "another input"}, {"pay", "", "another input"}, {"refund", "30", "another name"}} {
		result, err := w.workflows.Execute(t.Context(), c.name, []byte(c.input), client.GID("order-7"))
		if c.want == "" && (err != nil || string(result) != "paid") {
			t.Errorf("%s of %s: %q, %v", c.name, c.input, result, err)
		}
		if c.want != "" && (!errors.Is(err, client.ErrRefused) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s of %s: %q, %v; want a refusal because of %s", c.name, c.input, result, err, c.want)
		}
	}
	if runs != 1 {
		t.Errorf("%d runs, want 1", runs)
	}
}

// A server that is asked too often has not carried the request out; one that is sent too
// much never will.
func TestTooMuchForTheServer(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		"too many requests: slow down":                                 client.ErrUnknown,
		"grpc: received message larger than max (5000000 vs. 4194304)": client.ErrInvalid,
	} {
		attempts := 0
		c, err := client.New(client.Config{
			Transport: grpcclient.New(answering{func() error { attempts++; return status.Error(codes.ResourceExhausted, text) }}, ""), RetryPause: time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Saga().Add("x/y/z", "", nil).Submit(t.Context())
		if repeated := attempts > 1; !errors.Is(err, want) || repeated != errors.Is(want, client.ErrUnknown) {
			t.Errorf("%s: %v after %d attempts, want %v", text, err, attempts, want)
		}
	}
}

// An answering connection has one answer.
type answering struct{ answer func() error }

func (a answering) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return a.answer()
}

func (a answering) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, a.answer()
}

func TestServerIsAway(t *testing.T) {
	t.Parallel()
	conn := dial(t, "127.0.0.1:1")
	c, err := client.New(client.Config{Transport: grpcclient.New(conn, ""), RetryPause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Saga().Add("x/y/z", "", nil).Submit(t.Context()); !errors.Is(err, client.ErrUnknown) {
		t.Errorf("error is %v", err)
	}
}
