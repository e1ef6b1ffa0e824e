package wireproxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// postgresWire follows one connection of PostgreSQL's protocol, version 3.
//
// Answers carry no number, but come in the order of the requests, and a
// ReadyForQuery ends each batch: a simple query, a function call, or all up to a
// Sync. Within a batch of the extended protocol each Execute is answered by one
// CommandComplete, EmptyQueryResponse or PortalSuspended, until an ErrorResponse
// makes the server skip to the Sync.
//
// A statement is settled at the end of its batch: only the Sync commits it. Where
// the client asks for the answer with a Flush, its own answer settles it.
type postgresWire struct {
	connected bool // the startup message is through; readRequest's alone

	texts    map[string]string // of prepared statements, by name
	portals  map[string]string // texts of bound portals, by name
	begun    int               // statements that the client ran
	flushed  int               // of which a Flush asks for the answer
	batches  []pgBatch         // not yet answered to their end
	answered int               // statements whose own answer has passed
	settled  int
}

// pgBatch is what one ReadyForQuery will end.
type pgBatch struct {
	until  int  // all statements below are answered then
	simple bool // it may have any number of CommandCompletes
}

func newPostgresWire() *postgresWire {
	return &postgresWire{
		texts: make(map[string]string), portals: make(map[string]string),
		batches: []pgBatch{{simple: true}}, // the startup ends with a ReadyForQuery too
	}
}

const (
	pgSSLRequest    = 80877103
	pgGSSEncRequest = 80877104
	pgStartupMax    = 10_000 // what the server allows
	pgMessageMax    = 1 << 30
)

func (w *postgresWire) readRequest(r *bufio.Reader, reply io.Writer) ([]byte, error) {
	for !w.connected {
		m, err := readPostgres(r, 0, pgStartupMax)
		if err != nil {
			return nil, err
		}
		if len(m) < 8 {
			return nil, fmt.Errorf("wireproxy: a startup message of %d bytes", len(m))
		}
		switch binary.BigEndian.Uint32(m[4:]) {
		case pgSSLRequest, pgGSSEncRequest:
			if _, err := reply.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		default: // startup, or a request to cancel on a connection of its own
			w.connected = true
			return m, nil
		}
	}
	return readPostgres(r, 1, pgMessageMax)
}

func (w *postgresWire) readAnswer(r *bufio.Reader) ([]byte, error) {
	return readPostgres(r, 1, pgMessageMax)
}

// readPostgres reads one message whose length field follows head bytes.
func readPostgres(r *bufio.Reader, head, limit int) ([]byte, error) {
	start, err := r.Peek(head + 4)
	if err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(start[head:]))
	if n < 4 || n > limit {
		return nil, fmt.Errorf("wireproxy: a PostgreSQL message of %d bytes", n)
	}
	m := make([]byte, head+n)
	_, err = io.ReadFull(r, m)
	return m, err
}

func (w *postgresWire) request(m []byte) (text string, number int, runs bool) {
	if m[0] == 0 { // the startup message has no type, but a length below 2^24
		return "", 0, false
	}
	body := m[5:]
	switch m[0] {
	case 'Q':
		text, _ = cString(body)
		number = w.run()
		w.batches = append(w.batches, pgBatch{until: w.begun, simple: true})
		return text, number, true
	case 'P':
		name, rest := cString(body)
		w.texts[name], _ = cString(rest)
	case 'B':
		portal, rest := cString(body)
		name, _ := cString(rest)
		w.portals[portal] = w.texts[name]
	case 'E':
		portal, _ := cString(body)
		return w.portals[portal], w.run(), true
	case 'H':
		w.flushed = w.begun
	case 'S':
		w.batches = append(w.batches, pgBatch{until: w.begun})
	case 'F':
		w.batches = append(w.batches, pgBatch{until: w.begun, simple: true})
	}
	return "", 0, false
}

func (w *postgresWire) run() (number int) {
	w.begun++
	return w.begun - 1
}

func (w *postgresWire) answer(m []byte) (owner, settled int) {
	owner = w.answered
	simple := len(w.batches) > 0 && w.batches[0].simple
	switch m[0] {
	case 'C', 'I', 's':
		if !simple {
			w.answered = min(w.answered+1, w.begun)
			if w.answered <= w.flushed {
				w.settled = max(w.settled, w.answered)
			}
		}
	case 'E':
		if !simple && w.flushed > w.answered {
			w.answered, w.settled = w.flushed, max(w.settled, w.flushed)
		}
	case 'Z':
		if len(w.batches) > 0 {
			w.answered, w.settled = w.batches[0].until, w.batches[0].until
			w.batches = w.batches[1:]
		}
	}
	return owner, w.settled
}

// cString splits off a string that a zero byte ends.
func cString(b []byte) (s string, rest []byte) {
	before, after, _ := bytes.Cut(b, []byte{0})
	return string(before), after
}
