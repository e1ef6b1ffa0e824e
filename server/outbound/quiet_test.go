package outbound_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/outbound"
)

// What comes on a connection when nobody has asked is not the answer to the next call: a
// participant that answers twice would otherwise answer for another branch.
func TestAnswerThatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	again := make(chan struct{}) // lets the second answer to the first call go
	sent := make(chan struct{})
	go func() {
		for first := true; ; first = false {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				for {
					request, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, request.Body)
					if !first {
						_, _ = io.WriteString(conn, "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")
						continue
					}
					const yes = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
					_, _ = io.WriteString(conn, yes)
					<-again
					_, _ = io.WriteString(conn, yes)
					close(sent)
					_, _ = io.Copy(io.Discard, conn)
					return
				}
			}()
		}
	}()
	c := newCaller(t, outbound.Config{})
	call := actionCall("http://" + l.Addr().String() + "/pay")
	if a, text := c.Call(t.Context(), call); a != engine.Success {
		t.Fatalf("first call: answer %d %s", a, text)
	}
	close(again)
	<-sent
	if a, text := c.Call(t.Context(), call); a != engine.Failure {
		t.Errorf("second call: answer %d %q, want the refusal that it got", a, text)
	}
}
