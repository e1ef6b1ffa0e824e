package sim

import (
	"runtime"
	"sync"
	"testing"
)

// roomyStacks makes new goroutines begin with a stack of 8 KiB. A run starts a
// hundred of them, and nearly each outgrows the usual 2 KiB, which is copied then
// and thrown away at its end. The runtime begins with what goroutines used on
// average when garbage was last collected, so a crowd of sleepers that use as much
// decides it.
func roomyStacks(t *testing.T) {
	const crowd = 256
	stop := make(chan struct{})
	var asleep, gone sync.WaitGroup
	asleep.Add(crowd)
	for range crowd {
		gone.Go(func() { sleepDeep(&asleep, stop) })
	}
	asleep.Wait()
	runtime.GC()
	t.Cleanup(func() { close(stop); gone.Wait() })
}

// sleepDeep uses 5 KiB of its stack until stop.
//
//go:noinline
func sleepDeep(asleep *sync.WaitGroup, stop <-chan struct{}) {
	var room [5 << 10]byte
	touch(&room)
	asleep.Done()
	<-stop
	touch(&room)
}

//go:noinline
func touch(room *[5 << 10]byte) { room[0]++ }
