package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// A participantCall is the address and content of one call that this client makes of a branch
// itself: the try of a TCC, phase one of XA, a step of a workflow.
type participantCall struct {
	gid     string
	pattern Pattern
	branch  string
	op      Op
	url     string
	payload []byte
	extra   url.Values // more parameters
}

// callBranch calls a participant once. The kinds of its errors are ErrFailed, ErrOngoing,
// ErrUnknown and ErrInvalid. It returns what the participant answered.
func (c *Client) callBranch(ctx context.Context, p participantCall) ([]byte, error) {
	fail := func(kind error, text string, err error) ([]byte, error) {
		return nil, &Error{Op: string(p.op), GID: p.gid, URL: withoutQuery(p.url), Kind: kind, Text: clip(text), Err: err}
	}
	if !strings.HasPrefix(p.url, "http://") && !strings.HasPrefix(p.url, "https://") {
		return fail(ErrInvalid, "", fmt.Errorf("the address must begin with http:// or https://; package grpcclient calls gRPC methods"))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(p.payload))
	if err != nil {
		return fail(ErrInvalid, "", withoutURL(err))
	}
	q := req.URL.Query()
	for key, values := range p.extra {
		q[key] = values
	}
	q.Set("gid", p.gid)
	q.Set("trans_type", string(p.pattern))
	q.Set("branch_id", p.branch)
	q.Set("op", string(p.op))
	if s := c.transport.Server(); s != "" {
		q.Set("dtm", s)
	}
	req.URL.RawQuery = q.Encode()
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fail(ErrUnknown, "", causeOf(ctx, err))
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerMax+1))
	switch {
	case err != nil:
		return fail(ErrUnknown, "", causeOf(ctx, err))
	case len(answer) > answerMax:
		return fail(ErrUnknown, "", fmt.Errorf("the answer is longer than %d bytes", answerMax))
	}
	if kind := kindOfBranch(resp.StatusCode, answer); kind != nil {
		return fail(kind, textOf(answer), nil)
	}
	return answer, nil
}

// kindOfBranch reads a participant's answer. The body counts where it is in dtm's form, or
// one of its words and nothing else, because old participants say 200 to everything. The
// word FAILURE in some text does not.
func kindOfBranch(status int, answer []byte) error {
	result := resultOf(answer)
	if word := bytes.Trim(answer, " \t\r\n\""); len(word) <= len(resultFailed) && result == "" {
		result = string(word)
	}
	switch {
	case status == statusOngoing, status == http.StatusOK && result == resultOngoing:
		return ErrOngoing
	case status == statusFailed, status == http.StatusOK && result == resultFailed:
		return ErrFailed
	case status == http.StatusOK:
		return nil
	}
	return ErrUnknown
}

// withoutQuery is an address as errors may show it: without what may be secret.
func withoutQuery(address string) string {
	before, _, _ := strings.Cut(address, "?")
	scheme, rest, ok := strings.Cut(before, "://")
	host, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); ok && i >= 0 {
		return scheme + "://" + strings.TrimSuffix(host[i+1:]+"/"+path, "/")
	}
	return before
}

// decode reads the JSON that a participant answered.
func decode(answer []byte, into any) error {
	if into == nil || len(answer) == 0 {
		return nil
	}
	return json.Unmarshal(answer, into)
}
