package client

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"time"
)

// crockford is Crockford's base32 in lower case: it keeps the order of what it encodes.
var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewGID makes the name of a transaction: 48 bits of the time and 80 random ones, in 26
// characters of [0-9a-z]. Names made one after the other sort so, to the millisecond,
// which stores like. No server is asked.
func NewGID() string {
	var b [17]byte // 130 bits are 26 characters; the first two are zero
	var id [16]byte
	binary.BigEndian.PutUint64(id[:], uint64(time.Now().UnixMilli())<<16)
	_, _ = rand.Read(id[6:]) // never fails, by its contract
	for i := range id {      // two bits to the right
		b[i] |= id[i] >> 2
		b[i+1] = id[i] << 6
	}
	return crockford.EncodeToString(b[:])[:26]
}
