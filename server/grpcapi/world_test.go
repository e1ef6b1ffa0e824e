package grpcapi_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/dtm-labs/client/dtmgrpc/dtmgpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/grpcapi"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// A world is a server with its participants, all on loopback, and dtm's own stub as the
// client.
type world struct {
	t            *testing.T
	store        store.Store
	address      string // of the server
	dtm          dtmgpb.DtmClient
	participants *participants
}

func newWorld(t *testing.T, cfg outbound.Config) *world {
	t.Helper()
	w := &world{t: t, store: memory.New(), participants: newParticipants(t)}
	caller, err := outbound.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caller.Close() })
	e, err := engine.Open(t.Context(), w.store, engine.Config{
		Caller: caller, Limits: engine.Limits{RetryInterval: 10 * time.Millisecond, RetryIntervalMax: 20 * time.Millisecond, RequestTimeout: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	w.address = listen(t, func(g *grpc.Server) {
		grpcapi.Register(g, grpcapi.Config{Engine: e, Store: w.store, Check: caller.Check})
	})
	w.dtm = dtmgpb.NewDtmClient(dial(t, w.address))
	return w
}

func listen(t *testing.T, register func(*grpc.Server), options ...grpc.ServerOption) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(options...)
	register(g)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := g.Serve(l); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		g.Stop()
		<-ended
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// wants fails the test unless an error has a code.
func (w *world) wants(err error, code codes.Code) {
	w.t.Helper()
	if status.Code(err) != code {
		w.t.Fatalf("%v, want %s", err, code)
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	w.wants(err, codes.OK)
}

func (w *world) get(gid string) *store.Transaction {
	w.t.Helper()
	t, err := w.store.Get(w.t.Context(), gid)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

func (w *world) absent(gid string) {
	w.t.Helper()
	if t, err := w.store.Get(w.t.Context(), gid); err == nil {
		w.t.Fatalf("%s is stored: %+v", gid, t)
	}
}

// await waits until a transaction is in a state.
func (w *world) await(gid string, want store.State) {
	w.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(2 * time.Millisecond) {
		is := w.get(gid).State
		if is == want {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s is %s, want %s", gid, is, want)
		}
	}
}

// participants are the methods of one gRPC server, made as they are called.
type participants struct {
	address string

	mu      sync.Mutex
	scripts map[string][]error // by method and operation
	heard   []heard
}

// heard is one call.
type heard struct {
	method, op, gid, branch, pattern, contentType string
	md                                            metadata.MD
	body                                          []byte
}

func newParticipants(t *testing.T) *participants {
	p := &participants{scripts: make(map[string][]error)}
	p.address = listen(t, func(*grpc.Server) {}, grpc.UnknownServiceHandler(p.handle))
	return p
}

func (p *participants) url(method string) string { return p.address + "/busi.Busi/" + method }

// will sets what a method answers for an operation, one time after the other, and the
// last for ever. Without it it succeeds.
func (p *participants) will(method, op string, answers ...error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.scripts[method+" "+op] = answers
}

var (
	refuses = status.Error(codes.Aborted, "no money")
	goesOn  = status.Error(codes.FailedPrecondition, "not yet")
	breaks  = status.Error(codes.Unavailable, "out of order")
)

func (p *participants) handle(_ any, stream grpc.ServerStream) error {
	request := new(emptypb.Empty) // what it does not know it keeps
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	get := func(key string) string {
		if v := md.Get(key); len(v) == 1 {
			return v[0]
		}
		return fmt.Sprintf("%q", md.Get(key))
	}
	name, _ := grpc.MethodFromServerStream(stream)
	h := heard{
		method: name[len("/busi.Busi/"):], op: get("dtm-op"), gid: get("dtm-gid"), branch: get("dtm-branch_id"), pattern: get("dtm-trans_type"),
		contentType: get("content-type"), md: md, body: request.ProtoReflect().GetUnknown(),
	}
	if err := p.answer(h); err != nil {
		return err
	}
	return stream.SendMsg(new(emptypb.Empty))
}

func (p *participants) answer(h heard) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, h)
	key := h.method + " " + h.op
	script := p.scripts[key]
	if len(script) == 0 {
		return nil
	}
	if len(script) > 1 {
		p.scripts[key] = script[1:]
	}
	return script[0]
}

// calls returns the calls of a method for an operation, of one transaction.
func (p *participants) calls(method, op, gid string) (calls []heard) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.heard {
		if h.method == method && h.op == op && h.gid == gid {
			calls = append(calls, h)
		}
	}
	return calls
}

// called fails the test unless a method was called so many times for an operation.
func (w *world) called(method, op, gid string, times int) {
	w.t.Helper()
	if calls := w.participants.calls(method, op, gid); len(calls) != times {
		w.t.Fatalf("%s of %s: called %d times for %s, want %d: %v", method, gid, len(calls), op, times, calls)
	}
}
