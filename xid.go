package troth

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// FormatID marks the XA identifiers that troth makes: "TROT" in ASCII.
const FormatID uint32 = 0x54524F54

// Limits of names and identifiers, in bytes.
const (
	nameSizeMax  = 24  // a domain or resource name
	idSize       = 26  // the id of a transaction: 128 bits in base32
	idRandomSize = 10  // of which so many bytes are random, but for six bits
	identitySize = 8   // the random identity of a decision register
	gtridSizeMax = 64  // XA, and so MySQL and MariaDB
	bqualSizeMax = 64  // the same
	branchNoMax  = 999 // branches of one transaction are numbered from 1

	sessionSizeMax = 22 // so that the longest bqual has 60 bytes
)

// pgPrefix begins every gid that troth gives to PostgreSQL, whose prepared
// transactions have one flat name of at most 199 bytes and no format id.
const pgPrefix = "troth:"

// A GID names a global transaction: "<domain>.<id>". The id is a UUID version 7
// (RFC 9562) written as 26 characters of lower-case Crockford base32, so GIDs of
// one domain sort by the time at which the transaction began. A GID is never
// used twice. Only the alphabet [a-z0-9._-] occurs in one.
type GID string

// NewGID makes a new GID of a domain. It panics if the domain is not valid: see
// [ValidName].
func NewGID(domain string, now time.Time) GID {
	if !ValidName(domain) {
		panic("troth: NewGID: invalid domain " + strconv.Quote(domain))
	}
	var random [idRandomSize]byte
	_, _ = rand.Read(random[:]) // never fails, by its contract
	return newGID(domain, now, random)
}

func newGID(domain string, now time.Time, random [idRandomSize]byte) GID {
	return GID(domain + "." + newID(now, random))
}

// ParseGID checks that s has the form of a GID.
func ParseGID(s string) (GID, error) {
	domain, id, ok := strings.Cut(s, ".")
	if !ok || !ValidName(domain) || !validID(id) {
		return "", fmt.Errorf("troth: %s is not a transaction id: want <domain>.<26 characters of base32>", strconv.Quote(clip(s)))
	}
	return GID(s), nil
}

// Domain is the part before the dot.
func (g GID) Domain() string {
	domain, _, _ := strings.Cut(string(g), ".")
	return domain
}

// Time is when the transaction began, to the millisecond, by the clock of the
// process that began it. It is the zero time for a GID that is not valid.
func (g GID) Time() time.Time {
	_, id, ok := strings.Cut(string(g), ".")
	if !ok || !validID(id) {
		return time.Time{}
	}
	var ms int64
	for i := range 10 { // 10 characters hold 50 bits: 2 of padding, 48 of time
		ms = ms<<5 | int64(base32Value(id[i]))
	}
	return time.UnixMilli(ms)
}

// A Place says where the decision about a transaction is recorded: in the table
// of a resource that takes part (Resource and Identity set), or in a register of
// its own (Resource empty). The identity tells two databases of the same name
// apart: a process that knows another database by that name must not decide.
type Place struct {
	Resource string
	Identity string
}

// String is "<resource>~<identity>" or "@<identity>".
func (p Place) String() string {
	if p.Resource == "" {
		return "@" + p.Identity
	}
	return p.Resource + "~" + p.Identity
}

func parsePlace(s string) (Place, bool) {
	if identity, ok := strings.CutPrefix(s, "@"); ok {
		return Place{Identity: identity}, ValidIdentity(identity)
	}
	resource, identity, ok := strings.Cut(s, "~")
	return Place{Resource: resource, Identity: identity}, ok && ValidName(resource) && ValidIdentity(identity)
}

// An XID names one branch: X/Open XA's triple of format id, global transaction
// and branch qualifier. The gtrid is the GID; the bqual is "<place>.<branch
// number>", so that whoever finds a prepared branch knows where to ask for its
// decision.
//
// MariaDB lets nobody end a prepared branch while the session that prepared it
// lives, and does not tell which one that is. So the branch's name does there:
// "<place>.<branch number>.<session>".
type XID struct {
	GID     GID
	Place   Place
	Branch  int    // from 1
	Session string // empty, or 1 to 22 of [a-z0-9-]; its form is the resource manager's
}

// GTRID is XA's global transaction id, at most 64 bytes.
func (x XID) GTRID() string { return string(x.GID) }

// BQUAL is XA's branch qualifier, at most 64 bytes.
func (x XID) BQUAL() string {
	s := x.Place.String() + "." + strconv.Itoa(x.Branch)
	if x.Session != "" {
		s += "." + x.Session
	}
	return s
}

// String is the name of the branch in PostgreSQL: "troth:<gtrid>:<bqual>", at
// most 118 bytes of the alphabet [a-z0-9._~@:-]. Nothing that could end an SQL
// literal occurs in it.
func (x XID) String() string { return pgPrefix + x.GTRID() + ":" + x.BQUAL() }

// ParseXID is the inverse of [XID.String]. Identifiers of other programs are an
// error.
func ParseXID(s string) (XID, error) {
	rest, ok := strings.CutPrefix(s, pgPrefix)
	if !ok {
		return XID{}, errForeign
	}
	gtrid, bqual, ok := strings.Cut(rest, ":")
	if !ok {
		return XID{}, errForeign
	}
	return ParseXA(FormatID, gtrid, bqual)
}

var errForeign = errors.New("troth: not an identifier made by troth")

// ParseXA reads the three parts of an XA identifier. Identifiers of other
// programs are an error, also those that merely look alike: the text must be
// exactly what [XID.GTRID] and [XID.BQUAL] write.
func ParseXA(formatID uint32, gtrid, bqual string) (XID, error) {
	if formatID != FormatID || len(gtrid) > gtridSizeMax || len(bqual) > bqualSizeMax {
		return XID{}, errForeign
	}
	gid, err := ParseGID(gtrid)
	if err != nil {
		return XID{}, errForeign
	}
	at, rest, _ := strings.Cut(bqual, ".")
	number, session, _ := strings.Cut(rest, ".")
	place, ok := parsePlace(at)
	no, err := strconv.Atoi(number)
	x := XID{GID: gid, Place: place, Branch: no, Session: session}
	if !ok || err != nil || no < 1 || no > branchNoMax || !validSession(session) || x.BQUAL() != bqual {
		return XID{}, errForeign
	}
	return x, nil
}

func validSession(s string) bool {
	if len(s) > sessionSizeMax {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// ValidName reports whether s may name a domain or a resource:
// [a-z0-9][a-z0-9_-]{0,23}.
func ValidName(s string) bool {
	if s == "" || len(s) > nameSizeMax || s[0] == '_' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// crockford is Crockford's base32 alphabet: no i, l, o, u.
const crockford = "0123456789abcdefghjkmnpqrstvwxyz"

func base32Value(c byte) int { return strings.IndexByte(crockford, c) }

func validID(s string) bool {
	// 26 characters hold 130 bits, so the first holds three.
	return len(s) == idSize && s[0] <= '7' && validBase32(s)
}

func validBase32(s string) bool {
	for i := range len(s) {
		if base32Value(s[i]) < 0 {
			return false
		}
	}
	return true
}

// ValidIdentity reports whether s may identify a register: 8 characters of
// Crockford base32.
func ValidIdentity(s string) bool { return len(s) == identitySize && validBase32(s) }

// NewIdentity makes the identity of a new register: 40 random bits.
func NewIdentity() string {
	var b [identitySize]byte
	_, _ = rand.Read(b[:]) // never fails, by its contract
	for i := range b {
		b[i] = crockford[b[i]&31]
	}
	return string(b[:])
}

// newID makes a UUID version 7: 48 bits of milliseconds, the version, and 74
// random bits.
func newID(now time.Time, random [idRandomSize]byte) string {
	var b [16]byte
	copy(b[6:], random[:])
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint16(b[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(ms))
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80

	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	var out [idSize]byte
	for i := idSize - 1; i >= 0; i-- {
		out[i] = crockford[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(out[:])
}

// clip shortens what came from outside before it goes into an error.
func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
