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

// S7: what participants send costs little memory, and no more time than a call has.
func TestAnswersAreBounded(t *testing.T) { // not parallel: it measures memory
	compressed := bomb(64 << 20)
	const ok = "HTTP/1.1 200 OK\r\n"
	drip := func(w io.Writer, text string) { // it never ends
		for i := 0; ; i++ {
			if _, err := w.Write([]byte{text[i%len(text)]}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // it is slow on purpose
		}
	}
	begins := func(head, rest string) func(io.Writer) {
		return func(w io.Writer) {
			_, _ = io.WriteString(w, head)
			forever(w, rest)
		}
	}
	for name, test := range map[string]struct {
		answer func(io.Writer)
		want   engine.Answer
		time   bool // nothing but time ends it
	}{
		"endless body":              {answer: begins(ok+"\r\n", "x"), want: engine.Unknown},
		"endless body of a failure": {answer: begins("HTTP/1.1 409 Conflict\r\n\r\n", "x"), want: engine.Failure},
		"endless chunks":            {answer: begins(ok+"Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"), want: engine.Unknown},
		"endless extension":         {answer: begins(ok+"Transfer-Encoding: chunked\r\n\r\n1;x=", "y"), want: engine.Unknown},
		"endless extensions": {
			answer: begins(ok+"Transfer-Encoding: chunked\r\n\r\n", "1;x="+strings.Repeat("y", 1000)+"\r\nx\r\n"), want: engine.Unknown,
		},
		"endless trailers": {answer: begins(ok+"Transfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n"), want: engine.Unknown},
		"endless trailer":  {answer: begins(ok+"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", "y"), want: engine.Unknown},
		"a large length":   {answer: begins(ok+"Content-Length: 9000000000000000000\r\n\r\n", "x"), want: engine.Unknown},
		"a large chunk":    {answer: begins(ok+"Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", "x"), want: engine.Unknown},
		"less than its length": {answer: func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Length: 10\r\n\r\nx")
		}, want: engine.Unknown},
		"two lengths": {answer: func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx")
		}, want: engine.Unknown},
		"gzip bomb": {answer: func(w io.Writer) {
			_, _ = fmt.Fprintf(w, ok+"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", len(compressed))
			_, _ = w.Write(compressed)
		}, want: engine.Success}, // it is small as it is, and nobody opens it
		"100,000 headers": {answer: func(w io.Writer) {
			_, _ = io.WriteString(w, ok)
			for i := range 100_000 {
				if _, err := fmt.Fprintf(w, "X-%d: y\r\n", i); err != nil {
					return
				}
			}
			_, _ = io.WriteString(w, "\r\n")
		}, want: engine.Unknown},
		"one endless header": {answer: begins(ok+"X: ", "y"), want: engine.Unknown},
		"endless status":     {answer: begins("", "H"), want: engine.Unknown},
		"endless 1xx":        {answer: begins("", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), want: engine.Unknown},
		"no HTTP":            {answer: func(w io.Writer) { _, _ = io.WriteString(w, "SSH-2.0-x\r\n") }, want: engine.Unknown},
		"HTTP/2":             {answer: begins("", "\x00\x00\x00\x04\x00\x00\x00\x00\x00"), want: engine.Unknown},
		"nothing":            {answer: func(io.Writer) {}, want: engine.Unknown},
		"another protocol": {
			answer: begins("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "FAILURE"), want: engine.Unknown,
		},
		"slow body": {answer: func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Length: 1000000\r\n\r\n")
			drip(w, "x")
		}, want: engine.Unknown, time: true},
		"slow headers": {answer: func(w io.Writer) { drip(w, ok+strings.Repeat("X: y\r\n", 10_000)) }, want: engine.Unknown, time: true},
		"slow 1xx":     {answer: func(w io.Writer) { drip(w, "HTTP/1.1 100 Continue\r\n\r\n") }, want: engine.Unknown, time: true},
		"slow trailers": {answer: func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Transfer-Encoding: chunked\r\n\r\n0\r\n")
			drip(w, "X: y\r\n")
		}, want: engine.Unknown, time: true},
		"text of no use": {answer: func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 500 Oops\r\nContent-Length: 6\r\n\r\n\x00\xff\x1b[31")
		}, want: engine.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			url := raw(t, test.answer)
			c := newCaller(t, outbound.Config{})
			call := actionCall(url)
			call.Payload = nil
			if test.time {
				call.Timeout = 500 * time.Millisecond
			}
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
			if late := strings.Contains(text, "no answer in time"); late != test.time {
				t.Errorf("text %q: ended by time: %t, want %t", text, late, test.time)
			}
			if took > 30*time.Second {
				t.Errorf("took %v", took)
			}
			// What was allocated in all, by the participant too, bounds what was held at a
			// time. Buffers grow by doubling.
			if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
				t.Errorf("%d bytes allocated", n)
			}
			if len(text) > 1100 || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\x1b") {
				t.Errorf("text %q", text)
			}
		})
	}
}
