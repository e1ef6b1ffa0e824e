package outbound_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/outbound"
)

// raw is a participant that says what it likes: it reads the head of a request, and
// then answer writes until it fails or returns.
func raw(t *testing.T, answer func(io.Writer)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				for {
					line, err := r.ReadString('\n')
					if err != nil || line == "\r\n" {
						break
					}
				}
				answer(conn)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func bomb(size int) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range size >> 20 {
		_, _ = z.Write(zeros)
	}
	_ = z.Close()
	return b.Bytes()
}

// forever writes text again and again.
func forever(w io.Writer, text string) {
	b := []byte(strings.Repeat(text, max(1, 32<<10/len(text))))
	for {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

// S7: what participants send costs little memory and no more time than a call has.
func TestAnswersAreBounded(t *testing.T) { // not parallel: it measures memory
	compressed := bomb(64 << 20)
	for name, test := range map[string]struct {
		answer func(io.Writer)
		want   engine.Answer
	}{
		"endless body": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n\r\n")
			forever(w, "x")
		}, engine.Unknown},
		"endless body of a failure": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 409 Conflict\r\n\r\n")
			forever(w, "x")
		}, engine.Failure},
		"endless chunks": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			forever(w, "1\r\nx\r\n")
		}, engine.Unknown},
		"a large length": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\n")
			forever(w, "x")
		}, engine.Unknown},
		"less than its length": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
		}, engine.Unknown},
		"gzip bomb": {func(w io.Writer) {
			_, _ = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", len(compressed))
			_, _ = w.Write(compressed)
		}, engine.Success}, // it is small as it is, and nobody opens it
		"100,000 headers": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n")
			for i := range 100_000 {
				if _, err := fmt.Fprintf(w, "X-%d: y\r\n", i); err != nil {
					return
				}
			}
			_, _ = io.WriteString(w, "\r\n")
		}, engine.Unknown},
		"one endless header": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nX: ")
			forever(w, "y")
		}, engine.Unknown},
		"endless status": {func(w io.Writer) { forever(w, "H") }, engine.Unknown},
		"endless 1xx":    {func(w io.Writer) { forever(w, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n") }, engine.Unknown},
		"no HTTP":        {func(w io.Writer) { _, _ = io.WriteString(w, "SSH-2.0-x\r\n") }, engine.Unknown},
		"nothing":        {func(io.Writer) {}, engine.Unknown},
		"slow drip": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
			for {
				if _, err := w.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond) // it is slow on purpose
			}
		}, engine.Unknown},
		"slow headers": {func(w io.Writer) {
			for _, b := range []byte("HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 10_000)) {
				if _, err := w.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond) // it is slow on purpose
			}
		}, engine.Unknown},
		"text of no use": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 500 Oops\r\nContent-Length: 8\r\n\r\n\x00\xff\x1b[31m\r\n")
		}, engine.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			url := raw(t, test.answer)
			c := newCaller(t, outbound.Config{})
			call := actionCall(url)
			call.Payload, call.Timeout = nil, 500*time.Millisecond
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begin := time.Now()
			a, text := c.Call(t.Context(), call)
			took := time.Since(begin)
			runtime.ReadMemStats(&after)
			if a != test.want {
				t.Errorf("answer %d %q, want %d", a, text, test.want)
			}
			if took > 3*time.Second {
				t.Errorf("took %v, the call had %v", took, call.Timeout)
			}
			// What was allocated in all bounds what was held at a time. A repetition over
			// a new connection may double it, and buffers grow by doubling.
			if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
				t.Errorf("%d bytes allocated", n)
			}
			if len(text) > 1100 || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\x1b") {
				t.Errorf("text %q", text)
			}
		})
	}
}
