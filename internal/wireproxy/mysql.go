package wireproxy

import (
	"bufio"
	"encoding/binary"
	"io"
)

// mysqlWire follows one connection of the protocol of MySQL and MariaDB.
//
// A packet is three bytes of length, a sequence number and a payload. The client's
// packet with number 0 is a command; the server answers commands in order, each as
// its kind demands. Until the client's first command everything is the handshake.
type mysqlWire struct {
	greeted  bool // the server's greeting has passed; answer's alone
	commands []*myCommand
	texts    map[uint32]string // of prepared statements, by id
	begun    int
	settled  int
	partial  bool // the last answer was a maximal packet: the next continues it
}

// myCommand is a command that waits for the rest of its answer.
type myCommand struct {
	code      byte
	text      string
	statement bool // it runs one
	stage     myStage
	left      int // packets of this stage
}

// myStage is how far the answer to a command has come.
type myStage uint8

const (
	myFirst   myStage = iota // OK, ERR, or the number of columns
	myColumns                // definitions of columns, then an EOF
	myRows                   // rows, then an EOF
	mySkip                   // definitions that end the answer to a prepare
)

// Commands and flags of the protocol.
const (
	comQuit             = 0x01
	comQuery            = 0x03
	comStmtPrepare      = 0x16
	comStmtExecute      = 0x17
	comStmtSendLongData = 0x18
	comStmtClose        = 0x19

	moreResultsExist = 0x0008

	packetOK  = 0x00
	packetEOF = 0xfe
	packetERR = 0xff
	localFile = 0xfb

	packetHeader = 4
	packetMax    = 1<<24 - 1
	eofMax       = 9 // an EOF's payload is shorter; a row that begins like one is not
)

func newMySQLWire() *mysqlWire { return &mysqlWire{texts: make(map[uint32]string)} }

func (w *mysqlWire) readRequest(r *bufio.Reader, _ io.Writer) ([]byte, error) { return readPacket(r) }

func (w *mysqlWire) readAnswer(r *bufio.Reader) ([]byte, error) { return readPacket(r) }

func readPacket(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(packetHeader)
	if err != nil {
		return nil, err
	}
	m := make([]byte, packetHeader+payloadSize(head))
	_, err = io.ReadFull(r, m)
	return m, err
}

func payloadSize(head []byte) int { return int(head[0]) | int(head[1])<<8 | int(head[2])<<16 }

func (w *mysqlWire) request(m []byte) (text string, number int, runs bool) {
	payload := m[packetHeader:]
	if m[3] != 0 || len(payload) == 0 { // the handshake, a file, or more of a long command
		return "", 0, false
	}
	c := &myCommand{code: payload[0]}
	switch c.code {
	case comQuit, comStmtClose, comStmtSendLongData:
		return "", 0, false // never answered
	case comQuery:
		c.text, c.statement = string(payload[1:]), true
	case comStmtPrepare:
		c.text = string(payload[1:])
	case comStmtExecute:
		if len(payload) >= 5 {
			c.text = w.texts[binary.LittleEndian.Uint32(payload[1:])]
		}
		c.statement = true
	}
	w.commands = append(w.commands, c)
	if !c.statement {
		return "", 0, false
	}
	w.begun++
	return c.text, w.begun - 1, true
}

func (w *mysqlWire) answer(m []byte) (owner, settled int) {
	payload := m[packetHeader:]
	if !w.greeted {
		w.greeted = true
		plainGreeting(payload)
	}
	if len(w.commands) == 0 {
		return w.settled - 1, w.settled // the handshake, or an end that nobody asked for
	}
	continues := w.partial
	w.partial = len(payload) == packetMax
	c := w.commands[0]
	owner = w.settled
	if !c.statement {
		owner-- // not an answer to the statement that may follow
	}
	if continues || len(payload) == 0 || !w.advance(c, payload) {
		return owner, w.settled
	}
	w.commands = w.commands[1:]
	if c.statement {
		w.settled++
	}
	return owner, w.settled
}

// advance takes in one packet of the answer to a command, and reports whether it
// was the last.
func (w *mysqlWire) advance(c *myCommand, payload []byte) (last bool) {
	isEOF := payload[0] == packetEOF && len(payload) < eofMax
	switch c.stage {
	case myFirst:
		return w.first(c, payload)
	case myColumns:
		if c.left--; c.left == 0 {
			c.stage = myRows
		}
	case myRows:
		if payload[0] == packetERR {
			return true
		}
		if isEOF {
			c.stage = myFirst
			return len(payload) < 5 || payload[3]&moreResultsExist == 0
		}
	case mySkip:
		c.left--
		return c.left == 0
	}
	return false
}

// first takes in the packet that begins an answer, or one of several results.
func (w *mysqlWire) first(c *myCommand, payload []byte) (last bool) {
	switch {
	case payload[0] == packetERR:
		return true
	case c.code == comStmtPrepare:
		return w.prepared(c, payload)
	case !c.statement:
		return true // ping, change of database and the like: one packet
	case payload[0] == packetOK:
		return !moreFollow(payload)
	case payload[0] == localFile:
		return false // the client sends it, and gets an OK
	}
	columns, _ := lengthEncoded(payload)
	c.stage, c.left = myColumns, int(columns)+1
	return false
}

func (w *mysqlWire) prepared(c *myCommand, payload []byte) (last bool) {
	if len(payload) < 9 {
		return true
	}
	w.texts[binary.LittleEndian.Uint32(payload[1:])] = c.text
	for _, n := range []uint16{binary.LittleEndian.Uint16(payload[5:]), binary.LittleEndian.Uint16(payload[7:])} {
		if n > 0 {
			c.left += int(n) + 1
		}
	}
	c.stage = mySkip
	return c.left == 0
}

// moreFollow reads the status flags of an OK: after two numbers.
func moreFollow(ok []byte) bool {
	at := 1
	for range 2 {
		if at >= len(ok) {
			return false
		}
		_, n := lengthEncoded(ok[at:])
		at += n
	}
	return at < len(ok) && ok[at]&moreResultsExist != 0
}

// lengthEncoded reads an integer in the protocol's variable form, and its size.
func lengthEncoded(b []byte) (value uint64, size int) {
	switch size = map[byte]int{0xfc: 3, 0xfd: 4, 0xfe: 9}[b[0]]; {
	case size == 0:
		return uint64(b[0]), 1
	case size > len(b):
		return 0, len(b)
	}
	for i := size - 1; i > 0; i-- {
		value = value<<8 | uint64(b[i])
	}
	return value, size
}

// Capabilities that the proxy hides from the client, by half of the 32 bits.
const (
	hiddenLow  = 1<<5 | 1<<11                                                                // compression, TLS
	hiddenHigh = 1<<(24-16) | 1<<(25-16) | 1<<(26-16) | 1<<(27-16) | 1<<(28-16) | 1<<(29-16) // no EOFs, optional column definitions, zstd, query attributes, two-step login, progress reports
)

// plainGreeting removes from the server's greeting the capabilities under which the
// protocol would look different.
func plainGreeting(p []byte) {
	version := 1
	for version < len(p) && p[version] != 0 {
		version++
	}
	low := version + 1 + 4 + 8 + 1 // version, connection id, half the salt, zero
	if p[0] != 10 || len(p) < low+18 {
		return // an error, or nothing that we know
	}
	mask := func(at int, hidden uint16) {
		binary.LittleEndian.PutUint16(p[at:], binary.LittleEndian.Uint16(p[at:])&^hidden)
	}
	mask(low, hiddenLow)
	mask(low+5, hiddenHigh) // after character set and status
	// Two lengths further: the salt's, six reserved bytes, and MariaDB's own.
	clear(p[low+14 : low+18])
}
