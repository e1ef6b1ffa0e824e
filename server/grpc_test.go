package server_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/server/grpcapi/dtmpb"
)

// silence begins a call of a unary method, and never says what it asks.
func silence(t *testing.T, c *grpc.ClientConn, method, token string) error {
	t.Helper()
	ctx := t.Context()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, method)
	if err != nil {
		return err
	}
	return s.RecvMsg(new(emptypb.Empty))
}

// Strangers are refused before they send what they ask, and nobody waits for ever for what
// a client does not send (S3, S8).
func TestGRPCWaitsForNobody(t *testing.T) {
	t.Parallel()
	tokens := withTokens(t)
	w := start(t, func(c *server.Config, e *engine.Config) {
		tokens(c, e)
		c.Limits = server.Limits{ReadTimeout: 2 * time.Second, RequestsMax: 2}
	})
	c := dial(t, w.grpc)
	for _, token := range []string{"", "planted-wrong-0123456789", expiredToken} {
		if err := silence(t, c, "/dtmgimp.Dtm/Prepare", token); status.Code(err) != codes.Unauthenticated {
			t.Errorf("a stranger with %q: %v", token, err)
		}
	}
	if err := silence(t, c, "/dtmgimp.Dtm/Subscribe", aliceToken); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a client who may not: %v", err)
	}
	for range 3 { // more than have a place: each gives it back
		if err := silence(t, c, "/dtmgimp.Dtm/Prepare", aliceToken); status.Code(err) != codes.Canceled {
			t.Errorf("a client: %v", err)
		}
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+aliceToken)
	if err := c.Invoke(ctx, "/dtmgimp.Dtm/NewGid", new(emptypb.Empty), new(emptypb.Empty)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// One who waits for a result over gRPC has an end, as over HTTP.
func TestGRPCAnswerTimeout(t *testing.T) {
	t.Parallel()
	g := &gated{asked: make(chan struct{}), answer: make(chan struct{})}
	w := start(t, func(c *server.Config, e *engine.Config) {
		c.Limits.AnswerTimeout = 300 * time.Millisecond
		e.Caller = g
	})
	defer close(g.answer)
	c := dial(t, w.grpc)
	until(t, func() bool { // a busy machine may not even store it in that time
		err := c.Invoke(t.Context(), "/dtmgimp.Dtm/Submit", &dtmpb.Request{
			Gid: "slow", TransType: "saga", TransOptions: &dtmpb.TransOptions{WaitResult: true},
			Steps: `[{"action":"http://127.0.0.1:1/"}]`, BinPayloads: [][]byte{nil},
		}, new(emptypb.Empty))
		if err == nil {
			t.Error("it has a result")
		}
		tx, err := w.engine.Get(t.Context(), "slow")
		if err == nil && tx.State.Over() {
			t.Errorf("it is %s", tx.State)
		}
		return err == nil
	})
}

// A connection on which nothing is asked is closed.
func TestGRPCIdleConnections(t *testing.T) {
	t.Parallel()
	w := start(t, withLimits(server.Limits{IdleTimeout: 100 * time.Millisecond}))
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", w.grpc)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := http2.NewFramer(c, nil).WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("the server keeps it: %v", err)
	}
}

// Who watches the server's health says who they are, and does not hold its end up.
func TestWatchingHealth(t *testing.T) {
	t.Parallel()
	w := start(t, withTokens(t))
	c := grpc_health_v1.NewHealthClient(dial(t, w.grpc))
	watch := func(token string) (grpc_health_v1.Health_WatchClient, *grpc_health_v1.HealthCheckResponse, error) {
		ctx := t.Context()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		s, err := c.Watch(ctx, new(grpc_health_v1.HealthCheckRequest))
		if err != nil {
			return nil, nil, err
		}
		first, err := s.Recv()
		return s, first, err
	}
	if _, _, err := watch(""); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a stranger: %v", err)
	}
	s, first, err := watch(aliceToken)
	if err != nil || first.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("%v %v", first, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.Shutdown(ctx); err != nil {
		t.Errorf("it held the server up: %v", err)
	}
	for err == nil {
		_, err = s.Recv()
	}
}

// Strangers who ask how the server is are answered before they have said what they ask, and
// however much that is: nothing of it is kept (S8).
func TestHealthIsToldUnheard(t *testing.T) {
	t.Parallel()
	tokens := withTokens(t)
	w := start(t, func(c *server.Config, e *engine.Config) {
		tokens(c, e)
		c.Limits = server.Limits{HeaderTimeout: time.Hour, ReadTimeout: time.Hour}
	})
	c := dial(t, w.grpc)
	if err := silence(t, c, healthCheck, ""); err != nil {
		t.Errorf("one who asks nothing: %v", err)
	}
	for name, size := range map[string]int{"a short name": 10, "a name of 24 MiB": 24 << 20, "more than anybody may send": 33 << 20} {
		var reply grpc_health_v1.HealthCheckResponse
		err := c.Invoke(t.Context(), healthCheck, &grpc_health_v1.HealthCheckRequest{Service: strings.Repeat("x", size)}, &reply)
		if err != nil || reply.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%s: %v %v", name, reply.GetStatus(), err)
		}
	}
}

const healthCheck = "/grpc.health.v1.Health/Check"
