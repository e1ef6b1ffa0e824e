package dtmapi

import (
	"crypto/rand"
	"encoding/binary"
)

// gidAlphabet has no characters that people confuse.
const gidAlphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// newGID returns 128 random bits as 22 letters and digits: the form that dtm's clients
// know.
func newGID() string {
	var bits [16]byte
	_, _ = rand.Read(bits[:]) // never fails: see its documentation
	var gid [22]byte
	for half := range 2 {
		n := binary.LittleEndian.Uint64(bits[8*half:])
		for i := range 11 { // 57^11 > 2^64
			gid[11*half+i] = gidAlphabet[n%uint64(len(gidAlphabet))]
			n /= uint64(len(gidAlphabet))
		}
	}
	return string(gid[:])
}
