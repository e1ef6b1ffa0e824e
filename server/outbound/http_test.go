package outbound_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store"
)

func newCaller(t testing.TB, cfg outbound.Config) *outbound.Caller {
	t.Helper()
	c, err := outbound.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// received is a request as a participant sees it.
type received struct {
	method, target, body string
	header               http.Header
}

// participant answers every call alike and tells what it received.
func participant(t testing.TB, status int, body string) (url string, calls <-chan received) {
	t.Helper()
	seen := make(chan received, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen <- received{r.Method, r.RequestURI, string(b), r.Header}
		if status/100 == 3 {
			w.Header().Set("Location", "/redirected")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, seen
}

func actionCall(url string) engine.Call {
	return engine.Call{
		GID: "g1", Pattern: store.Saga, Protocol: "http", Branch: "01", Op: store.Action, URL: url,
		Payload: []byte(`{"amount":30}`), Timeout: time.Minute,
	}
}

// What a participant of dtm's gets.
func TestHTTPRequest(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*engine.Call)
		want   received
	}{
		"payload": {
			func(*engine.Call) {},
			received{method: "POST", target: "/pay?branch_id=01&gid=g1&op=action&trans_type=saga", body: `{"amount":30}`},
		},
		"no payload": {
			func(c *engine.Call) { c.Payload = nil },
			received{method: "GET", target: "/pay?branch_id=01&gid=g1&op=action&trans_type=saga"},
		},
		"xa without payload": {
			func(c *engine.Call) { c.Payload, c.Pattern, c.Op = nil, store.XA, store.Commit },
			received{method: "POST", target: "/pay?branch_id=01&gid=g1&op=commit&trans_type=xa"},
		},
		"parameters of its own": {
			func(c *engine.Call) { c.URL += "?own=a%20b"; c.GID = "g/ö&1" },
			received{method: "POST", target: "/pay?own=a%20b&branch_id=01&gid=g%2F%C3%B6%261&op=action&trans_type=saga", body: `{"amount":30}`},
		},
		"question to the sender of a message": {
			func(c *engine.Call) { c.Payload, c.Pattern, c.Op, c.Branch = nil, store.Message, store.Query, "00" },
			received{method: "GET", target: "/pay?branch_id=00&gid=g1&op=msg&trans_type=msg"},
		},
		"workflow": {
			func(c *engine.Call) {
				c.Payload, c.Pattern, c.Op, c.Name, c.Branch = []byte("in"), store.Workflow, store.Resume, "wf", "00"
			},
			received{method: "POST", target: "/pay?branch_id=00&gid=g1&op=wf&trans_type=workflow", body: "in"},
		},
		"workflow without input": {
			func(c *engine.Call) {
				c.Payload, c.Pattern, c.Op, c.Name, c.Branch = nil, store.Workflow, store.Resume, "wf", "00"
			},
			received{method: "POST", target: "/pay?branch_id=00&gid=g1&op=wf&trans_type=workflow"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, calls := participant(t, 200, `{"dtm_result":"SUCCESS"}`)
			call := actionCall(url + "/pay")
			test.change(&call)
			if a, text := newCaller(t, outbound.Config{}).Call(t.Context(), call); a != engine.Success {
				t.Fatalf("answer %d %s", a, text)
			}
			got := <-calls
			if got.method != test.want.method || got.target != test.want.target || got.body != test.want.body {
				t.Errorf("got %s %s %q\nwant %s %s %q", got.method, got.target, got.body, test.want.method, test.want.target, test.want.body)
			}
			if got.header.Get("Content-Type") != "application/json" || got.header.Get("Accept") != "application/json" {
				t.Errorf("headers %v", got.header)
			}
			for _, name := range []string{"Accept-Encoding", "Idempotency-Key", "Authorization", "Cookie", "Expect"} {
				if v, ok := got.header[name]; ok {
					t.Errorf("%s: %q is sent", name, v)
				}
			}
		})
	}
}

func TestBranchHeaders(t *testing.T) {
	t.Parallel()
	url, calls := participant(t, 200, "")
	call := actionCall(url)
	call.Headers = map[string]string{
		"authorization": "Bearer x", "Content-Type": "text/plain", "Host": "elsewhere", "Content-Length": "1", "Transfer-Encoding": "chunked",
		"Troth-Signature": "forged", "Expect": "100-continue", "Connection": "close", "Accept-Encoding": "gzip", "Cookie": "a=b", "idempotency-key": "k",
	}
	c := newCaller(t, outbound.Config{})
	if a, text := c.Call(t.Context(), call); a != engine.Success {
		t.Fatalf("answer %d %s", a, text)
	}
	got := <-calls
	if got.header.Get("Authorization") != "Bearer x" || got.header.Get("Content-Type") != "text/plain" || got.header.Get("Troth-Signature") != "" ||
		got.header.Get("Cookie") != "a=b" || got.header.Get("Idempotency-Key") != "k" || got.header.Get("Expect") != "" || got.header.Get("Accept-Encoding") != "" {
		t.Errorf("headers %v", got.header)
	}
	for _, bad := range []map[string]string{{"a b": "x"}, {"": "x"}, {"x": "a\r\nb: c"}, {"x": strings.Repeat("a", 20<<10)}} {
		call.Headers = bad
		if a, text := c.Call(t.Context(), call); a != engine.Unknown || !strings.Contains(text, "branch_headers") {
			t.Errorf("%.40v: answer %d %s", bad, a, text)
		}
	}
	if len(calls) > 0 {
		t.Errorf("called with bad headers: %v", <-calls)
	}
}

// Only the agreed answers decide (E3), by the status or by words as in dtm.
func TestHTTPAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status      int
		body        string
		words, none engine.Answer // with words, with IgnoreWords
	}{
		{200, "", engine.Success, engine.Success},
		{200, `{"dtm_result":"SUCCESS"}`, engine.Success, engine.Success},
		{200, "anything", engine.Success, engine.Success},
		{200, `{"dtm_result":"FAILURE"}`, engine.Failure, engine.Success},
		{200, `{"dtm_result":"ONGOING"}`, engine.Ongoing, engine.Success},
		{200, `ONGOING FAILURE`, engine.Ongoing, engine.Success},
		{200, `failure`, engine.Success, engine.Success},
		{409, "", engine.Failure, engine.Failure},
		{409, "insufficient funds", engine.Failure, engine.Failure},
		{409, "ONGOING", engine.Ongoing, engine.Failure},
		{425, "", engine.Ongoing, engine.Ongoing},
		{425, "FAILURE", engine.Ongoing, engine.Ongoing},
		{500, "", engine.Unknown, engine.Unknown},
		{500, "FAILURE", engine.Failure, engine.Unknown},
		{500, "ONGOING", engine.Ongoing, engine.Unknown},
		{201, "", engine.Unknown, engine.Unknown},
		{204, "", engine.Unknown, engine.Unknown},
		{302, "", engine.Unknown, engine.Unknown},
		{307, "", engine.Unknown, engine.Unknown},
		{401, "", engine.Unknown, engine.Unknown},
		{404, "", engine.Unknown, engine.Unknown},
		{503, "", engine.Unknown, engine.Unknown},
	} {
		url, calls := participant(t, test.status, test.body)
		for ignore, want := range map[bool]engine.Answer{false: test.words, true: test.none} {
			a, text := newCaller(t, outbound.Config{IgnoreWords: ignore}).Call(t.Context(), actionCall(url))
			if a != want {
				t.Errorf("%d %q, IgnoreWords %t: answer %d, want %d", test.status, test.body, ignore, a, want)
			}
			if a != engine.Success && !strings.Contains(text, test.body) {
				t.Errorf("%d %q: text %q", test.status, test.body, text)
			}
		}
		if n := len(calls); n != 2 { // a redirect is not followed
			t.Errorf("%d: %d calls for 2", test.status, n)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	c := newCaller(t, outbound.Config{})
	call := actionCall("http://127.0.0.1:1/pay?token=secret")
	a, text := c.Call(t.Context(), call)
	if a != engine.Unknown || text == "" || strings.Contains(text, "secret") {
		t.Errorf("refused: %d %q", a, text)
	}
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hung.Close()
	call = actionCall(hung.URL)
	call.Payload, call.Timeout = nil, 50*time.Millisecond
	begin := time.Now()
	if a, text := c.Call(t.Context(), call); a != engine.Unknown || text != "no answer in time" {
		t.Errorf("hung: %d %q", a, text)
	}
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("took %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if a, _ := c.Call(ctx, call); a != engine.Unknown {
		t.Errorf("cancelled: %d", a)
	}
}

func TestNoURL(t *testing.T) {
	t.Parallel()
	c := newCaller(t, outbound.Config{Restricted: true})
	for op, want := range map[store.Op]engine.Answer{
		store.Action: engine.Success, store.Compensate: engine.Success, store.Cancel: engine.Success,
		store.Query: engine.Unknown, store.Resume: engine.Unknown,
	} {
		call := actionCall("")
		call.Op = op
		if a, text := c.Call(t.Context(), call); a != want {
			t.Errorf("%s: %d %s, want %d", op, a, text, want)
		}
	}
}

// Connections are used again, and a participant that was restarted is found again: its
// old connections are no answer.
func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	conns := make(chan struct{}, 1000)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	}))
	server.Config.ConnState = connCounter(conns)
	server.Start()
	defer server.Close()
	c := newCaller(t, outbound.Config{})
	for range 50 {
		if a, text := c.Call(t.Context(), actionCall(server.URL)); a != engine.Success {
			t.Fatalf("%d %s", a, text)
		}
	}
	// net/http drops one whose writer has not reported 50 ms after the answer.
	if n := len(conns); n > 25 {
		t.Errorf("%d connections for 50 calls one after the other", n)
	}
	server.CloseClientConnections()
	if a, text := c.Call(t.Context(), actionCall(server.URL)); a != engine.Success {
		t.Errorf("after its connections were closed: %d %s", a, text)
	}
}

var discard = log.New(io.Discard, "", 0)

func connCounter(conns chan<- struct{}) func(net.Conn, http.ConnState) {
	return func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns <- struct{}{}
		}
	}
}

// A participant may answer a large request before it has read it.
func TestLargePayloads(t *testing.T) {
	t.Parallel()
	var reads atomic.Bool
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !reads.Load() {
			w.WriteHeader(http.StatusConflict)
			_ = http.NewResponseController(w).Flush()
			<-ended // it never reads
			return
		}
		if n, err := io.Copy(io.Discard, r.Body); n != 16<<20 || err != nil {
			t.Errorf("read %d bytes: %v", n, err)
		}
	}))
	defer server.Close()
	defer close(ended)
	c := newCaller(t, outbound.Config{})
	call := actionCall(server.URL)
	call.Payload, call.Timeout = make([]byte, 16<<20), 2*time.Second
	begin := time.Now()
	if a, text := c.Call(t.Context(), call); a != engine.Unknown { // the answer does not end
		t.Errorf("%d %s", a, text)
	}
	if d := time.Since(begin); d < time.Second {
		t.Errorf("gave up after %v", d)
	}
	reads.Store(true)
	call.Timeout = time.Minute
	if a, text := c.Call(t.Context(), call); a != engine.Success {
		t.Errorf("%d %s", a, text)
	}
	heard := make(chan struct{})
	call.URL = raw(t, func(w io.Writer) {
		_, _ = io.WriteString(w, "HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno")
		<-heard // with the request unread
	})
	if a, text := c.Call(t.Context(), call); a != engine.Failure {
		t.Errorf("an early answer: %d %s", a, text)
	}
	close(heard)
}
