package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// The driver shares the processors with what it measures, so its HTTP is no more than
// what these servers and it say to each other: one request after the other on a
// connection that stays, and answers with a Content-Length.

// A conn asks a server. It is not safe for concurrent use.
type conn struct {
	host string
	c    net.Conn
	r    *bufio.Reader
	out  []byte
	line []byte
}

// answerTimeout is longer than any answer of these workloads takes.
const answerTimeout = 30 * time.Second

func dial(host string) (*conn, error) {
	c, err := net.Dial("tcp", host)
	if err != nil {
		return nil, err
	}
	return &conn{host: host, c: c, r: bufio.NewReaderSize(c, 4096)}, nil
}

func (c *conn) close() { _ = c.c.Close() }

// post sends a body and fails unless the answer is 200, with a *refusal if there is
// another.
func (c *conn) post(path string, body []byte) error {
	o := append(c.out[:0], "POST "...)
	o = append(append(o, path...), " HTTP/1.1\r\nHost: "...)
	o = append(append(o, c.host...), "\r\nContent-Type: application/json\r\nContent-Length: "...)
	o = strconv.AppendInt(o, int64(len(body)), 10)
	o = append(append(o, "\r\n\r\n"...), body...)
	c.out = o
	if err := c.c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := c.c.Write(o); err != nil {
		return err
	}
	first, size, err := readHead(c.r, c.line)
	if err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	c.line = first
	if bytes.HasPrefix(first, []byte("HTTP/1.1 200 ")) {
		_, err = c.r.Discard(size)
		return err
	}
	reply := make([]byte, size)
	_, err = io.ReadFull(c.r, reply)
	if err != nil {
		return err
	}
	return &refusal{fmt.Sprintf("POST %s: %s: %s", path, bytes.TrimSpace(first), bytes.TrimSpace(reply))}
}

// A refusal is an answer other than 200. The connection is still good.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

var errChunked = errors.New("a chunked message: this client does not read it")

// readHead reads the first line and the headers, and returns that line in keep's memory
// and the length of the body.
func readHead(r *bufio.Reader, keep []byte) (first []byte, size int, err error) {
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, 0, err
		}
		switch {
		case n == 0:
			first = append(keep[:0], line...)
		case len(line) <= 2:
			return first, size, nil
		case hasName(line, "content-length:"):
			if size, err = strconv.Atoi(string(bytes.TrimSpace(line[len("content-length:"):]))); err != nil {
				return nil, 0, err
			}
		case hasName(line, "transfer-encoding:"):
			return nil, 0, errChunked
		}
	}
}

func hasName(line []byte, name string) bool {
	return len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name))
}

// A participant answers every call of a branch with success: at once, or as answer
// says.
type participant struct {
	addr string

	// answer, if it is set, is told the target of each call, may take its time, and
	// reports whether there shall be an answer; otherwise the connection is closed.
	answer func(target []byte) bool

	mu    sync.Mutex // guards what follows
	l     net.Listener
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

func newParticipant(answer func([]byte) bool) (*participant, error) {
	p := &participant{addr: "127.0.0.1:0", answer: answer}
	return p, p.start()
}

// start listens, again on the same address after a stop.
func (p *participant) start() error {
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.addr, p.l, p.conns = l.Addr().String(), l, make(map[net.Conn]struct{})
	p.mu.Unlock()
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			known := p.conns != nil
			if known {
				p.conns[c] = struct{}{}
			}
			p.mu.Unlock()
			if !known {
				_ = c.Close()
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	return nil
}

// stop is an outage: connections are closed, and new ones refused.
func (p *participant) stop() {
	p.mu.Lock()
	_ = p.l.Close()
	for c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.wg.Wait()
}

var branchAnswer = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 24\r\n\r\n{\"dtm_result\":\"SUCCESS\"}")

func (p *participant) serve(c net.Conn) {
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		_ = c.Close()
	}()
	r := bufio.NewReaderSize(c, 4096)
	var line []byte
	for {
		first, size, err := readHead(r, line)
		if err != nil {
			return
		}
		line = first
		if _, err := r.Discard(size); err != nil {
			return
		}
		if p.answer != nil && !p.answer(first) {
			return
		}
		if _, err := c.Write(branchAnswer); err != nil {
			return
		}
	}
}
