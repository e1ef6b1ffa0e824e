package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/callsign"
	"github.com/troth-tx/troth/store"
)

const (
	answerHeadersMax = 64 << 10 // bytes
	idleConnTimeout  = 90 * time.Second
)

// newTransport returns net/http's transport with all its helpfulness switched off. It is
// used without an http.Client, which would follow redirects.
func newTransport(dialer *net.Dialer, cfg *Config) *http.Transport {
	t := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        cfg.TLS.Clone(),
		TLSHandshakeTimeout:    10 * time.Second,
		DisableCompression:     true, // an answer takes as much memory as it took on the wire
		MaxIdleConns:           cfg.ConnsMax,
		MaxIdleConnsPerHost:    cfg.IdleConnsPerHost,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: answerHeadersMax,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// callHTTP calls over HTTP. The parameters follow those that the URL has.
func (c *Caller) callHTTP(ctx context.Context, t *target, call *engine.Call) (engine.Answer, string) {
	method := http.MethodGet
	if len(call.Payload) > 0 || call.Pattern == store.XA || call.Op == store.Resume {
		method = http.MethodPost
	}
	u := *t.url
	u.RawQuery = queryOf(t.url.RawQuery, call)
	a, text, _ := c.exchange(ctx, t, &u, method, call.Payload, call)
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
func (c *Caller) exchange(ctx context.Context, t *target, u *url.URL, method string, body []byte, call *engine.Call) (a engine.Answer, text string, reply []byte) {
	header, err := c.headerOf(t, u, method, body, call)
	if err != nil {
		return engine.Unknown, readable(err.Error()), nil
	}
	r := &http.Request{Method: method, URL: u, Host: u.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if len(body) > 0 {
		r.ContentLength = int64(len(body))
		// So that it can be sent again where a connection was closed before it was read.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		r.Body, _ = r.GetBody()
	}
	response, err := c.http.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return engine.Unknown, readable(unwrapped(ctx, err).Error()), nil
	}
	defer response.Body.Close()
	return c.read(ctx, response)
}

// unwrapped prefers the reason why a context ended.
func unwrapped(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.DeadlineExceeded) {
			return errors.New("no answer in time")
		}
		return cause
	}
	return err
}

// read reads an answer to its end, so that the connection can be used again; if it is
// too long the connection is closed.
func (c *Caller) read(ctx context.Context, response *http.Response) (a engine.Answer, text string, reply []byte) {
	if response.ContentLength == 0 {
		a = c.answerOf(response.StatusCode, nil)
		if a != engine.Success {
			text = textOf(response.StatusCode, nil)
		}
		return a, text, nil
	}
	buffer := buffers.Get().(*bytes.Buffer)
	buffer.Reset()
	defer func() {
		if buffer.Cap() <= 64<<10 {
			buffers.Put(buffer)
		}
	}()
	limit := int64(c.cfg.AnswerMax)
	n, err := buffer.ReadFrom(io.LimitReader(response.Body, limit+1))
	body := buffer.Bytes()
	a = c.answerOf(response.StatusCode, body)
	switch {
	case err != nil:
		return engine.Unknown, readable(fmt.Sprintf("HTTP %d: after %d bytes: %v", response.StatusCode, n, unwrapped(ctx, err))), nil
	case n > limit && a == engine.Success:
		return engine.Unknown, fmt.Sprintf("HTTP 200, but the answer has more than %d bytes", limit), nil
	case a != engine.Success:
		return a, textOf(response.StatusCode, body), nil
	}
	return a, "", bytes.Clone(body)
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// plainHeader is what calls without headers of their own send. Nobody changes it.
//
// Idempotency-Key without a value is not sent. It lets the transport repeat a request
// that met a connection which the participant had just closed, as after a restart:
// participants bear repetitions.
var plainHeader = http.Header{
	"Idempotency-Key": {},
	"Content-Type":    {"application/json"},
	"Accept":          {"application/json"},
	"User-Agent":      {"troth"},
}

// headerOf returns the headers of a call.
func (c *Caller) headerOf(t *target, u *url.URL, method string, body []byte, call *engine.Call) (http.Header, error) {
	signed := len(c.cfg.SigningKey) > 0
	if len(call.Headers) == 0 && t.authorization == "" && !signed {
		return plainHeader, nil
	}
	header := make(http.Header, len(plainHeader)+len(call.Headers)+2)
	for name, values := range plainHeader {
		header[name] = values
	}
	if t.authorization != "" {
		header["Authorization"] = []string{t.authorization}
	}
	if err := CheckHeaders(call.Headers); err != nil {
		return nil, err
	}
	for name, value := range call.Headers {
		if name = http.CanonicalHeaderKey(name); !ours[name] {
			header[name] = []string{value}
		}
	}
	if signed {
		header[callsign.Header] = []string{callsign.Sign(c.cfg.SigningKey, callsign.Call{
			GID: call.GID, Branch: call.Branch, Op: opOf(call), Method: method, Target: u.RequestURI(), Body: body,
		}, time.Now())}
	}
	return header, nil
}

// ours are headers that no caller sets: they say where a request goes, where it ends, or
// who sent it.
var ours = map[string]bool{
	"Host": true, "Connection": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Te": true,
	"Upgrade": true, "Expect": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authorization": true,
	"Accept-Encoding": true, callsign.Header: true,
}

// Limits of branch_headers.
const (
	headersMax      = 64
	headersBytesMax = 16 << 10
)

// CheckHeaders reports why headers for branches would be refused; nil if they would not.
func CheckHeaders(headers map[string]string) error {
	if len(headers) > headersMax {
		return fmt.Errorf("branch_headers: %d headers, the limit is %d", len(headers), headersMax)
	}
	size := 0
	for name, value := range headers {
		size += len(name) + len(value)
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("branch_headers: %q is no name of a header", cut(name, 100))
		}
		if !httpguts.ValidHeaderFieldValue(value) || strings.ContainsAny(value, "\r\n") {
			return fmt.Errorf("branch_headers: the value of %q has characters that no header may have", cut(name, 100))
		}
	}
	if size > headersBytesMax {
		return fmt.Errorf("branch_headers: %d bytes, the limit is %d", size, headersBytesMax)
	}
	return nil
}
