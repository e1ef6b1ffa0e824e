package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// Why a request has no caller. Each is answered with 401 or Unauthenticated.
var (
	ErrNone    = errors.New("no credentials: send the header Authorization: Bearer TOKEN, or show a client certificate")
	ErrWrong   = errors.New("wrong credentials")
	ErrExpired = errors.New("the token has expired")
)

// Tokens know the principals. They are safe for concurrent use.
type Tokens struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	mu      sync.Mutex
	table   *table
	changed time.Time // of the file that the table was read from
	looked  time.Time
}

// lookEvery is how often the file is looked at: a token that was taken out of it is
// refused after that time.
const lookEvery = time.Second

// Open reads a file of tokens, and again when it has changed. It fails if others than
// the owner may read the file. A file that has become wrong is logged, and what it
// said before holds. An empty path is a file without lines: only certificates count.
func Open(path string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{path: path, log: log, now: time.Now, table: new(table)}
	if path == "" {
		return t, nil
	}
	text, changed, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if t.table, err = parse(path, text); err != nil {
		return nil, err
	}
	t.changed, t.looked = changed, t.now()
	return t, nil
}

// Len is how many tokens and certificates the file has.
func (t *Tokens) Len() int {
	now := t.current()
	return len(now.tokens) + len(now.certificates)
}

// current is the table of the file as it is now.
func (t *Tokens) current() *table {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if t.path == "" || now.Sub(t.looked) < lookEvery {
		return t.table
	}
	t.looked = now
	info, err := os.Stat(t.path)
	if err == nil && info.ModTime().Equal(t.changed) {
		return t.table
	}
	text, changed, err := readFile(t.path)
	if err == nil {
		var read *table
		if read, err = parse(t.path, text); err == nil {
			t.table, t.changed = read, changed
			t.log.Info("tokens read again", "principals", len(read.tokens)+len(read.certificates))
			return read
		}
		t.changed = changed // tell it once
	}
	t.log.Error("tokens not read: those that were read before still hold", "err", err)
	return t.table
}

// Authenticate finds out who shows the value of an Authorization header, or a
// certificate that was verified. A wrong token is not excused by a good certificate.
// The caller's From is for the one who asks to set.
func (t *Tokens) Authenticate(header string, state *tls.ConnectionState) (Caller, error) {
	if header != "" {
		return t.byToken(header)
	}
	if state != nil && len(state.VerifiedChains) > 0 && len(state.PeerCertificates) > 0 {
		return t.byCertificate(state.PeerCertificates[0])
	}
	return Caller{}, ErrNone
}

func (t *Tokens) byToken(header string) (Caller, error) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || len(token) < tokenSizeMin || len(token) > tokenSizeMax {
		return Caller{}, ErrWrong
	}
	shown := hashOf(token)
	var found *entry
	now := t.current()
	for i := range now.tokens { // all of them, always: the time tells nothing
		if e := &now.tokens[i]; e.hash.is(&shown) {
			found = e
		}
	}
	switch {
	case found == nil:
		return Caller{}, ErrWrong
	case !found.expires.IsZero() && !t.now().Before(found.expires):
		return Caller{}, ErrExpired
	}
	return Caller{Name: found.name, Role: found.role}, nil
}

// byCertificate names the principal by the certificate: its common name, or else the
// first of its DNS names or URIs. TLS has verified it.
func (t *Tokens) byCertificate(c *x509.Certificate) (Caller, error) {
	name := c.Subject.CommonName
	switch {
	case name != "":
	case len(c.DNSNames) > 0:
		name = c.DNSNames[0]
	case len(c.URIs) > 0:
		name = c.URIs[0].String()
	}
	if !ValidName(name) {
		return Caller{}, ErrWrong
	}
	role, ok := t.current().certificates[name]
	if !ok {
		role = Client
	}
	return Caller{Name: name, Role: role}, nil
}
