//go:build !mistake

package mistake

// Enabled reports whether the mistakes are compiled in.
const Enabled = false

// On reports whether a mistake is to be made.
func On(string) bool { return false }
