package demo

import (
	"fmt"
	"strings"
)

// A balance is what one person holds in one database.
type balance struct {
	holder, place string
	amount        int64
}

func (b balance) title() string { return b.holder + " in " + b.place }

// balances are those of all people of an act, in a fixed order.
type balances []balance

func (b balances) sum() int64 {
	var sum int64
	for _, one := range b {
		sum += one.amount
	}
	return sum
}

// with returns the same accounts holding other amounts.
func (b balances) with(amounts ...int64) balances {
	out := make(balances, len(b))
	for i, one := range b {
		one.amount = amounts[i]
		out[i] = one
	}
	return out
}

func (b balances) String() string {
	parts := make([]string, len(b))
	for i, one := range b {
		parts[i] = fmt.Sprintf("%s has %d", one.title(), one.amount)
	}
	return fmt.Sprintf("%s, together %d", strings.Join(parts, ", "), b.sum())
}

// verify returns an error that says what was expected unless got is just that.
func verify(claim string, want, got balances) error {
	same := len(want) == len(got)
	for i := range want {
		same = same && want[i] == got[i]
	}
	if same {
		return nil
	}
	return fmt.Errorf("%s: expected that %v; found that %v", claim, want, got)
}
