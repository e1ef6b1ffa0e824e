//go:build !(faultpoint && linux)

package faultpoint

// Enabled reports whether the fault points are compiled in.
const Enabled = false

// Hit marks a point.
func Hit(string) {}
