package xabranch

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"github.com/troth-tx/troth"
)

// plainBranch is the longest branch id that is written as it is.
const plainBranch = 8

// nameOf is the database's name of a branch. The coordinator's names may be any text,
// and a database's may not, so this is the one place where they are put into a form
// that no statement can be broken with.
//
// Names that our own client makes, with branch ids of digits, stay readable:
// "xa.<gid>" and "@<branch>zz...". Of all others it is 128 bits of a hash of both, in
// a domain that ends with "h", so that no name can be chosen to be another's.
func nameOf(domain, gid, branch string) troth.XID {
	plain, err := troth.ParseGID(domain + "." + gid)
	if err == nil && branch != "" && len(branch) <= plainBranch && strings.Trim(branch, "0123456789") == "" {
		identity := branch + strings.Repeat("z", plainBranch-len(branch))
		return troth.XID{GID: plain, Place: troth.Place{Identity: identity}, Branch: 1}
	}
	sum := sha256.Sum256([]byte(gid + "\x00" + branch))
	// 26 characters of which the first is at most 7 hold 128 bits: the first two of 130 are zero.
	var b [17]byte
	for i, c := range sum[:16] {
		b[i] |= c >> 2
		b[i+1] = c << 6
	}
	id := crockford.EncodeToString(b[:])[:26]
	return troth.XID{
		GID: troth.GID(domain + "h." + id), Place: troth.Place{Identity: strings.Repeat("0", plainBranch)}, Branch: 1,
	}
}

var crockford = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)
