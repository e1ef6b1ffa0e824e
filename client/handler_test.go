package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/troth-tx/troth/client"
)

const query = "/?gid=g1&trans_type=tcc&branch_id=01&op=confirm"

func TestHandlerAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		target string
		body   string
		reply  any
		err    error
		opts   []client.HandlerOption

		status int
		answer string
	}{
		"nothing":      {target: query, status: 200, answer: `{"dtm_result":"SUCCESS"}`},
		"a reply":      {target: query, reply: []int{1}, status: 200, answer: `[1]`},
		"bytes":        {target: query, reply: []byte("x"), status: 200, answer: `x`},
		"failed":       {target: query, err: fmt.Errorf("no: %w", client.ErrFailed), status: 409, answer: `{"dtm_result":"FAILURE","message":"no: failed"}`},
		"ongoing":      {target: query, err: client.ErrOngoing, status: 425, answer: `{"dtm_result":"ONGOING","message":"not over yet"}`},
		"both":         {target: query, err: errors.Join(client.ErrOngoing, client.ErrFailed), status: 409},
		"other":        {target: query, err: errors.New("password=x"), status: 500, answer: `{"message":"internal error"}`},
		"misleading":   {target: query, err: fmt.Errorf("FAILURE ONGOING: %w", client.ErrUnknown), status: 500, answer: `{"message":"failure ongoing: outcome not known"}`},
		"misled":       {target: query, err: fmt.Errorf("ONGOING: %w", client.ErrFailed), status: 409, answer: `{"dtm_result":"FAILURE","message":"ongoing: failed"}`},
		"words":        {target: query, reply: "FAILURE", status: 200, answer: `{"dtm_result":"SUCCESS"}`},
		"not a call":   {target: "/", status: 400},
		"no operation": {target: "/?gid=g1&branch_id=01", status: 400},
		"too long":     {target: query, body: "12345", opts: []client.HandlerOption{client.BodyMax(4)}, status: 413},
		"long enough":  {target: query, body: "1234", opts: []client.HandlerOption{client.BodyMax(4)}, status: 200},
		"no JSON":      {target: query, reply: make(chan int), status: 500},
		"short key":    {target: query, opts: []client.HandlerOption{client.SignedBy([]byte("short"))}, status: 500},
		"unsigned":     {target: query, opts: []client.HandlerOption{client.SignedBy(make([]byte, 32))}, status: 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := client.Handler(func(context.Context, *client.Call) (any, error) { return c.reply, c.err }, c.opts...)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, c.target, strings.NewReader(c.body)))
			if got := strings.TrimSpace(w.Body.String()); w.Code != c.status || c.answer != "" && got != c.answer {
				t.Errorf("answer is %d %s, want %d %s", w.Code, got, c.status, c.answer)
			}
		})
	}
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	seen := ""
	h := client.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		seen = string(body)
		if call, ok := client.CallFrom(r.Context()); ok {
			seen += fmt.Sprint(" ", call.GID, " ", call.Pattern, " ", call.Branch, " ", call.Op)
		}
	}))
	for target, want := range map[string]string{query: "x g1 tcc 01 confirm", "/": "x", "/chats?gid=5": "x"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader("x")))
		if seen != want {
			t.Errorf("%s: next saw %q, want %q", target, seen, want)
		}
	}
}

// A server that signs its calls is let in; whoever knows no key is not, and neither is
// a call that is played again.
func TestSignedCalls(t *testing.T) {
	t.Parallel()
	key, other := []byte(strings.Repeat("k", 32)), []byte(strings.Repeat("o", 32))
	w := newWorld(t, key)
	s := newService(t, nil, client.SignedBy(other, key))
	if err := w.Saga(client.Wait()).Add(s.URL+"/do?x=1", "", map[string]int{"n": 1}).Submit(t.Context()); err != nil {
		t.Fatal(err)
	}
	strict := newService(t, nil, client.SignedBy(other))
	saga := w.Saga(client.Wait()).Add(strict.URL, "", nil)
	if err := saga.Submit(t.Context()); !errors.Is(err, client.ErrOngoing) || len(strict.seen()) > 0 {
		t.Errorf("a call signed with another key: %v, seen %v", err, strict.seen())
	}

	var first *http.Request
	replay := httptest.NewServer(client.Middleware(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		first = r.Clone(context.Background())
		client.WriteReply(rw, r, nil, nil)
	}), client.SignedBy(key)))
	defer replay.Close()
	if err := w.Saga(client.Wait()).Add(replay.URL, "", nil).Submit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), first.Method, replay.URL+first.RequestURI, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = first.Header
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a call that is played again: %d, %v", resp.StatusCode, err)
	}
}
