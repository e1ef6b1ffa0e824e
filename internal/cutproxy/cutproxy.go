// Package cutproxy is a TCP proxy for tests that cuts a connection at a chosen
// message: when the client has sent bytes that contain a text. It knows no
// protocol, so it serves every database whose requests travel in the clear.
//
//	p := cutproxy.New(t, server.Addr())
//	db := open(p.Addr())
//	cut := p.Cut(cutproxy.AfterAnswer, "PREPARE TRANSACTION", 1)
//	... // the server prepares; the client never hears of it
//	<-cut
package cutproxy

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// A Place says where a connection is cut.
type Place uint8

// The places.
const (
	// BeforeServer: the message never reaches the server, and both ends of the
	// connection are closed.
	BeforeServer Place = iota + 1

	// AfterAnswer: the server has carried the message out and answered; the client
	// does not get the answer. Both ends are closed.
	AfterAnswer

	// StrandedBefore: the message never reaches the server, the client's end is
	// closed, and the server's stays open until Release or the end of the test:
	// the network lost its mind.
	StrandedBefore

	// StrandedAfter: the message reaches the server, the client's end is closed at
	// once, and the server's stays open.
	StrandedAfter
)

// A Proxy forwards TCP connections to one address.
type Proxy struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex
	cuts     []*cut
	open     map[net.Conn]struct{}
	stranded []net.Conn
	closed   bool
}

type cut struct {
	place Place
	text  []byte
	left  int // matches until it acts
	done  chan struct{}
}

// New starts a proxy to the address, closed when the test ends.
func New(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("cutproxy: %v", err)
	}
	p := &Proxy{target: target, listener: l, open: map[net.Conn]struct{}{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr is the address to connect to instead of the server's.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut arms one cut: it acts on the nth message, counted from now and over all
// connections, in which a client sends the text. The channel is closed when it
// has acted.
func (p *Proxy) Cut(place Place, text string, n int) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &cut{place: place, text: []byte(text), left: n, done: make(chan struct{})}
	p.cuts = append(p.cuts, c)
	return c.done
}

// Release closes the stranded connections: the server notices at last.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.stranded {
		_ = c.Close()
	}
	p.stranded = nil
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.Release()
	p.mu.Lock()
	p.closed = true
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		server, err := net.DialTimeout("tcp", p.target, 10*time.Second)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		if p.closed {
			_ = client.Close()
			_ = server.Close()
		}
		p.open[client], p.open[server] = struct{}{}, struct{}{}
		p.mu.Unlock()
		link := &link{proxy: p, client: client, server: server}
		p.wg.Go(link.requests)
		p.wg.Go(link.answers)
	}
}

func (p *Proxy) forget(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	delete(p.open, c)
	p.mu.Unlock()
}

// match returns the cut that the chunk sets off.
func (p *Proxy) match(window []byte, fresh int) *cut {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range p.cuts {
		// Only matches that end in the fresh bytes are new.
		start := max(len(window)-fresh-len(c.text)+1, 0)
		if !bytes.Contains(window[start:], c.text) {
			continue
		}
		if c.left--; c.left > 0 {
			continue
		}
		p.cuts = append(p.cuts[:i:i], p.cuts[i+1:]...)
		return c
	}
	return nil
}

func (p *Proxy) strand(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
	if p.closed {
		_ = c.Close()
		return
	}
	p.stranded = append(p.stranded, c)
}

// link is one connection through the proxy.
type link struct {
	proxy          *Proxy
	client, server net.Conn

	mu    sync.Mutex
	after *cut // to act when the server answers
}

const windowMax = 4096

func (l *link) requests() {
	defer l.proxy.forget(l.client)
	var window []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := l.client.Read(buf)
		if err != nil {
			l.proxy.forget(l.server)
			return
		}
		window = append(window, buf[:n]...)
		c := l.proxy.match(window, n)
		if len(window) > windowMax {
			window = append(window[:0], window[len(window)-windowMax:]...)
		}
		if c == nil {
			if _, err := l.server.Write(buf[:n]); err != nil {
				return
			}
			continue
		}
		if !l.act(c, buf[:n]) {
			return
		}
	}
}

// act carries a cut out and reports whether the link goes on.
func (l *link) act(c *cut, chunk []byte) bool {
	switch c.place {
	case BeforeServer:
		l.proxy.forget(l.server)
	case AfterAnswer:
		l.mu.Lock()
		l.after = c
		l.mu.Unlock()
		_, err := l.server.Write(chunk)
		return err == nil
	case StrandedBefore:
		l.proxy.strand(l.server)
	case StrandedAfter:
		l.proxy.strand(l.server)
		_, _ = l.server.Write(chunk) // the test sees what came of it
	}
	l.proxy.forget(l.client)
	close(c.done)
	return false
}

func (l *link) answers() {
	buf := make([]byte, 32<<10)
	for {
		n, err := l.server.Read(buf)
		l.mu.Lock()
		c := l.after
		l.mu.Unlock()
		if c != nil {
			l.proxy.forget(l.client)
			l.proxy.forget(l.server)
			close(c.done)
			return
		}
		if err == nil {
			_, err = l.client.Write(buf[:n])
			if err != nil && l.isStranded() {
				err = nil // read on, so that the server does not block
			}
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.proxy.forget(l.client)
			}
			return
		}
	}
}

func (l *link) isStranded() bool {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	_, open := l.proxy.open[l.server]
	return !open
}
