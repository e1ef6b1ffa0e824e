package client

import (
	"fmt"
	"sync"
)

// Branches of a transaction are numbered "01" to "99"; those that a branch makes of its
// own have its number before theirs: "0101". So nobody has to be asked for a number.
const (
	branchesMax = 99
	branchIDMax = 20 // characters
)

type branchIDs struct {
	parent string

	mu   sync.Mutex
	last int
}

func (b *branchIDs) next() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == branchesMax {
		return "", fmt.Errorf("more than %d branches of one parent", branchesMax)
	}
	if len(b.parent)+2 > branchIDMax {
		return "", fmt.Errorf("branches are nested deeper than %d levels", branchIDMax/2)
	}
	b.last++
	return fmt.Sprintf("%s%02d", b.parent, b.last), nil
}
