package grpcclient_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/grpcclient"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/callsign"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store"
)

var signingKey = bytes.Repeat([]byte("k"), 32)

// A vault is a participant that takes signed calls only, and counts them.
type vault struct {
	addr  string
	calls atomic.Int64
	last  atomic.Pointer[client.Call]
	body  atomic.Pointer[structpb.Struct]
}

const (
	vaultMethod = "/test.Vault/Pay"
	otherMethod = "/test.Vault/Refund"
)

func newVault(t *testing.T, keys ...[]byte) *vault {
	t.Helper()
	server := grpc.NewServer(grpc.UnaryInterceptor(grpcclient.UnaryServerInterceptor()))
	signed, err := grpcclient.SignedBy(server, keys...)
	if err != nil {
		t.Fatal(err)
	}
	v := new(vault)
	method := func(name string) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			m := new(structpb.Struct)
			if err := decode(m); err != nil {
				return nil, err
			}
			return intercept(ctx, m, &grpc.UnaryServerInfo{FullMethod: "/test.Vault/" + name}, func(ctx context.Context, m any) (any, error) {
				call, _ := client.CallFrom(ctx)
				v.last.Store(call)
				v.body.Store(m.(*structpb.Struct))
				v.calls.Add(1)
				return new(emptypb.Empty), nil
			})
		}}
	}
	signed.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Vault", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{method("Pay"), method("Refund")},
		Streams: []grpc.StreamDesc{{StreamName: "Watch", ServerStreams: true, Handler: func(any, grpc.ServerStream) error { v.calls.Add(1); return nil }}},
	}, v)
	l := listen(t)
	v.addr = l.Addr().String()
	serve(t, l, server)
	return v
}

// A seen call is one of the server's, as it is on the wire.
type seen struct {
	method string
	md     metadata.MD
	body   []byte
}

// An eavesdropper stands where a participant should, and keeps what it is sent.
type eavesdropper struct {
	addr string
	kept chan seen
}

func eavesdrop(t *testing.T) *eavesdropper {
	t.Helper()
	e := &eavesdropper{kept: make(chan seen, 1)}
	server := grpc.NewServer(grpc.ForceServerCodecV2(encoding.GetCodecV2("proto")), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		m := new(emptypb.Empty)
		if err := s.RecvMsg(m); err != nil {
			return err
		}
		md, _ := metadata.FromIncomingContext(s.Context())
		method, _ := grpc.MethodFromServerStream(s)
		e.kept <- seen{method, md, m.ProtoReflect().GetUnknown()}
		return status.Error(codes.Unavailable, "the call is lost")
	}))
	l := listen(t)
	e.addr = l.Addr().String()
	serve(t, l, server)
	return e
}

// many has a map of several entries, which no encoder has to write in one order.
var many = []byte("\x0a\x07\x0a\x01a\x12\x02\x20\x01\x0a\x07\x0a\x01c\x12\x02\x20\x00\x0a\x07\x0a\x01b\x12\x02\x20\x01")

func callOf(addr, method string, payload []byte) engine.Call {
	return engine.Call{
		GID: "g1", Pattern: store.Saga, Protocol: "grpc", Branch: "01", Op: store.Action, URL: addr + method, Payload: payload, Timeout: time.Minute,
	}
}

func signer(t *testing.T, key []byte) *outbound.Caller {
	t.Helper()
	c, err := outbound.New(outbound.Config{SigningKey: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// S6: the server's calls are let in, repetitions among them, and say what they said.
func TestSignedCallsAreLetIn(t *testing.T) {
	t.Parallel()
	next := bytes.Repeat([]byte("n"), 32)
	v := newVault(t, signingKey, next)
	for i, key := range [][]byte{signingKey, next, signingKey} {
		if a, text := signer(t, key).Call(t.Context(), callOf(v.addr, vaultMethod, many)); a != engine.Success {
			t.Fatalf("call %d: %d %s", i, a, text)
		}
	}
	if a, text := signer(t, signingKey).Call(t.Context(), callOf(v.addr, vaultMethod, nil)); a != engine.Success {
		t.Errorf("an empty message: %d %s", a, text)
	}
	if n := v.calls.Load(); n != 4 {
		t.Errorf("%d calls", n)
	}
	if got, want := *v.last.Load(), (client.Call{GID: "g1", Pattern: client.PatternSaga, Branch: "01", Op: client.OpAction}); got.GID != want.GID ||
		got.Pattern != want.Pattern || got.Branch != want.Branch || got.Op != want.Op {
		t.Errorf("the call is %+v", got)
	}
	if a, text := signer(t, signingKey).Call(t.Context(), callOf(v.addr, vaultMethod, many)); a != engine.Success || len(v.body.Load().GetFields()) != 3 {
		t.Errorf("%d %s: the message is %v", a, text, v.body.Load())
	}
}

// S6: whatever else somebody makes of a call that they have seen is refused; the call itself
// is let in once.
func TestCallsThatWereNotSigned(t *testing.T) {
	t.Parallel()
	e := eavesdrop(t)
	caller := signer(t, signingKey)
	capture := func(t *testing.T) seen {
		t.Helper()
		caller.Call(t.Context(), callOf(e.addr, vaultMethod, many))
		return <-e.kept
	}
	v := newVault(t, signingKey)
	conn := dial(t, v.addr)
	send := func(t *testing.T, c seen) error {
		t.Helper()
		m := new(emptypb.Empty)
		m.ProtoReflect().SetUnknown(c.body)
		md := c.md.Copy()
		for name := range md { // those of the connection
			if strings.HasPrefix(name, ":") || slices.Contains([]string{"content-type", "user-agent"}, name) {
				delete(md, name)
			}
		}
		return conn.Invoke(metadata.NewOutgoingContext(t.Context(), md), c.method, m, new(emptypb.Empty))
	}
	sign := func(c seen, key []byte, ago time.Duration) {
		c.md.Set(callsign.Metadata, callsign.Sign(key, callsign.OfGRPC(c.md, c.method, c.body), time.Now().Add(-ago)))
	}
	set := func(key string, values ...string) func(*seen) {
		return func(c *seen) { c.md.Set(key, values...) }
	}
	for name, change := range map[string]func(*seen){
		"missing":         func(c *seen) { c.md.Delete(callsign.Metadata) },
		"empty":           set(callsign.Metadata, ""),
		"nonsense":        set(callsign.Metadata, "t=1,n=2,v1=3"),
		"signed twice":    func(c *seen) { c.md.Append(callsign.Metadata, c.md.Get(callsign.Metadata)[0]) },
		"body":            func(c *seen) { c.body = bytes.Replace(c.body, []byte("c"), []byte("d"), 1) },
		"shorter body":    func(c *seen) { c.body = c.body[:9] },
		"longer body":     func(c *seen) { c.body = append(bytes.Clone(c.body), c.body[:9]...) },
		"no body":         func(c *seen) { c.body = nil },
		"method":          func(c *seen) { c.method = otherMethod },
		"gid":             set("dtm-gid", "g2"),
		"no gid":          func(c *seen) { c.md.Delete("dtm-gid") },
		"gid twice":       set("dtm-gid", "g1", "g1"),
		"branch":          set("dtm-branch_id", "02"),
		"op":              set("dtm-op", "compensate"),
		"pattern":         set("dtm-trans_type", "tcc"),
		"pattern twice":   set("dtm-trans_type", "saga", "tcc"),
		"another's key":   func(c *seen) { sign(*c, bytes.Repeat([]byte("o"), 32), 0) },
		"too old":         func(c *seen) { sign(*c, signingKey, 2*time.Hour) },
		"from the future": func(c *seen) { sign(*c, signingKey, -2*time.Hour) },
	} {
		c := capture(t)
		c.body = bytes.Clone(c.body)
		c.md = c.md.Copy()
		original := seen{c.method, c.md.Copy(), bytes.Clone(c.body)}
		change(&c)
		before := v.calls.Load()
		if err := send(t, c); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
		if v.calls.Load() != before {
			t.Errorf("%s: the participant was called", name)
		}
		if err := send(t, original); err != nil {
			t.Errorf("%s: the call itself, after that: %v", name, err)
		}
		if err := send(t, original); status.Code(err) != codes.Unauthenticated || v.calls.Load() != before+1 {
			t.Errorf("%s: a replay: %v", name, err)
		}
	}
}

// What a server never says is not heard from somebody who says it beside a good signature.
func TestWhatIsNotSignedIsNotHeard(t *testing.T) {
	t.Parallel()
	v := newVault(t, signingKey)
	m := new(emptypb.Empty)
	m.ProtoReflect().SetUnknown(many)
	md := metadata.Pairs("dtm-gid", "g1", "dtm-branch_id", "01", "dtm-op", "action", "dtm-trans_type", "xa",
		"dtm-dtm", "evil.test:36790", "dtm-phase2_url", "evil.test:1/a.B/C")
	md.Set(callsign.Metadata, callsign.Sign(signingKey, callsign.OfGRPC(md, vaultMethod, many), time.Now()))
	if err := dial(t, v.addr).Invoke(metadata.NewOutgoingContext(t.Context(), md), vaultMethod, m, new(emptypb.Empty)); err != nil {
		t.Fatal(err)
	}
	if got := v.last.Load(); got.Server != "" || got.Phase2URL != "" || got.Pattern != client.PatternXA {
		t.Errorf("the call is %+v", got)
	}
}

func TestSignedServiceHasNoStreams(t *testing.T) {
	t.Parallel()
	v := newVault(t, signingKey)
	s, err := dial(t, v.addr).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/test.Vault/Watch")
	if err == nil {
		err = s.RecvMsg(new(emptypb.Empty))
	}
	if status.Code(err) != codes.Unauthenticated || v.calls.Load() != 0 {
		t.Errorf("a stream: %v", err)
	}
}

// A workflow behind a signature is resumed by the server, and by nobody else.
func TestSignedWorkflow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := grpc.NewServer()
	signed, err := grpcclient.SignedBy(server, signingKey)
	if err != nil {
		t.Fatal(err)
	}
	grpcclient.RegisterWorkflows(signed, w.workflows)
	var inputs []string
	err = w.workflows.Register("wf", func(_ context.Context, _ *client.Workflow, input []byte) ([]byte, error) {
		inputs = append(inputs, string(input))
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	serve(t, l, server)
	call := engine.Call{
		GID: "wf-2", Pattern: store.Workflow, Protocol: "grpc", Branch: "00", Op: store.Resume, Name: "wf",
		URL: l.Addr().String() + grpcclient.ResumeMethod, Payload: []byte("input"), Timeout: time.Minute,
	}
	unsigned, err := outbound.New(outbound.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unsigned.Close() }()
	if a, text := unsigned.Call(t.Context(), call); a != engine.Unknown || !strings.Contains(text, "Unauthenticated") {
		t.Errorf("unsigned: %d %s", a, text)
	}
	if a, text := signer(t, signingKey).Call(t.Context(), call); a != engine.Success {
		t.Errorf("signed: %d %s", a, text)
	}
	if !slices.Equal(inputs, []string{"input"}) {
		t.Errorf("it ran with %q", inputs)
	}
}

func TestSignedByKeys(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][][]byte{"none": nil, "short": {signingKey, []byte("hunter2")}} {
		if _, err := grpcclient.SignedBy(grpc.NewServer(), keys...); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
