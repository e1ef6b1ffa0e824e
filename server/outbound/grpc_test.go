package outbound_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/callsign"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store"
)

// grpcCall is what a gRPC participant sees.
type grpcCall struct {
	method string
	md     metadata.MD
	body   []byte
	left   time.Duration // until its deadline
}

// grpcParticipant serves every method on an address until stop. answer is its answer.
func grpcParticipant(t *testing.T, address string, answer func(grpcCall) error, options ...grpc.ServerOption) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(append(options, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		request := new(emptypb.Empty) // what it does not know it keeps
		if err := stream.RecvMsg(request); err != nil {
			return err
		}
		c := grpcCall{body: request.ProtoReflect().GetUnknown()}
		c.md, _ = metadata.FromIncomingContext(stream.Context())
		c.method, _ = grpc.MethodFromServerStream(stream)
		if end, ok := stream.Context().Deadline(); ok {
			c.left = time.Until(end)
		}
		if err := answer(c); err != nil {
			return err
		}
		return stream.SendMsg(wrapperspb.String("an answer that nobody reads"))
	}))...)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = g.Serve(l)
	}()
	stop = func() {
		g.Stop()
		<-ended
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func rpcCall(url string) engine.Call {
	c := actionCall(url)
	c.Payload = []byte("\x0a\x02hi")
	return c
}

func TestGRPCRequest(t *testing.T) {
	t.Parallel()
	calls := make(chan grpcCall, 10)
	at, _ := grpcParticipant(t, "127.0.0.1:0", func(c grpcCall) error { calls <- c; return nil })
	c := newCaller(t, outbound.Config{})
	call := engine.Call{
		GID: "g1", Pattern: store.TCC, Protocol: "grpc", Branch: "02", Op: store.Confirm, URL: at + "/bank.Bank/Pay",
		Payload: []byte("\x0a\x02hi"), Headers: map[string]string{"X-Tenant": "blue", "grpc-timeout": "1n", "content-type": "x"}, Timeout: 3 * time.Second,
	}
	if a, text := c.Call(t.Context(), call); a != engine.Success {
		t.Fatalf("%d %s", a, text)
	}
	got := <-calls
	if got.method != "/bank.Bank/Pay" || string(got.body) != "\x0a\x02hi" || got.left <= 0 || got.left > 3*time.Second {
		t.Errorf("got %+v", got)
	}
	for key, want := range map[string]string{
		"dtm-gid": "g1", "dtm-trans_type": "tcc", "dtm-branch_id": "02", "dtm-op": "confirm", "dtm-dtm": "", "x-tenant": "blue",
		"content-type": "application/grpc",
	} {
		if v := got.md.Get(key); len(v) != 1 || v[0] != want {
			t.Errorf("%s: %q, want %q", key, v, want)
		}
	}
	// A workflow's input is the field of a message, and its name the operation.
	call.Pattern, call.Op, call.Name, call.Branch, call.Payload = store.Workflow, store.Resume, "trip", "00", []byte("input")
	call.URL = "grpc://" + at + "/workflow.Workflow/Execute"
	if a, text := c.Call(t.Context(), call); a != engine.Success {
		t.Fatalf("%d %s", a, text)
	}
	if got := <-calls; string(got.body) != "\x0a\x05input" || got.md.Get("dtm-op")[0] != "trip" || got.method != "/workflow.Workflow/Execute" {
		t.Errorf("got %+v", got)
	}
	// Nothing is sent as nothing. In a transaction over HTTP the address tells.
	call.Payload, call.Protocol, call.URL = nil, "http", at+"/workflow.Workflow/Execute"
	if a, text := c.Call(t.Context(), call); a != engine.Success {
		t.Fatalf("%d %s", a, text)
	}
	if got := <-calls; len(got.body) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestGRPCAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		code       codes.Code
		message    string
		want, none engine.Answer // with words, with IgnoreWords
	}{
		{codes.OK, "", engine.Success, engine.Success},
		{codes.Aborted, "no money", engine.Failure, engine.Failure},
		{codes.Aborted, "ONGOING", engine.Ongoing, engine.Failure},
		{codes.FailedPrecondition, "not yet", engine.Ongoing, engine.Ongoing},
		{codes.Unknown, "FAILURE", engine.Unknown, engine.Unknown},
		{codes.Unavailable, "", engine.Unknown, engine.Unknown},
		{codes.Internal, "", engine.Unknown, engine.Unknown},
		{codes.Unimplemented, "", engine.Unknown, engine.Unknown},
		{codes.ResourceExhausted, "", engine.Unknown, engine.Unknown},
		{codes.AlreadyExists, "", engine.Unknown, engine.Unknown},
	} {
		at, _ := grpcParticipant(t, "127.0.0.1:0", func(grpcCall) error { return status.Error(test.code, test.message) })
		for ignore, want := range map[bool]engine.Answer{false: test.want, true: test.none} {
			c := newCaller(t, outbound.Config{IgnoreWords: ignore})
			if a, text := c.Call(t.Context(), rpcCall(at+"/a.B/C")); a != want || !strings.Contains(text, test.message) {
				t.Errorf("%s %q, IgnoreWords %t: %d %s, want %d", test.code, test.message, ignore, a, text, want)
			}
		}
	}
}

func TestGRPCLimits(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	at, _ := grpcParticipant(t, "127.0.0.1:0", func(c grpcCall) error {
		switch c.method {
		case "/a.B/Long":
			return status.Error(codes.Aborted, strings.Repeat("long ", 50_000))
		case "/a.B/Hang":
			<-ended
		}
		return nil
	})
	defer close(ended)
	c := newCaller(t, outbound.Config{AnswerMax: 10})
	if a, text := c.Call(t.Context(), rpcCall(at+"/a.B/Large")); a != engine.Unknown {
		t.Errorf("an answer over the limit: %d %s", a, text)
	}
	if a, text := c.Call(t.Context(), rpcCall(at+"/a.B/Long")); a != engine.Failure || len(text) > 1024 {
		t.Errorf("a long message: %d %d bytes", a, len(text))
	}
	call := rpcCall(at + "/a.B/Hang")
	call.Timeout = 50 * time.Millisecond
	begin := time.Now()
	if a, text := c.Call(t.Context(), call); a != engine.Unknown || time.Since(begin) > 30*time.Second {
		t.Errorf("a hung one: %d %s after %v", a, text, time.Since(begin))
	}
	call = rpcCall(at + "/a.B/C")
	call.GID = "no\nmetadata"
	if a, _ := c.Call(t.Context(), call); a != engine.Unknown {
		t.Errorf("a gid that metadata cannot have: %d", a)
	}
}

// dtm kept failing for up to two minutes after a participant was back.
func TestGRPCParticipantComesBack(t *testing.T) {
	t.Parallel()
	ok := func(grpcCall) error { return nil }
	at, stop := grpcParticipant(t, "127.0.0.1:0", ok)
	c := newCaller(t, outbound.Config{})
	call := rpcCall(at + "/a.B/C")
	if a, text := c.Call(t.Context(), call); a != engine.Success {
		t.Fatalf("%d %s", a, text)
	}
	stop()
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); { // so that the pauses grow to their maximum
		begin := time.Now()
		if a, _ := c.Call(t.Context(), call); a != engine.Unknown {
			t.Fatalf("nobody is there, and the answer is %d", a)
		}
		if d := time.Since(begin); d > 20*time.Second {
			t.Fatalf("it took %v to fail", d)
		}
		<-time.After(50 * time.Millisecond)
	}
	_, _ = grpcParticipant(t, at, ok)
	back := time.Now()
	for {
		a, text := c.Call(t.Context(), call)
		if a == engine.Success {
			break
		}
		if time.Since(back) > 15*time.Second { // 2.4 s, and what a busy machine adds
			t.Fatalf("back since %v: %d %s", time.Since(back), a, text)
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Logf("found again after %v", time.Since(back))
}

// Participants come and go: what is kept of them is bounded, and no call is lost.
func TestGRPCConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	at, _ := grpcParticipant(t, "127.0.0.1:0", func(grpcCall) error { return nil })
	_, port, _ := net.SplitHostPort(at)
	c := newCaller(t, outbound.Config{ConnsMax: 3, Resolver: resolver(t, func(string) []net.IP { return []net.IP{net.IPv4(127, 0, 0, 1)} })})
	for i := range 40 {
		if a, text := c.Call(t.Context(), rpcCall("p"+string(rune('a'+i%20))+".test:"+port+"/a.B/C")); a != engine.Success {
			t.Fatalf("%d %s", a, text)
		}
		if n := outbound.GRPCConnections(c); n > 3 {
			t.Fatalf("%d connections", n)
		}
	}
}

// S6 over gRPC: the participant accepts each call once.
func TestGRPCSignature(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte("k"), 32)
	v, err := callsign.NewVerifier(callsign.Config{Keys: [][]byte{key}})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(c grpcCall) error {
		return v.Verify(strings.Join(c.md.Get(callsign.Metadata), ","), callsign.OfGRPC(c.md, c.method, c.body))
	}
	calls := make(chan grpcCall, 10)
	at, _ := grpcParticipant(t, "127.0.0.1:0", func(c grpcCall) error {
		calls <- c
		if err := verify(c); err != nil {
			return status.Error(codes.Unauthenticated, err.Error())
		}
		return nil
	})
	call := rpcCall(at + "/a.B/C")
	call.Payload, call.Headers = []byte("\x0a\x02hi"), map[string]string{"troth-signature": "forged"}
	if a, text := newCaller(t, outbound.Config{SigningKey: key}).Call(t.Context(), call); a != engine.Success {
		t.Errorf("%d %s", a, text)
	}
	captured := <-calls
	if err := verify(captured); err == nil {
		t.Error("a replay is accepted")
	}
	for name, cfg := range map[string]outbound.Config{"unsigned": {}, "another key": {SigningKey: bytes.Repeat([]byte("o"), 32)}} {
		if a, _ := newCaller(t, cfg).Call(t.Context(), call); a != engine.Unknown {
			t.Errorf("%s: answer %d", name, a)
		}
	}
}

func TestGRPCOverTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	at, _ := grpcParticipant(t, "127.0.0.1:0", func(grpcCall) error { return nil }, grpc.Creds(credentials.NewTLS(ca.server("127.0.0.1"))))
	call := rpcCall("grpcs://" + at + "/a.B/C")
	if a, text := newCaller(t, outbound.Config{TLS: ca.client("troth")}).Call(t.Context(), call); a != engine.Success {
		t.Errorf("%d %s", a, text)
	}
	if a, _ := newCaller(t, outbound.Config{TLS: newAuthority(t).client("troth")}).Call(t.Context(), call); a != engine.Unknown {
		t.Errorf("another authority: %d", a)
	}
	call.URL = at + "/a.B/C"
	if a, _ := newCaller(t, outbound.Config{TLS: ca.client("troth")}).Call(context.Background(), call); a != engine.Unknown {
		t.Errorf("in the clear: %d", a)
	}
}
