package server_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/server/grpcapi/dtmpb"
)

func withLimits(l server.Limits) func(*server.Config, *engine.Config) {
	return func(c *server.Config, _ *engine.Config) { c.Limits = l }
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	w := start(t, withLimits(server.Limits{BodyMax: 4096}))
	large := `{"gid":"large","trans_type":"tcc","custom_data":"` + strings.Repeat("x", 5000) + `"}`
	if code, text := w.do(t, "POST", "/api/dtmsvr/prepare", large); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a length that is told: %d %s", code, text)
	}
	// A length that is not told is found out while it is read.
	r, err := http.NewRequestWithContext(t.Context(), "POST", w.base+"/api/v1/transactions/x/stop", struct{ *strings.Reader }{strings.NewReader(`{"reason":"` + strings.Repeat("x", 5000) + `"}`)})
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = -1
	res, err := (&http.Client{Transport: transport(t)}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a length that is not told: %d", res.StatusCode)
	}
	err = dial(t, w.grpc).Invoke(t.Context(), "/dtmgimp.Dtm/Prepare", &dtmpb.Request{Gid: "large", TransType: "tcc", CustomedData: large}, &emptypb.Empty{})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("gRPC: %v", err)
	}
	if _, err := w.engine.Get(t.Context(), "large"); err == nil {
		t.Error("it was prepared all the same")
	}
	r, err = http.NewRequestWithContext(t.Context(), "GET", w.base+"/api/dtmsvr/newGid", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X", strings.Repeat("x", 200<<10))
	if res, err = (&http.Client{Transport: transport(t)}).Do(r); err != nil {
		return // it hung up before all was sent
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("headers: %d", res.StatusCode)
	}
}

func TestRateLimitIsEachPrincipalsOwn(t *testing.T) {
	t.Parallel()
	tokens := withTokens(t)
	w := start(t, func(c *server.Config, e *engine.Config) {
		tokens(c, e)
		c.Limits.RatePerSecond, c.Limits.Burst = 0.001, 5
	})
	count := func(token string) (ok, slow int) {
		for range 20 {
			switch code, text := w.do(t, "GET", "/api/v1/me", "", bearer(token)...); code {
			case http.StatusOK:
				ok++
			case http.StatusTooManyRequests:
				slow++
			default:
				t.Fatalf("%d %s", code, text)
			}
		}
		return ok, slow
	}
	for _, token := range []string{aliceToken, bobToken} {
		if ok, slow := count(token); ok != 5 || slow != 15 {
			t.Errorf("%d were let in and %d told to slow down", ok, slow)
		}
	}
	if code, _ := w.do(t, "GET", "/healthz", ""); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
}

func TestOpenTransactionsLimit(t *testing.T) {
	t.Parallel()
	tokens := withTokens(t)
	var skew atomic.Int64
	w := start(t, func(c *server.Config, e *engine.Config) {
		tokens(c, e)
		c.Limits.OpenMax = 10
		c.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	})
	prepare := func(token, gid string) int {
		code, _ := w.do(t, "POST", "/api/dtmsvr/prepare", `{"gid":"`+gid+`","trans_type":"tcc"}`, bearer(token)...)
		return code
	}
	for i := range 30 {
		want := http.StatusOK
		if i >= 10 {
			want = http.StatusTooManyRequests
		}
		if code := prepare(aliceToken, fmt.Sprintf("a%d", i)); code != want {
			t.Fatalf("transaction %d: %d, want %d", i, code, want)
		}
	}
	if code := prepare(bobToken, "b"); code != http.StatusOK {
		t.Errorf("another's: %d", code)
	}
	if code, text := w.do(t, "GET", "/api/v1/transactions", "", bearer(aliceToken)...); code != http.StatusOK {
		t.Errorf("looking: %d %s", code, text)
	}
	if code, text := w.do(t, "POST", "/api/v1/transactions/a0/stop", `{"reason":"make room"}`, bearer(adminToken)...); code != http.StatusOK {
		t.Fatalf("stop: %d %s", code, text)
	}
	skew.Store(int64(time.Minute)) // the store may be asked again
	if code := prepare(aliceToken, "again"); code != http.StatusOK {
		t.Errorf("after one has ended: %d", code)
	}
	if code := prepare(aliceToken, "over"); code != http.StatusTooManyRequests {
		t.Errorf("and one more: %d", code)
	}
}

// A thousand clients that do not stop, slow ones among them, and the server answers
// others, and has not grown.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	tokens := withTokens(t)
	w := start(t, func(c *server.Config, e *engine.Config) {
		tokens(c, e)
		c.Limits = server.Limits{RatePerSecond: 200, Burst: 50, OpenMax: 100, RequestsMax: 64, HeaderTimeout: time.Minute, ConnectionsMax: 700}
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 300, MaxConnsPerHost: 300}}
	defer client.CloseIdleConnections()
	var refused, made atomic.Int64
	for i := range 900 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				body := fmt.Sprintf(`{"gid":"f-%d-%d","trans_type":"tcc"}`, i, n)
				r, err := http.NewRequestWithContext(ctx, "POST", w.base+"/api/dtmsvr/prepare", strings.NewReader(body))
				if err != nil {
					return
				}
				r.Header.Set("Authorization", "Bearer "+aliceToken)
				res, err := client.Do(r)
				if err != nil {
					continue
				}
				_ = res.Body.Close()
				if res.StatusCode == http.StatusOK {
					made.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	for range 100 { // slow ones, which never end their headers
		wg.Go(func() {
			for ctx.Err() == nil {
				trickle(ctx, strings.TrimPrefix(w.base, "http://"))
			}
		})
	}
	begun, end := time.Now(), time.Now().Add(3*time.Minute)
	var slowest time.Duration
	answered := 0
	for time.Now().Before(end) && (answered < 10 || refused.Load() < 1000 || time.Since(begun) < 3*time.Second) {
		time.Sleep(10 * time.Millisecond) // a quick machine stays below the limit of the rate, too
		begin := time.Now()
		code, text := w.do(t, "GET", "/api/v1/me", "", bearer(bobToken)...)
		if code == http.StatusServiceUnavailable {
			continue // there is too much to do, and it says so
		}
		if code != http.StatusOK {
			t.Fatalf("another tenant: %d %s", code, text)
		}
		answered++
		slowest = max(slowest, time.Since(begin))
	}
	stop()
	wg.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d made, %d refused; another tenant: %d answers, the slowest in %v; heap grew by %d KiB", made.Load(), refused.Load(), answered, slowest, grown>>10)
	if made.Load() > 100+64 { // those under way while the store counted
		t.Errorf("%d transactions are open, the limit is 100", made.Load())
	}
	if refused.Load() < 1000 {
		t.Errorf("only %d were refused: this was no flood", refused.Load())
	}
	if answered < 10 {
		t.Errorf("another tenant had %d answers", answered)
	}
	if grown > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// trickle sends a header byte by byte, and fails the test if nobody hangs up.
func trickle(ctx context.Context, addr string) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nX-Slow: ")); err != nil {
		return
	}
	_, _ = bufio.NewReader(c).ReadByte() // until the server hangs up
}

func TestSlowHeadersAreCutOff(t *testing.T) {
	t.Parallel()
	w := start(t, withLimits(server.Limits{HeaderTimeout: 100 * time.Millisecond}))
	done := make(chan struct{})
	go func() { defer close(done); trickle(t.Context(), strings.TrimPrefix(w.base, "http://")) }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Error("the server waits for ever")
	}
}

// One client that waits for results takes half of the places; others and operators have
// theirs.
func TestNobodyTakesAllPlaces(t *testing.T) {
	t.Parallel()
	tokens := withTokens(t)
	g := &gated{asked: make(chan struct{}), answer: make(chan struct{})}
	w := start(t, func(c *server.Config, e *engine.Config) {
		tokens(c, e)
		c.Limits.RequestsMax = 8
		e.Caller, e.Limits.RequestTimeout = g, 5*time.Minute
	})
	var wg sync.WaitGroup
	var busy atomic.Int64
	for i := range 12 {
		wg.Go(func() {
			body := strings.Replace(fmt.Sprintf(sagaBody, fmt.Sprintf("w-%d", i)), `"gid"`, `"wait_result":true,"gid"`, 1)
			if code, _ := w.do(t, "POST", "/api/dtmsvr/submit", body, bearer(aliceToken)...); code == http.StatusServiceUnavailable {
				busy.Add(1)
			}
		})
	}
	until(t, func() bool { return busy.Load() == 8 })
	for _, token := range []string{bobToken, operatorToken, adminToken} {
		if code, text := w.do(t, "GET", "/api/v1/me", "", bearer(token)...); code != http.StatusOK {
			t.Errorf("another: %d %s", code, text)
		}
	}
	if code, _ := w.do(t, "GET", "/api/v1/me", "", bearer(aliceToken)...); code != http.StatusServiceUnavailable {
		t.Errorf("the same: %d", code)
	}
	close(g.answer)
	wg.Wait()
	if code, text := w.do(t, "GET", "/api/v1/me", "", bearer(aliceToken)...); code != http.StatusOK {
		t.Errorf("afterwards: %d %s", code, text)
	}
}
