//go:build mistake

package mistake

import (
	"os"
	"slices"
	"sync"
)

// Enabled reports whether the mistakes are compiled in.
const Enabled = true

var made = sync.OnceValue(func() string {
	name := os.Getenv("TROTH_MISTAKE")
	if name != "" && !slices.ContainsFunc(All(), func(m Mistake) bool { return m.Name == name }) {
		panic("TROTH_MISTAKE: no mistake is called " + name)
	}
	return name
})

// On reports whether a mistake is to be made.
func On(name string) bool { return made() == name }
