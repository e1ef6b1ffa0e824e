package callsign

import (
	"crypto/hmac"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What Verify finds wrong. None of them says that the call should not be repeated:
// answer 401, or Unauthenticated, and the server tries again with a new signature.
var (
	ErrMissing   = errors.New("callsign: no signature")
	ErrMalformed = errors.New("callsign: malformed signature")
	ErrExpired   = errors.New("callsign: signed too long ago, or in the future: compare the clocks")
	ErrSignature = errors.New("callsign: signature does not fit the call")
	ErrReplayed  = errors.New("callsign: signature was used before")
	ErrFull      = errors.New("callsign: too many calls to remember: raise NoncesMax")
)

// Config is how a verifier works. Zero fields have defaults.
type Config struct {
	// Keys are accepted, each of them: two while a key is changed. At least one is
	// required.
	Keys [][]byte

	// Window is how far the clocks of both sides may be apart, travel included. Defaults
	// to one minute.
	Window time.Duration

	// NoncesMax is how many nonces are remembered, for two to four windows each, at some
	// 50 bytes. When there are more, calls are refused with ErrFull: forgetting one would let
	// it be used again. Defaults to 1,000,000, enough for 4,000 calls a second.
	NoncesMax int

	// Now is a clock. Defaults to time.Now.
	Now func() time.Time
}

// A Verifier accepts each signed call once. It is safe for concurrent use.
//
// Its memory is its own: where a participant runs in several processes, each accepts a
// call once. The barrier makes what is left of that harmless.
type Verifier struct {
	cfg Config

	mu sync.Mutex
	// A nonce is remembered for as long as its time could be accepted, two windows.
	// Generations begin two windows apart, and the last two are kept.
	current, previous map[nonce]struct{}
	since             time.Time // of current
}

type nonce [nonceSize / 2]byte

// NewVerifier returns a verifier, or an error that says which field of the configuration
// is wrong.
func NewVerifier(cfg Config) (*Verifier, error) {
	if len(cfg.Keys) == 0 {
		return nil, errors.New("callsign: Keys is empty: give the key that the server signs with")
	}
	for _, key := range cfg.Keys {
		if len(key) < KeySizeMin {
			return nil, errors.New("callsign: Keys: a key is shorter than " + strconv.Itoa(KeySizeMin) + " bytes")
		}
	}
	if cfg.Window <= 0 {
		cfg.Window = time.Minute
	}
	if cfg.NoncesMax <= 0 {
		cfg.NoncesMax = 1_000_000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Verifier{cfg: cfg, current: make(map[nonce]struct{}), since: cfg.Now()}, nil
}

// Verify accepts a call with the header's value, or says why not, in one of this
// package's errors.
func (v *Verifier) Verify(header string, c Call) error {
	if header == "" {
		return ErrMissing
	}
	s, err := parse(header)
	if err != nil {
		return err
	}
	if !c.oneLine() {
		return ErrMalformed
	}
	if !v.signed(s, c) {
		return ErrSignature
	}
	// Only who knows the key gets here: nobody else can fill the memory.
	now := v.cfg.Now()
	if d := now.Sub(time.Unix(s.at, 0)); d > v.cfg.Window || d < -v.cfg.Window {
		return ErrExpired
	}
	return v.remember(s.nonce, now)
}

func (v *Verifier) signed(s signature, c Call) bool {
	for _, key := range v.cfg.Keys {
		if hmac.Equal(mac(key, s.t, s.n, c), s.mac) {
			return true
		}
	}
	return false
}

func (v *Verifier) remember(n nonce, now time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch age := now.Sub(v.since); {
	case age > 4*v.cfg.Window:
		v.previous, v.current, v.since = nil, make(map[nonce]struct{}), now
	case age > 2*v.cfg.Window:
		v.previous, v.current, v.since = v.current, make(map[nonce]struct{}), now
	}
	_, before := v.current[n]
	if !before {
		_, before = v.previous[n]
	}
	if before {
		return ErrReplayed
	}
	if len(v.current)+len(v.previous) >= v.cfg.NoncesMax {
		return ErrFull
	}
	v.current[n] = struct{}{}
	return nil
}

type signature struct {
	t, n  string // as sent
	at    int64
	nonce nonce
	mac   []byte
}

const headerSizeMax = 512 // bytes

func parse(header string) (s signature, err error) {
	if len(header) > headerSizeMax {
		return s, ErrMalformed
	}
	for part := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			s.t = value
		case "n":
			s.n = value
		case "v1":
			if s.mac, err = hex.DecodeString(value); err != nil {
				return s, ErrMalformed
			}
		}
	}
	if s.at, err = strconv.ParseInt(s.t, 10, 64); err != nil {
		return s, ErrMalformed
	}
	if len(s.n) != nonceSize || s.n != strings.ToLower(s.n) || len(s.mac) == 0 {
		return s, ErrMalformed
	}
	if _, err := hex.Decode(s.nonce[:], []byte(s.n)); err != nil {
		return s, ErrMalformed
	}
	return s, nil
}
