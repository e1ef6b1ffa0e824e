//go:build !dtmtest

package engine

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// Many hosts that hang, with calls that may take long, do not stop a healthy one: neither
// its first call, nor the last of many at the same time.
func TestHungHostsLeaveRoom(t *testing.T) {
	t.Parallel()
	p := &participants{answer: func(c Call, _ int) (Answer, time.Duration) {
		if hostOf(c.URL) != "good" {
			return Success, time.Hour
		}
		return Success, 10 * time.Millisecond
	}}
	synctest.Test(t, func(t *testing.T) {
		e := open(t, memory.New(), p)
		given, giveUp := context.WithCancel(t.Context())
		giveUp() // what hangs is not waited for
		defer func() { _ = e.Close(given) }()
		submit := func(gid, url string) {
			r := Request{GID: gid, Pattern: store.Message, Steps: []Step{{Action: url}}}
			if r.Options.RequestTimeout = time.Hour; hostOf(url) == "good" {
				r.Options.RequestTimeout = 0
			}
			if err := e.Submit(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		for host := range 8 {
			for i := range 260 {
				submit(fmt.Sprint("hung", host, "-", i), fmt.Sprintf("http://hung%d/", host))
			}
		}
		synctest.Wait()
		for i := range 100 {
			submit(fmt.Sprint("good", i), "http://good/")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for i := range 100 {
			requireState(t, e, fmt.Sprint("good", i), store.Succeeded)
		}
	})
}
