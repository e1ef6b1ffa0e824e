package sqlstore

import (
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/troth-tx/troth/store"
)

const (
	// nameMax is how long a gid, an owner or a topic's name may be, in bytes.
	nameMax = 255

	// reasonMax is how much of a reason is shown to those who read the table.
	reasonMax = 1024

	// firstMax is how much of a definition goes into one row: no statement comes near
	// what servers accept, however long the definition is.
	firstMax = 1 << 20
)

// columns are what a transaction's row has beside its place. They share no memory
// with the transaction: whoever gave it may be gone before they are written.
type columns struct {
	gid, owner       string
	pattern          store.Pattern
	created          int64
	state            store.State
	version          int64
	attempts         int
	updated          int64
	finished, due    any // int64, or nil
	leased           int64
	reason           string
	progress         []byte
	definition, more []byte // the first part, and the rest; of a change: the branches added
}

// An op is one caller's Create or Save on its way to the database.
type op struct {
	columns
	create  bool
	version int64 // that a save is based on; afterwards: what it is now
	taken   atomic.Bool
	done    chan struct{}
	err     error // valid when done is closed
}

// size is about how many bytes they take in a statement.
func (c *columns) size() int { return len(c.progress) + len(c.definition) + len(c.more) + 200 }

func newOp(t *store.Transaction) (*op, error) {
	if err := checkName("gid", t.GID); err != nil {
		return nil, err
	}
	if t.Owner != "" {
		if err := checkName("owner", t.Owner); err != nil {
			return nil, err
		}
	}
	o := &op{version: t.Version, done: make(chan struct{})}
	o.columns = columns{
		gid: t.GID, owner: t.Owner, pattern: t.Pattern, created: micros(t.Created),
		state: t.State, attempts: t.Attempts, updated: micros(t.Updated),
		reason: forPeople(t.Reason, reasonMax), progress: appendProgress(make([]byte, 0, progressSize(t)), t),
	}
	if !t.Finished.IsZero() {
		o.finished = micros(t.Finished)
	}
	if !t.Due.IsZero() {
		o.due = micros(t.Due)
	}
	if t.Leased {
		o.leased = 1
	}
	return o, nil
}

func newCreate(t *store.Transaction) (*op, error) {
	o, err := newOp(t)
	if err != nil {
		return nil, err
	}
	o.create = true
	content := appendDefinition(make([]byte, 0, definitionSize(t)), t)
	o.definition = content[:min(len(content), firstMax)]
	o.more = content[len(o.definition):]
	return o, nil
}

func newSave(t *store.Transaction, added int) (*op, error) {
	if added < 0 || added > len(t.Branches) {
		return nil, fmt.Errorf("store: branches are added from index %d on, and there are %d", added, len(t.Branches))
	}
	o, err := newOp(t)
	if err != nil {
		return nil, err
	}
	o.more = appendBranches(nil, t.Branches[added:])
	return o, nil
}

func progressSize(t *store.Transaction) int {
	n := 32 + len(t.Reason) + len(t.Result)
	for i := range t.Branches {
		n += 20 + len(t.Branches[i].Error)
	}
	return n
}

func definitionSize(t *store.Transaction) int {
	n := 64 + len(t.Protocol) + len(t.QueryPrepared) + len(t.Data)
	for i := range t.Branches {
		b := &t.Branches[i]
		n += 16 + len(b.ID) + len(b.URL) + len(b.Payload)
	}
	return n
}

// checkName refuses what not every database can keep and compare byte for byte.
func checkName(field, s string) error { return checkText(field, s, nameMax) }

// checkText refuses what is empty, longer than bytesMax or no text.
func checkText(field, s string, bytesMax int) error {
	switch {
	case s == "":
		return fmt.Errorf("store: %s is empty", field)
	case len(s) > bytesMax:
		return fmt.Errorf("store: %s has %d bytes, the limit is %d", field, len(s), bytesMax)
	case !isText(s):
		return fmt.Errorf("store: %s is not text in UTF-8", field)
	}
	return nil
}

// isText reports whether every database takes it as text.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// forPeople cuts a text at a boundary of characters and takes out what not every
// database accepts as text.
func forPeople(s string, bytesMax int) string {
	if len(s) > bytesMax {
		s = s[:bytesMax]
		for s != "" {
			if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
				break
			}
			s = s[:len(s)-1]
		}
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "�"), "\x00", "�")
}

// A row is what a batch does with one transaction.
type row struct {
	columns
	seq    int64
	insert bool
	before place // of an update: what it changes
	parts  []part
}

// place is where the row is once it is written.
func (r *row) place() place {
	at := place{seq: r.seq, version: r.version, created: r.created}
	if r.finished == nil {
		at.state, at.due = r.state, r.due
	}
	return at
}

// A part is a piece that follows a definition.
type part struct {
	seq, number int64
	content     []byte
}

// partsMax is how many parts one change may add: 64 GiB.
const partsMax = 1 << 16

// addParts cuts what follows the definition. The numbers of a later version are
// greater, and so they are in the order in which they came.
func (r *row) addParts(version int64, content []byte) {
	for k := int64(0); len(content) > 0 && k < partsMax; k++ {
		n := min(len(content), firstMax)
		r.parts = append(r.parts, part{r.seq, version*partsMax + k, content[:n]})
		content = content[n:]
	}
}
