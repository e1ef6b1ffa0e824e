package rivals

import (
	"net"
	"regexp"
	"sync"
	"testing"
	"time"
)

// A moment is when a server has answered the nth message that a pattern matches,
// counted over both databases, and its answer has not reached the program.
type moment struct {
	message *regexp.Regexp
	n       int
}

// The messages that matter, as drivers spell them. troth's own commit of the home
// participant is a COMMIT, or in MariaDB an XA COMMIT, like any other.
var (
	receiving  = regexp.MustCompile(`balance \+ 100`)
	voting     = regexp.MustCompile(`PREPARE TRANSACTION|XA PREPARE`)
	committing = regexp.MustCompile(`COMMIT\b|(?s:Q.{4}commit\x00)`)
)

// A wire is the network between a program and its two databases. It acts at one
// moment; package cutproxy, which only cuts, could not call a test then.
type wire struct {
	wg    sync.WaitGroup
	lines [2]net.Listener

	mu     sync.Mutex // guards what follows
	armed  moment
	act    func(i int) (deliver bool) // i is the database that answered
	acted  chan struct{}
	open   map[net.Conn]struct{}
	closed bool
}

// newWire connects to two servers. It is closed when the test ends.
func newWire(t *testing.T, targets [2]string) *wire {
	t.Helper()
	w := &wire{open: make(map[net.Conn]struct{})}
	for i, target := range targets {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.lines[i] = l
		w.wg.Go(func() { w.accept(i, target) })
	}
	t.Cleanup(w.close)
	return w
}

// at arms the wire: act is called once, and says whether the program gets the
// answer; if not, its connection ends. The channel is closed after act.
func (w *wire) at(m moment, act func(i int) (deliver bool)) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed, w.act, w.acted = m, act, make(chan struct{})
	return w.acted
}

// due reports whether the answer to a message is the one that was waited for.
func (w *wire) due(message []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.act == nil || !w.armed.message.Match(message) {
		return false
	}
	w.armed.n--
	return w.armed.n == 0
}

func (w *wire) close() {
	w.mu.Lock()
	w.closed = true
	for c := range w.open {
		_ = c.Close()
	}
	w.mu.Unlock()
	for _, l := range w.lines {
		_ = l.Close()
	}
	w.wg.Wait()
}

func (w *wire) accept(i int, target string) {
	for {
		program, err := w.lines[i].Accept()
		if err != nil {
			return // closed
		}
		server, err := net.DialTimeout("tcp", target, time.Minute)
		if err != nil {
			_ = program.Close()
			continue
		}
		if !w.keep(program, server) {
			return
		}
		due := make(chan struct{}, 1)
		w.wg.Go(func() { w.requests(program, server, due) })
		w.wg.Go(func() { w.answers(i, program, server, due) })
	}
}

func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		w.open[c] = struct{}{}
		if w.closed {
			_ = c.Close()
		}
	}
	return !w.closed
}

func (w *wire) drop(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(w.open, c)
	}
}

func (w *wire) requests(program, server net.Conn, due chan<- struct{}) {
	defer w.drop(program, server)
	buf := make([]byte, 32<<10)
	for {
		n, err := program.Read(buf)
		if err != nil {
			return
		}
		if w.due(buf[:n]) {
			due <- struct{}{}
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (w *wire) answers(i int, program, server net.Conn, due <-chan struct{}) {
	defer w.drop(program, server)
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-due:
			deliver := w.act(i)
			close(w.acted)
			if !deliver {
				return
			}
		default:
		}
		if _, err := program.Write(buf[:n]); err != nil {
			return
		}
	}
}
