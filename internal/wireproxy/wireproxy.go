// Package wireproxy is a TCP proxy that understands the PostgreSQL and the MySQL
// wire protocol well enough to act on one statement: to cut its connection before
// the server gets it, or after the server has carried it out and before the client
// hears of that.
//
//	p, err := wireproxy.Listen(wireproxy.Postgres, server.Addr())
//	db := open(p.Addr())
//	armed := p.Add(wireproxy.Rule{Match: "COMMIT PREPARED", Action: wireproxy.CutAfter})
//	... // the server commits; the client never hears of it
//	<-armed.Done()
//
// A statement is one run of a text: a simple query, or one execution of a prepared
// statement, which counts with the text it was prepared from. A text of several
// statements is one; its answer is complete when all of them are answered.
//
// TLS, compression and the newer abbreviations of MySQL's protocol are refused on
// the client's behalf while it connects, so that everything passes in the clear.
// COPY and LOAD DATA LOCAL pass, but nothing can act in the midst of one.
package wireproxy

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// A Protocol is what the server speaks.
type Protocol uint8

// The protocols.
const (
	Postgres Protocol = iota + 1 // version 3
	MySQL                        // MySQL and MariaDB, protocol version 10
)

const dialTimeout = 10 * time.Second

// A Proxy forwards TCP connections to one address. Its methods may be called at
// any time and at once; after Close they do nothing.
type Proxy struct {
	protocol Protocol
	target   string
	listener net.Listener
	wg       sync.WaitGroup
	closing  chan struct{} // closed by Close

	mu     sync.Mutex // guards what follows; taken after link.mu
	closed bool
	refuse bool
	gate   chan struct{} // not nil: bytes wait until it is closed
	links  map[*link]struct{}
	rules  []*Armed
	stats  Stats
}

// Stats counts what passed since Listen.
type Stats struct {
	Connections int // accepted, the refused ones included
	Open        int // now
	Statements  int // that clients sent
	Acted       int // of which a rule acted on
}

// Listen starts a proxy to the address, on a port of its own on the loopback
// interface. The caller closes it.
func Listen(protocol Protocol, target string) (*Proxy, error) {
	if protocol != Postgres && protocol != MySQL {
		return nil, fmt.Errorf("wireproxy: protocol %d is unknown", protocol)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("wireproxy: %w", err)
	}
	p := &Proxy{protocol: protocol, target: target, listener: l, closing: make(chan struct{}), links: make(map[*link]struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is the host and port to connect to instead of the server's.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close ends all connections, the stranded ones too, and returns when nothing of
// the proxy runs any more.
func (p *Proxy) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.wg.Wait()
		return
	}
	p.closed = true
	close(p.closing)
	p.mu.Unlock()
	_ = p.listener.Close()
	p.CutAll()
	p.wg.Wait()
}

// CutAll closes both ends of every connection that is open now, the stranded and
// the held ones too.
func (p *Proxy) CutAll() {
	for _, l := range p.open() {
		l.close(false)
	}
}

// ResetAll is CutAll, with a reset (RST) in place of an orderly end.
func (p *Proxy) ResetAll() {
	for _, l := range p.open() {
		l.close(true)
	}
}

// Refuse makes the proxy close new connections as soon as they are made, or, given
// false, serve them again. Open ones are left alone.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// Blackhole stops all traffic: connections stay open and new ones are taken, but
// no byte passes in either direction, nor the news that an end was closed. Given
// false, what was held back passes, as after an outage that TCP outlives.
func (p *Proxy) Blackhole(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case on && p.gate == nil:
		p.gate = make(chan struct{})
	case !on && p.gate != nil:
		close(p.gate)
		p.gate = nil
	}
}

// Stats returns the counts up to now.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Open = len(p.links)
	return s
}

// throughGate waits while the proxy is a black hole. It reports false if gone was
// closed meanwhile.
func (p *Proxy) throughGate(gone <-chan struct{}) bool {
	for {
		p.mu.Lock()
		gate := p.gate
		p.mu.Unlock()
		if gate == nil {
			return true
		}
		select {
		case <-gate:
		case <-gone:
			return false
		}
	}
}

func (p *Proxy) open() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.mu.Lock()
		p.stats.Connections++
		refuse := p.refuse
		p.mu.Unlock()
		if refuse {
			_ = client.Close()
			continue
		}
		l := newLink(p, client)
		if !p.keep(l) {
			l.close(false)
			return
		}
		p.wg.Go(l.connect)
	}
}

func (p *Proxy) keep(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.links[l] = struct{}{}
	}
	return !p.closed
}

func (p *Proxy) drop(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}
