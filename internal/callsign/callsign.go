// Package callsign signs the calls that a server makes of participants, and verifies
// them there. A signature says that who knows the key made this call, for this branch
// and operation, with this body, not long ago; a [Verifier] accepts each one once.
//
// It is sent as
//
//	Troth-Signature: t=<unix seconds>,n=<nonce>,v1=<hexadecimal HMAC-SHA256>
//
// over these lines, joined by line feeds, with none after the last:
//
//	v1
//	<t>
//	<nonce>
//	<gid>
//	<branch id>
//	<operation>
//	<method: GET, POST; for gRPC the word gRPC>
//	<path?query as sent; for gRPC /package.Service/Method?trans_type=<pattern>>
//	<hexadecimal SHA-256 of the body, or of the request's bytes>
//
// The nonce is 32 hexadecimal digits. Another version would be sent beside v1: what a
// verifier does not know in the header it skips.
package callsign

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// Header is the name of the HTTP header.
	Header = "Troth-Signature"

	// Metadata is the name in the metadata of gRPC calls.
	Metadata = "troth-signature"
)

// KeySizeMin is how many bytes a key should have at least: an HMAC is as hard to guess as
// its key.
const KeySizeMin = 32

// A Call is what a signature stands for.
type Call struct {
	GID    string
	Branch string
	Op     string
	Method string // "GET", "POST"; "gRPC"
	Target string // path?query; for gRPC "/package.Service/Method?trans_type=saga"
	Body   []byte // of the request; for gRPC the marshalled message
}

// Of returns the call that an HTTP request carries, as its participant reads it: gid,
// branch_id and op are parameters of the query. body is the request's, which the
// caller has read. In a server the target is as it was received, also behind
// http.StripPrefix.
func Of(r *http.Request, body []byte) Call {
	q := r.URL.Query()
	target := r.RequestURI
	if target == "" {
		target = r.URL.RequestURI()
	}
	return Call{GID: q.Get("gid"), Branch: q.Get("branch_id"), Op: q.Get("op"), Method: r.Method, Target: target, Body: body}
}

// OfGRPC returns the call that a gRPC request carries: its metadata, the method's name
// "/package.Service/Method", and the bytes of its message. The pattern is signed as it is
// in the query of HTTP: a barrier that is told another one would let a call in twice. So
// would one that reads the second of two values where this function read the first; they
// make a call that no verifier accepts.
func OfGRPC(md map[string][]string, method string, message []byte) Call {
	only := func(key string) string { return strings.Join(md[key], "\n") }
	return Call{
		GID: only("dtm-gid"), Branch: only("dtm-branch_id"), Op: only("dtm-op"),
		Method: "gRPC", Target: method + "?trans_type=" + only("dtm-trans_type"), Body: message,
	}
}

// Sign returns the value of the header for one call made now. Each attempt to call needs
// a signature of its own: a second use of one is refused as a replay.
func Sign(key []byte, c Call, now time.Time) string {
	var random [nonceSize / 2]byte
	_, _ = rand.Read(random[:]) // never fails
	t, nonce := strconv.FormatInt(now.Unix(), 10), hex.EncodeToString(random[:])
	return "t=" + t + ",n=" + nonce + ",v1=" + hex.EncodeToString(mac(key, t, nonce, c))
}

const nonceSize = 32

func mac(key []byte, t, nonce string, c Call) []byte {
	body := sha256.Sum256(c.Body)
	text := make([]byte, 0, 256)
	for _, line := range []string{"v1", t, nonce, c.GID, c.Branch, c.Op, c.Method, c.Target} {
		text = append(append(text, line...), '\n')
	}
	text = hex.AppendEncode(text, body[:])
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(make([]byte, 0, sha256.Size))
}

// oneLine reports whether no field could be taken for two: the lines would say
// something else than was signed.
func (c Call) oneLine() bool {
	for _, s := range []string{c.GID, c.Branch, c.Op, c.Method, c.Target} {
		if strings.ContainsAny(s, "\r\n") {
			return false
		}
	}
	return true
}
