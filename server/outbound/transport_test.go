package outbound_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/outbound"
)

// serveConns gives each connection to serve, with its number from 1. They end with the
// test.
func serveConns(t *testing.T, serve func(n int64, conn *net.TCPConn)) (hostPort string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for n := int64(1); ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				serve(n, conn.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String()
}

// readRequest reads a request and returns its body.
func readRequest(r *bufio.Reader) ([]byte, error) {
	request, err := http.ReadRequest(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(request.Body)
}

const yes = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// What comes on a connection when nobody has asked is not the answer to the next call: a
// participant that answers twice would otherwise answer for another branch.
func TestAnswerThatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	again := make(chan struct{})  // lets the second answer to the first call go
	closed := make(chan struct{}) // by the caller, for that
	hostPort := serveConns(t, func(n int64, conn *net.TCPConn) {
		r := bufio.NewReader(conn)
		if _, err := readRequest(r); err != nil {
			return
		}
		if n > 1 {
			_, _ = io.WriteString(conn, "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(conn, yes)
		<-again
		_, _ = io.WriteString(conn, yes)
		_, _ = io.Copy(io.Discard, r)
		close(closed)
	})
	c := newCaller(t, outbound.Config{})
	call := actionCall("http://" + hostPort + "/pay")
	if a, text := c.Call(t.Context(), call); a != engine.Success {
		t.Fatalf("first call: answer %d %s", a, text)
	}
	close(again)
	<-closed
	if a, text := c.Call(t.Context(), call); a != engine.Failure {
		t.Errorf("second call: answer %d %q, want the refusal that it got", a, text)
	}
}

// A participant closes connections that are idle for long. A call that meets this is
// made again at once, also a POST: to wait for the engine's next attempt would cost 10 s.
func TestClosedWhileIdle(t *testing.T) {
	t.Parallel()
	payload := bytes.Repeat([]byte("p"), 100_000)
	for name, test := range map[string]struct {
		payload []byte
		close   func(*bufio.Reader, *net.TCPConn)
	}{
		"after the next request": {payload, func(r *bufio.Reader, _ *net.TCPConn) { _, _ = readRequest(r) }},
		"reset":                  {payload[:10], func(r *bufio.Reader, conn *net.TCPConn) { _, _ = r.Peek(1); _ = conn.SetLinger(0) }},
		"GET":                    {nil, func(r *bufio.Reader, _ *net.TCPConn) { _, _ = readRequest(r) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bodies := make(chan []byte, 10)
			hostPort := serveConns(t, func(_ int64, conn *net.TCPConn) { // answers once
				r := bufio.NewReader(conn)
				body, err := readRequest(r)
				if err != nil {
					return
				}
				bodies <- body
				_, _ = io.WriteString(conn, yes)
				test.close(r, conn)
			})
			c := newCaller(t, outbound.Config{})
			call := actionCall("http://" + hostPort + "/pay")
			call.Payload = test.payload
			for n := range 3 {
				if a, text := c.Call(t.Context(), call); a != engine.Success {
					t.Fatalf("call %d: answer %d %s", n, a, text)
				}
				if got := <-bodies; !bytes.Equal(got, test.payload) {
					t.Errorf("call %d: %d bytes arrived, want %d", n, len(got), len(test.payload))
				}
			}
		})
	}
}

// The same with a real server, whose patience ends about when the next call comes.
func TestImpatientServer(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	server.Config.IdleTimeout = 2 * time.Millisecond
	conns := make(chan struct{}, 1000)
	server.Config.ConnState = connCounter(conns)
	server.Start()
	defer server.Close()
	c := newCaller(t, outbound.Config{})
	pause := time.NewTicker(server.Config.IdleTimeout)
	defer pause.Stop()
	for n := range 500 {
		<-pause.C
		if a, text := c.Call(t.Context(), actionCall(server.URL)); a != engine.Success {
			t.Fatalf("call %d: answer %d %s", n, a, text)
		}
	}
	if len(conns) < 2 {
		t.Error("the server closed no connection: nothing was tested")
	}
}

// A participant that closes new connections is asked once per call, not for ever.
func TestClosedAtOnce(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	hostPort := serveConns(t, func(_ int64, conn *net.TCPConn) {
		if _, err := readRequest(bufio.NewReader(conn)); err == nil {
			asked.Add(1)
		}
	})
	c := newCaller(t, outbound.Config{})
	if a, text := c.Call(t.Context(), actionCall("http://"+hostPort)); a != engine.Unknown || asked.Load() != 1 {
		t.Errorf("answer %d %s after %d requests", a, text, asked.Load())
	}
}

// A participant that accepts connections and says no more does not hold them for long
// after the call.
func TestSilentHandshake(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	hostPort := serveConns(t, func(_ int64, conn *net.TCPConn) {
		_, _ = io.Copy(io.Discard, conn)
		close(ended)
	})
	c := newCaller(t, outbound.Config{})
	call := actionCall("https://" + hostPort)
	call.Timeout = 100 * time.Millisecond
	if a, text := c.Call(t.Context(), call); a != engine.Unknown || text != "no answer in time" {
		t.Errorf("answer %d %s", a, text)
	}
	<-ended // net/http gives the handshake up some seconds later
}

// HTTP/2 is not asked for, whatever the configuration of TLS says.
func TestOnlyHTTP1(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	protos := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { protos <- r.Proto }))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: ca.server("127.0.0.1").Certificates}
	server.StartTLS()
	defer server.Close()
	cfg := ca.client("troth")
	cfg.NextProtos = []string{"h2", "http/1.1"}
	c := newCaller(t, outbound.Config{TLS: cfg})
	if a, text := c.Call(t.Context(), actionCall(server.URL)); a != engine.Success {
		t.Fatalf("answer %d %s", a, text)
	}
	if proto := <-protos; !strings.HasPrefix(proto, "HTTP/1.") {
		t.Errorf("called over %s", proto)
	}
}
