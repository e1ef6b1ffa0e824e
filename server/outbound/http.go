package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/callsign"
	"github.com/troth-tx/troth/store"
)

// callHTTP calls over HTTP. The parameters follow those that the URL has.
func (c *Caller) callHTTP(ctx context.Context, t *target, call *engine.Call) (engine.Answer, string) {
	method := http.MethodGet
	if len(call.Payload) > 0 || call.Pattern == store.XA || call.Op == store.Resume {
		method = http.MethodPost
	}
	a, text, _ := c.exchange(ctx, t, queryOf(t.url.RawQuery, call), method, call.Payload, call)
	return a, text
}

func queryOf(own string, call *engine.Call) string {
	q := make([]byte, 0, 160)
	if own != "" {
		q = append(append(q, own...), '&')
	}
	q = append(append(q, "branch_id="...), url.QueryEscape(call.Branch)...)
	q = append(append(q, "&gid="...), url.QueryEscape(call.GID)...)
	q = append(append(q, "&op="...), url.QueryEscape(opOf(call))...)
	q = append(append(q, "&trans_type="...), url.QueryEscape(call.Pattern.String())...)
	return string(q)
}

// exchange sends one request and reads the answer. reply is the body of an answer that
// means success.
func (c *Caller) exchange(ctx context.Context, t *target, query, method string, body []byte, call *engine.Call) (a engine.Answer, text string, reply []byte) {
	request, err := c.request(ctx, t, query, method, body, call)
	if err != nil {
		return engine.Unknown, readable(err.Error()), nil
	}
	response, err := c.http.RoundTrip(request)
	if err != nil {
		return engine.Unknown, readable(unwrapped(ctx, err).Error()), nil
	}
	defer func() { _ = response.Body.Close() }() // what is unread goes with the connection
	status := response.StatusCode
	if status == http.StatusSwitchingProtocols { // its body would be the connection
		return engine.Unknown, "HTTP 101: nobody has asked for another protocol", nil
	}
	buffer := buffers.Get().(*bytes.Buffer)
	defer recycle(buffer)
	limit := c.cfg.AnswerMax
	if _, err := buffer.ReadFrom(io.LimitReader(response.Body, int64(limit)+1)); err != nil {
		return engine.Unknown, readable(fmt.Sprintf("HTTP %d: after %d bytes: %v", status, buffer.Len(), unwrapped(ctx, err))), nil
	}
	said := buffer.Bytes()
	more := len(said) > limit
	said = said[:min(len(said), limit)]
	switch a = c.answerOf(status, said); {
	case a != engine.Success:
		return a, textOf(status, said), nil
	case more:
		return engine.Unknown, fmt.Sprintf("HTTP 200, but the answer has more than %d bytes", limit), nil
	}
	return a, "", bytes.Clone(said)
}

// unwrapped prefers the reason why a call was given up.
func unwrapped(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case cause != nil:
		return cause
	}
	return err
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func recycle(b *bytes.Buffer) {
	if b.Cap() <= 64<<10 {
		b.Reset()
		buffers.Put(b)
	}
}

// request makes a request of a call.
func (c *Caller) request(ctx context.Context, t *target, query, method string, body []byte, call *engine.Call) (*http.Request, error) {
	header, err := headerOf(t, call)
	if err != nil {
		return nil, err
	}
	u := *t.url
	u.RawQuery = query
	if len(c.cfg.SigningKey) > 0 {
		header[callsign.Header] = []string{callsign.Sign(c.cfg.SigningKey, callsign.Call{
			GID: call.GID, Branch: call.Branch, Op: opOf(call), Method: method, Target: u.RequestURI(), Body: body,
		}, time.Now())}
	}
	r := (&http.Request{Method: method, URL: &u, Header: header}).WithContext(ctx)
	if len(body) > 0 {
		r.ContentLength = int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
	}
	return r, nil
}
