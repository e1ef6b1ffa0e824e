package wireproxy

import (
	"bufio"
	"io"
	"net"
	"sync"
	"time"
)

// A wire follows one connection of one protocol. The read methods frame messages
// and are called by one goroutine each; request and answer keep the accounts and are
// called under link.mu, in the order of the messages.
type wire interface {
	// readRequest reads one message of the client. What must be answered on the
	// server's behalf is written to reply.
	readRequest(r *bufio.Reader, reply io.Writer) ([]byte, error)

	// request takes note of a message of the client. If it runs a statement, its
	// text and number are returned; numbers count from 0.
	request(message []byte) (text string, number int, runs bool)

	// readAnswer reads one message of the server.
	readAnswer(r *bufio.Reader) ([]byte, error)

	// answer takes note of a message of the server, which it may change. owner is
	// the number of the statement that the message answers, or of the next one if
	// it answers none; after it, all statements below settled are answered for good.
	answer(message []byte) (owner, settled int)
}

// link is one connection through the proxy.
type link struct {
	proxy  *Proxy
	wire   wire
	client net.Conn
	gone   chan struct{} // closed by close

	mu       sync.Mutex // guards what follows, and the accounts of wire
	server   net.Conn   // nil before it is dialled
	closed   bool
	deserted bool  // the client closed its end while a rule waited
	trap     *trap // waits for the answer to one statement
}

// trap keeps the answer to one statement from the client.
type trap struct {
	armed     *Armed
	statement int
	kept      []byte
}

func newLink(p *Proxy, client net.Conn) *link {
	l := &link{proxy: p, client: client, gone: make(chan struct{})}
	switch p.protocol {
	case Postgres:
		l.wire = newPostgresWire()
	case MySQL:
		l.wire = newMySQLWire()
	}
	return l
}

// connect dials the server and forwards until the link is closed.
func (l *link) connect() {
	if !l.proxy.throughGate(l.gone) {
		return
	}
	server, err := net.DialTimeout("tcp", l.proxy.target, dialTimeout)
	if err != nil {
		l.close(false)
		return
	}
	l.mu.Lock()
	l.server = server
	closed := l.closed
	l.mu.Unlock()
	if closed {
		_ = server.Close()
		return
	}
	l.proxy.wg.Go(l.answers)
	l.requests()
}

// close ends both ends of the link, with a reset if asked for.
func (l *link) close(reset bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.gone)
	closeConn(l.client, reset)
	closeConn(l.server, reset)
	l.proxy.drop(l)
}

func closeConn(c net.Conn, reset bool) {
	if c == nil {
		return
	}
	if tcp, ok := c.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

const writeMax = 64 << 10

// requests carries the client's messages to the server.
func (l *link) requests() {
	r := bufio.NewReaderSize(l.client, 16<<10)
	var out []byte
	for {
		message, err := l.wire.readRequest(r, l.client)
		if err != nil {
			l.clientGone()
			return
		}
		l.mu.Lock()
		text, number, runs := l.wire.request(message)
		var armed *Armed
		if runs && l.trap == nil {
			armed = l.proxy.match(text)
		}
		l.mu.Unlock()
		if armed != nil {
			if len(out) > 0 && !l.toServer(out) {
				return
			}
			out = out[:0]
			if !l.act(armed, number, message) {
				return
			}
			continue
		}
		out = append(out, message...)
		if r.Buffered() == 0 || len(out) > writeMax {
			if !l.toServer(out) {
				return
			}
			out = out[:0]
		}
	}
}

func (l *link) toServer(b []byte) bool {
	if !l.proxy.throughGate(l.gone) {
		return false
	}
	if _, err := l.server.Write(b); err != nil {
		return false // answers reads the same end, and closes the link
	}
	return true
}

// act does what the rule wants with the message that runs its statement. It reports
// whether the link goes on reading from the client.
func (l *link) act(a *Armed, number int, message []byte) bool {
	switch a.rule.Action {
	case CutBefore, Reset:
		l.close(a.rule.Action == Reset)
		a.finish(false)
		return false
	case StrandBefore:
		l.strand()
		a.finish(false)
		l.awaitRelease(a)
		l.close(false)
		return false
	case HoldBefore:
		a.finish(false)
		return l.awaitRelease(a) && l.toServer(message)
	case Delay:
		defer a.finish(false)
		return l.pause(a.rule.Delay) && l.toServer(message)
	case CutAfter, HoldAfter, StrandAfter:
		l.mu.Lock()
		l.trap = &trap{armed: a, statement: number}
		l.mu.Unlock()
		// What the client sent behind it must follow, or the server would not finish.
		_ = l.toServer(message) // an error shows at the next read
		return true
	}
	return true
}

func (l *link) awaitRelease(a *Armed) bool {
	select {
	case <-a.release:
		return true
	case <-l.gone:
		return false
	}
}

func (l *link) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.gone:
		return false
	}
}

// strand closes the client's end alone.
func (l *link) strand() {
	l.mu.Lock()
	defer l.mu.Unlock()
	closeConn(l.client, false)
}

// clientGone passes the client's end on to the server, unless a rule still waits for
// the server's answer: then the server is to work in peace.
func (l *link) clientGone() {
	if !l.proxy.throughGate(l.gone) {
		return
	}
	l.mu.Lock()
	l.deserted = true
	trapped := l.trap != nil
	l.mu.Unlock()
	if !trapped {
		l.close(false)
	}
}

// answers carries the server's messages to the client.
func (l *link) answers() {
	defer l.close(false)
	r := bufio.NewReaderSize(l.server, 16<<10)
	var out []byte
	for {
		message, err := l.wire.readAnswer(r)
		if err != nil {
			l.toClient(out)
			l.serverGone()
			return
		}
		l.mu.Lock()
		owner, settled := l.wire.answer(message)
		t := l.trap
		l.mu.Unlock()
		if t != nil && owner >= t.statement {
			if !l.toClient(out) {
				return
			}
			out = out[:0]
			t.kept = append(t.kept, message...)
			if settled > t.statement && !l.spring(t) {
				return
			}
			continue
		}
		out = append(out, message...)
		if r.Buffered() == 0 || len(out) > writeMax {
			if !l.toClient(out) {
				return
			}
			out = out[:0]
		}
	}
}

// toClient reports whether the link goes on.
func (l *link) toClient(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if !l.proxy.throughGate(l.gone) {
		return false
	}
	if _, err := l.client.Write(b); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		// A server that works for a client that is gone must not be held up.
		return !l.closed && l.trap != nil
	}
	return true
}

// spring acts on a complete answer, and reports whether the link goes on.
func (l *link) spring(t *trap) bool {
	switch t.armed.rule.Action {
	case HoldAfter:
		t.armed.finish(true)
		if !l.awaitRelease(t.armed) || !l.toClient(t.kept) {
			return false
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.trap = nil
		return !l.deserted
	case StrandAfter:
		l.strand()
		t.armed.finish(true)
		l.awaitRelease(t.armed)
		return false
	case CutBefore, CutAfter, HoldBefore, Reset, StrandBefore, Delay:
	}
	l.close(false)
	t.armed.finish(true)
	return false
}

// serverGone tells a rule that waits for an answer that there will be none.
func (l *link) serverGone() {
	l.mu.Lock()
	t := l.trap
	l.trap = nil
	l.mu.Unlock()
	if t != nil {
		l.close(false)
		t.armed.finish(false)
	}
}
