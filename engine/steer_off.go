//go:build !dtmtest

package engine

import "time"

// steer is nothing in a release: see steer_dtmtest.go.
type steer struct{}

func (*steer) init() {}

// ahead is how far the clocks of ages and of delays are ahead.
func (*steer) ahead() (age, delay time.Duration) { return 0, 0 }

// loop reports whether due work is sought in the background.
func (*steer) loop() bool { return true }

// pause comes before each call.
func (*steer) pause() {}

// passed is told of the end of each pass.
func (*steer) passed(string) {}
