package auth

import (
	"crypto/sha256"
	"crypto/subtle"
)

// A tokenHash is the SHA-256 of a token. There is one way to compare two, whose time tells
// nothing: == does not compile. Tokens of all lengths have hashes of one.
type tokenHash struct {
	_   [0]func() // cannot be compared
	sum [sha256.Size]byte
}

func hashOf(token string) tokenHash { return tokenHash{sum: sha256.Sum256([]byte(token))} }

func (h *tokenHash) is(other *tokenHash) bool {
	return subtle.ConstantTimeCompare(h.sum[:], other.sum[:]) == 1
}
