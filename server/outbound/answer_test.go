package outbound

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// What we take for an answer net/http takes for the same one.
func FuzzReadAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 409 Conflict\r\n\r\nFAILURE", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", "HTTP/1.1 204 No\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 103 Hint\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 1\n\nx", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 101 Switching\r\n\r\n", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 9000) + "\r\nContent-Length: 1\r\n\r\nx",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		const limit = 1000
		a, keep, err := readAnswer(bufio.NewReader(bytes.NewReader(wire)), new(bytes.Buffer), limit)
		if err != nil {
			return
		}
		if a.status < 200 || a.status > 999 || len(a.body) > limit {
			t.Fatalf("%+v", a)
		}
		r := bufio.NewReader(bytes.NewReader(wire))
		var want *http.Response
		for want == nil || want.StatusCode < 200 {
			if want, err = http.ReadResponse(r, nil); err != nil { //nolint:bodyclose // it is memory
				return // we are more lenient
			}
		}
		body, err := io.ReadAll(want.Body)
		if err != nil {
			return
		}
		if want.StatusCode != a.status || !a.more && !bytes.Equal(body, a.body) || keep && want.Close {
			t.Errorf("%q: %d %q keep %t, net/http says %d %q close %t", wire, a.status, a.body, keep, want.StatusCode, body, want.Close)
		}
	})
}
