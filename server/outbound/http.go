package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/callsign"
	"github.com/troth-tx/troth/store"
)

const answerHeadersMax = 64 << 10 // bytes

// callHTTP calls over HTTP. The parameters follow those that the URL has.
func (c *Caller) callHTTP(ctx context.Context, t *target, call *engine.Call) (engine.Answer, string) {
	method := http.MethodGet
	if len(call.Payload) > 0 || call.Pattern == store.XA || call.Op == store.Resume {
		method = http.MethodPost
	}
	a, text, _ := c.exchange(ctx, t, t.path+"?"+queryOf(t.query, call), method, call.Payload, call)
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
func (c *Caller) exchange(ctx context.Context, t *target, uri, method string, body []byte, call *engine.Call) (a engine.Answer, text string, reply []byte) {
	request := buffers.Get().(*bytes.Buffer)
	defer recycle(request)
	if err := c.write(request, t, uri, method, body, call); err != nil {
		return engine.Unknown, readable(err.Error()), nil
	}
	buffer := buffers.Get().(*bytes.Buffer)
	defer recycle(buffer)
	said, err := c.http.do(ctx, t.origin, request.Bytes(), buffer, c.cfg.AnswerMax)
	if err != nil {
		text = unwrapped(ctx, err).Error()
		if said.status != 0 {
			text = fmt.Sprintf("HTTP %d: after %d bytes: %s", said.status, len(said.body), text)
		}
		return engine.Unknown, readable(text), nil
	}
	a = c.answerOf(said.status, said.body)
	switch {
	case said.more && a == engine.Success:
		return engine.Unknown, fmt.Sprintf("HTTP 200, but the answer has more than %d bytes", c.cfg.AnswerMax), nil
	case a != engine.Success:
		return a, textOf(said.status, said.body), nil
	}
	return a, "", bytes.Clone(said.body)
}

// unwrapped prefers the reason why a call was given up.
func unwrapped(ctx context.Context, err error) error {
	var timeout net.Error
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, context.DeadlineExceeded), cause == nil && errors.As(err, &timeout) && timeout.Timeout():
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

const plainHeader = "\r\nUser-Agent: troth\r\nAccept: application/json"

// write writes a request as it goes over the wire.
func (c *Caller) write(b *bytes.Buffer, t *target, uri, method string, body []byte, call *engine.Call) error {
	if err := CheckHeaders(call.Headers); err != nil {
		return err
	}
	for _, s := range [...]string{method, " ", uri, " HTTP/1.1\r\nHost: ", t.hostPort, plainHeader} {
		b.WriteString(s)
	}
	contentType := "application/json"
	for name, value := range call.Headers {
		switch name = http.CanonicalHeaderKey(name); {
		case name == "Content-Type":
			contentType = value
		case !ours[name]:
			header(b, name, value)
		}
	}
	header(b, "Content-Type", contentType)
	if _, own := call.Headers["Authorization"]; t.authorization != "" && !own {
		header(b, "Authorization", t.authorization)
	}
	if len(c.cfg.SigningKey) > 0 {
		header(b, callsign.Header, callsign.Sign(c.cfg.SigningKey, callsign.Call{
			GID: call.GID, Branch: call.Branch, Op: opOf(call), Method: method, Target: uri, Body: body,
		}, time.Now()))
	}
	if len(body) > 0 || method == http.MethodPost {
		header(b, "Content-Length", strconv.Itoa(len(body)))
	}
	b.WriteString("\r\n\r\n")
	b.Write(body)
	return nil
}

func header(b *bytes.Buffer, name, value string) {
	for _, s := range [...]string{"\r\n", name, ": ", value} {
		b.WriteString(s)
	}
}

// ours are headers that no caller sets: they say where a request goes, where it ends, or
// who sent it.
var ours = map[string]bool{
	"Host": true, "Connection": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Te": true,
	"Upgrade": true, "Expect": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authorization": true,
	"Accept-Encoding": true, "User-Agent": true, "Accept": true, callsign.Header: true,
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
