package outbound

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// http1 is a client of HTTP/1.1 for short calls of few hosts. It does what a call needs
// and nothing more: net/http's transport takes two further goroutines and twice the
// processor time for each (docs/decisions/0008-a-client-of-http-for-branches.md). One goroutine writes the request and
// reads the answer; connections are used again.
type http1 struct {
	dialer      *net.Dialer
	tls         *tls.Config
	idlePerHost int
	idleMax     int

	mu     sync.Mutex
	idle   map[origin][]*conn1 // the last was used last
	count  int                 // of idle
	sweep  *time.Timer         // runs while there are idle ones
	closed bool
}

// origin is where a connection leads.
type origin struct {
	hostPort string
	name     string // of the certificate; empty: no TLS
}

// conn1 is one connection.
type conn1 struct {
	net.Conn
	to     origin
	r      *bufio.Reader
	raw    syscall.RawConn // below TLS
	reused bool
	early  bool      // it answered before the request was written
	since  time.Time // idle
}

const idleTimeout = 90 * time.Second

// errStale means that a connection was closed before an answer began. The participant
// may have closed it while it was idle.
var errStale = errors.New("connection closed before the answer")

// An answer is what a participant said. The body is read up to a limit.
type answer struct {
	status int
	body   []byte
	more   bool // than the limit
}

// do sends a request, which is complete in its bytes, and reads the answer into buffer.
// A request that met a closed connection is sent again over a new one: participants
// bear repetitions.
func (h *http1) do(ctx context.Context, to origin, request []byte, buffer *bytes.Buffer, limit int) (a answer, err error) {
	c := h.take(to)
	if c != nil && !quiet(c.raw) {
		_ = c.Close() // nothing is under way
		h.forget(to)  // the others are as old
		c = nil
	}
	if c != nil {
		if a, err = h.over(ctx, c, request, buffer, limit); !errors.Is(err, errStale) || ctx.Err() != nil {
			return a, err
		}
		h.forget(to) // the others are as old
	}
	if c, err = h.dial(ctx, to); err != nil {
		return a, err
	}
	return h.over(ctx, c, request, buffer, limit)
}

func (h *http1) dial(ctx context.Context, to origin) (*conn1, error) {
	conn, err := h.dialer.DialContext(ctx, "tcp", to.hostPort)
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if to.name != "" {
		cfg := h.tls.Clone()
		cfg.ServerName = to.name
		encrypted := tls.Client(conn, cfg)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // never used
			return nil, err
		}
		conn = encrypted
	}
	return &conn1{Conn: conn, to: to, r: bufio.NewReader(conn), raw: raw}, nil
}

// over makes one exchange over a connection, which is idle or closed afterwards.
func (h *http1) over(ctx context.Context, c *conn1, request []byte, buffer *bytes.Buffer, limit int) (a answer, err error) {
	keep := false
	end, _ := ctx.Deadline() // none is zero, which is none for a connection, too
	err = c.SetDeadline(end)
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // wakes who reads or writes
	defer func() {
		if stop() && keep && !c.early && err == nil {
			h.give(c)
			return
		}
		_ = c.Close() // nothing of it is of use any more
	}()
	if err != nil {
		return a, err
	}
	if err = c.send(request); err != nil {
		var timeout net.Error
		if c.reused && (!errors.As(err, &timeout) || !timeout.Timeout()) {
			err = errStale
		}
		return a, err
	}
	a, keep, err = readAnswer(c.r, buffer, limit)
	return a, err
}

// sendAlone is up to how many bytes a request is written before its answer is looked
// at. More may not fit between two programs, and then the participant may answer, or
// give up, before it has read them.
const sendAlone = 32 << 10

// send writes a request, and waits until the answer begins.
func (c *conn1) send(request []byte) error {
	if len(request) <= sendAlone {
		if _, err := c.Write(request); err != nil {
			return err
		}
		_, err := c.r.Peek(1)
		return err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = c.Write(request) // the answer tells
	}()
	_, err := c.r.Peek(1)
	select {
	case <-written: // an answer counts, also if it came without reading all
	default:
		c.early = true // and then nobody knows where the next request would begin
		_ = c.SetWriteDeadline(time.Unix(1, 0))
		<-written // the bytes are the caller's again
	}
	return err
}

// take returns the connection that was used last, or nil.
func (h *http1) take(to origin) *conn1 {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.idle[to]
	if len(all) == 0 {
		return nil
	}
	c := all[len(all)-1]
	all[len(all)-1] = nil
	h.idle[to] = all[:len(all)-1]
	h.count--
	c.reused = true
	return c
}

// give keeps a connection for the next call, if there is room.
func (h *http1) give(c *conn1) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.idle[c.to]
	if h.closed || len(all) >= h.idlePerHost || h.count >= h.idleMax || c.r.Buffered() > 0 {
		_ = c.Close() // nothing is under way
		return
	}
	c.since = time.Now()
	if h.idle == nil {
		h.idle = make(map[origin][]*conn1)
	}
	h.idle[c.to] = append(all, c)
	h.count++
	if h.sweep == nil {
		h.sweep = time.AfterFunc(idleTimeout/2, h.closeOld)
	}
}

// forget closes the idle connections to a host.
func (h *http1) forget(to origin) {
	h.mu.Lock()
	all := h.idle[to]
	delete(h.idle, to)
	h.count -= len(all)
	h.mu.Unlock()
	closeAll(all)
}

// closeOld closes connections that were idle for too long.
func (h *http1) closeOld() {
	h.mu.Lock()
	var old []*conn1
	for to, all := range h.idle {
		n := 0
		for n < len(all) && time.Since(all[n].since) > idleTimeout {
			n++
		}
		old = append(old, all[:n]...)
		if n == len(all) {
			delete(h.idle, to)
		} else {
			h.idle[to] = append([]*conn1(nil), all[n:]...)
		}
	}
	h.count -= len(old)
	if h.sweep = nil; h.count > 0 && !h.closed {
		h.sweep = time.AfterFunc(idleTimeout/2, h.closeOld)
	}
	h.mu.Unlock()
	closeAll(old)
}

func (h *http1) close() {
	h.mu.Lock()
	h.closed = true
	var all []*conn1
	for _, each := range h.idle {
		all = append(all, each...)
	}
	clear(h.idle)
	h.count = 0
	if h.sweep != nil {
		h.sweep.Stop()
	}
	h.mu.Unlock()
	closeAll(all)
}

func closeAll(all []*conn1) {
	for _, c := range all {
		_ = c.Close() // nothing is under way
	}
}

// head is what matters of an answer's first lines.
type head struct {
	status  int
	length  int64 // -1: not given
	chunked bool
	close   bool
}

// readAnswer reads one answer. keep says that the connection can be used again.
func readAnswer(r *bufio.Reader, buffer *bytes.Buffer, limit int) (a answer, keep bool, err error) {
	left := answerHeadersMax
	var h head
	for h.status < 200 { // those before are hints
		if h, err = readHead(r, &left); err != nil {
			return a, false, err
		}
		if h.status == 101 {
			return a, false, errors.New("malformed answer: switches protocols")
		}
	}
	a.status = h.status
	var body io.Reader = r
	switch {
	case h.status == 204 || h.status == 304 || h.length == 0:
		return a, !h.close, nil
	case h.chunked:
		body = httputil.NewChunkedReader(r)
	case h.length > 0:
		body = io.LimitReader(r, h.length)
	default:
		h.close = true // that ends it
	}
	n, err := buffer.ReadFrom(io.LimitReader(body, int64(limit)+1))
	a.body = buffer.Bytes()
	switch {
	case err != nil:
		return a, false, err
	case n > int64(limit):
		a.body, a.more = a.body[:limit], true
		return a, false, nil
	case h.chunked:
		for line := []byte("x"); len(line) > 0; { // trailers
			if line, err = readLine(r, &left); err != nil {
				return a, false, err
			}
		}
	case h.length > n:
		return a, false, io.ErrUnexpectedEOF
	}
	return a, !h.close, nil
}

// readHead reads the status and the headers of an answer.
func readHead(r *bufio.Reader, left *int) (h head, err error) {
	line, err := readLine(r, left)
	if err != nil {
		return h, err
	}
	// "HTTP/1.1 200 OK"
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return h, errors.New("malformed answer: no HTTP/1.1")
	}
	h.status, err = strconv.Atoi(string(line[9:12]))
	if err != nil || h.status < 100 {
		return h, errors.New("malformed answer: no status")
	}
	h.length, h.close = -1, line[7] == '0'
	for {
		line, err := readLine(r, left)
		if err != nil || len(line) == 0 {
			return h, err
		}
		if err := h.header(line); err != nil {
			return h, err
		}
	}
}

// header takes in one header, if it says where the answer ends.
func (h *head) header(line []byte) error {
	name, value, found := bytes.Cut(line, []byte(":"))
	if !found {
		return errors.New("malformed answer: header without a colon")
	}
	switch len(name) {
	case len("Connection"):
		if strings.EqualFold(string(name), "Connection") && containsFold(value, "close") {
			h.close = true
		}
	case len("Content-Length"):
		if strings.EqualFold(string(name), "Content-Length") {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 63)
			if err != nil || h.length >= 0 && h.length != int64(n) {
				return errors.New("malformed answer: Content-Length")
			}
			h.length = int64(n)
		}
	case len("Transfer-Encoding"):
		if strings.EqualFold(string(name), "Transfer-Encoding") {
			if !strings.EqualFold(string(bytes.TrimSpace(value)), "chunked") || h.chunked {
				return errors.New("malformed answer: Transfer-Encoding is not chunked")
			}
			h.chunked = true
		}
	}
	if h.chunked && h.length >= 0 {
		h.length, h.close = -1, true // one of the two is a lie
	}
	return nil
}

func containsFold(value []byte, word string) bool {
	return bytes.Contains(bytes.ToLower(value), []byte(word))
}

var errHeadersTooLong = errors.New("the answer has too many headers")

// readLine reads a line without its end, and takes its length off left. Of a line that
// is longer than the reader's buffer only the beginning is returned: none that matters is.
func readLine(r *bufio.Reader, left *int) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	*left -= len(line)
	if errors.Is(err, bufio.ErrBufferFull) {
		line = append([]byte(nil), line[:64]...)
		for errors.Is(err, bufio.ErrBufferFull) && *left >= 0 {
			var rest []byte
			rest, err = r.ReadSlice('\n')
			*left -= len(rest)
		}
	}
	switch {
	case *left < 0:
		return nil, errHeadersTooLong
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
