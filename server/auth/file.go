package auth

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The limits of a file of tokens.
const (
	fileSizeMax  = 4 << 20 // bytes
	nameSizeMax  = 64      // bytes of a principal's name
	tokenSizeMin = 16      // bytes: shorter ones can be guessed
	tokenSizeMax = 512
)

// An entry is one line of the file.
type entry struct {
	name    string
	role    Role
	hash    tokenHash
	expires time.Time // zero: never
}

// A table is what the file says.
type table struct {
	tokens       []entry
	certificates map[string]Role
}

// parse reads a file of tokens: a principal on each line, and what it shows.
//
//	# principal  role      what it shows        until
//	billing      client    sha256:9f86d081...   2027-01-31T00:00:00Z
//	ops          operator  sha256:60303ae2...
//	ops.bank     admin     certificate
//
// The hash is that of the token: who reads the file cannot log in with it. A principal
// may have several tokens, so that one can be replaced without a gap. A certificate
// whose name has no line is a client's.
func parse(name string, text []byte) (*table, error) {
	t := &table{certificates: make(map[string]Role)}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := t.add(fields); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", name, n, err)
		}
	}
	return t, lines.Err()
}

var errLine = errors.New("want: principal role sha256:HASH [until], or: principal role certificate (see: troth server token --help)")

func (t *table) add(fields []string) error {
	if len(fields) < 3 || len(fields) > 4 {
		return errLine
	}
	e := entry{name: fields[0]}
	if !ValidName(e.name) {
		return fmt.Errorf("the principal's name is not 1 to %d bytes that can be printed", nameSizeMax)
	}
	var ok bool
	if e.role, ok = ParseRole(fields[1]); !ok {
		return errors.New("the role is none of client, operator, admin")
	}
	if fields[2] == "certificate" && len(fields) == 3 {
		if _, twice := t.certificates[e.name]; twice {
			return errors.New("this certificate has a line already")
		}
		t.certificates[e.name] = e.role
		return nil
	}
	text, ok := strings.CutPrefix(fields[2], "sha256:")
	if n, err := hex.Decode(e.hash.sum[:], []byte(text[:min(len(text), 2*sha256.Size)])); !ok || err != nil || n != sha256.Size || len(text) != 2*sha256.Size {
		return errLine // what was written may be the token itself: it is not repeated
	}
	if len(fields) == 4 {
		var err error
		if e.expires, err = time.Parse(time.RFC3339, fields[3]); err != nil {
			return errors.New("until when: write a time such as 2027-01-31T00:00:00Z")
		}
	}
	t.tokens = append(t.tokens, e)
	return nil
}

// ValidName reports whether a principal may have a name: 1 to 64 bytes without spaces,
// and not a comment.
func ValidName(name string) bool {
	return len(name) > 0 && len(name) <= nameSizeMax && name[0] != '#' && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
}

// Line is the line of the file for a token.
func Line(principal string, r Role, token string, expires time.Time) string {
	line := fmt.Sprintf("%s %s sha256:%x", principal, r, hashOf(token).sum)
	if !expires.IsZero() {
		line += " " + expires.UTC().Format(time.RFC3339)
	}
	return line
}

// readFile reads a file that is its owner's alone. It asks the open file, not the
// path, which may be another file by now.
func readFile(path string) (text []byte, changed time.Time, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, changed, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, changed, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, changed, fmt.Errorf("%s: others may read or change it (mode %04o): run chmod 600 %s", path, mode, path)
	}
	text, err = io.ReadAll(io.LimitReader(f, fileSizeMax+1))
	if err == nil && len(text) > fileSizeMax {
		err = fmt.Errorf("%s: longer than 4 MiB: this cannot be a file of tokens", path)
	}
	return text, info.ModTime(), err
}
