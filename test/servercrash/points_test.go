//go:build linux

package servercrash

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/faultpoint"
)

// endsWithin bounds I7 at a point: a transaction that lost its program is aborted or asked
// about after 1 s or 4 s, a lease runs out after 1 s, and pauses are 2 s at most. On a busy
// machine even a participant without faults may need more than the second that it is given.
const endsWithin = 4 * time.Minute

// TestEveryPoint comes to every point of the server twice on every store: once it is killed
// there and started again; once it is frozen there, and, where the store can be shared,
// another server takes over before it wakes. All kinds of transactions are under way.
func TestEveryPoint(t *testing.T) {
	t.Parallel()
	path := program(t)
	for _, store := range storeKinds(t) {
		for _, action := range []string{"kill", "freeze"} {
			t.Run(store+"/"+action, func(t *testing.T) {
				t.Parallel()
				c := &cycles{t: t, path: path, store: newStore(t, store), action: action, shared: store != "embedded"}
				c.world = newWorld(t, store+"-"+action, &mischief{}, 0)
				c.every()
			})
		}
	}
}

// newStore returns the address of a store of its own for a test.
func newStore(t *testing.T, kind string) string {
	t.Helper()
	switch kind {
	case "postgres":
		return dbtest.SharedPostgres(t, 0).NewDatabase(t)
	case "mysql":
		return mysqlURL(t, dbtest.SharedMariaDB(t, 0).NewDatabase(t))
	}
	return filepath.Join(t.TempDir(), "store")
}

// cycles stop the servers of one store in one way, at one point after the other.
type cycles struct {
	*world
	t      *testing.T
	path   string
	store  string
	action string
	shared bool // another server can have the store open
	n      int  // cycles so far
}

func (c *cycles) every() {
	for _, point := range faultpoint.ServerPoints() {
		if *pointFlag != "" && *pointFlag != point.Name {
			continue
		}
		if !*eachFlag {
			c.cycle(point.Name, c.hit(point.Name, 5), c.oneXA())
			continue
		}
		for _, k := range kinds {
			calls := strings.HasPrefix(point.Name, "server.call") || point.Name == "server.passed"
			if k.calls || !calls { // else it does not come there
				c.cycle(point.Name, c.hit(point.Name, 2), []kind{k, k})
			}
		}
	}
	c.transport.CloseIdleConnections()
}

// oneXA returns all kinds but those of XA, of which it takes one each time: each costs as
// much as three others.
func (c *cycles) oneXA() []kind {
	xa := slices.IndexFunc(kinds, func(k kind) bool { return k.pattern == client.PatternXA })
	return append(slices.Clone(kinds[:xa]), kinds[xa+c.n%(len(kinds)-xa)])
}

// hit says at which hit of a point something happens: each time another, after the start
// of the server, and before the transactions are over.
func (c *cycles) hit(point string, most int) int {
	n := 1 + drawFor(uint64(c.n), c.name+point).IntN(most)
	switch {
	case strings.HasPrefix(point, "server.claim"):
		return 3 + 2*n // one is made every 200 ms
	case strings.HasPrefix(point, "store.commit"):
		return 4 + n // three are made before the server listens, or soon after
	}
	return n
}

// cycle stops a server at a hit of a point while transactions are under way.
func (c *cycles) cycle(point string, hit int, all []kind) {
	c.n++
	first, err := c.startFirst(point, hit)
	if err != nil {
		c.t.Errorf("%s:%d:%s: %v", point, hit, c.action, err)
		return
	}
	fault := first.fault
	c.add(first)
	before := len(c.made())
	for i, k := range all {
		name := fmt.Sprintf("%s-%d-%d-%s", c.name, c.n, i, k.name)
		c.begin(k, name, drawFor(uint64(c.n), name))
	}
	began := time.Now()
	second := c.atPoint(first, fault)
	if second == nil {
		first.kill()
		c.remove(first)
		return
	}
	reached := time.Since(began)
	took := c.awaitOver(endsWithin)
	c.finish(first, second)
	sum, err := c.check(c.t.Context())
	if err != nil {
		c.t.Error(err)
	}
	c.requireNotAllVain(fault, before)
	c.t.Logf("%s: reached after %.1f s, over %.1f s later, %.1f s in all; so far %d succeeded, %d failed, %d never begun",
		fault, reached.Seconds(), took.Seconds(), time.Since(began).Seconds(), sum.succeeded, sum.failed, sum.never)
	c.report(c.t, "go test ./test/servercrash -run TestEveryPoint -servercrash.store="+strings.Split(c.name, "-")[0]+" -servercrash.point="+point, first, second)
}

// startFirst starts a server that will stop at a point. A busy machine may come to an
// early hit before it listens: then a later one is tried.
func (c *cycles) startFirst(point string, hit int) (*process, error) {
	for tries := 1; ; tries++ {
		p, err := start(c.path, c.store, fmt.Sprintf("%s:%d:%s", point, hit, c.action))
		if err != nil {
			return nil, err
		}
		if err = p.awaitReady(); err == nil {
			return p, nil
		}
		p.kill()
		if !errors.Is(err, errAtPoint) || tries == 5 {
			return nil, err
		}
		hit += 5
	}
}

// atPoint waits until the server is at its point, and sees to it that one works
// afterwards, which it returns; nil if the point was not reached.
func (c *cycles) atPoint(first *process, fault string) *process {
	select {
	case <-first.exited:
		if c.action == "kill" && first.killedItself() {
			break
		}
		c.t.Errorf("%s: the server ended by itself: %v\n%s", fault, first.cmd.ProcessState, first.said())
		return nil
	case <-first.told:
	case <-time.After(patience):
		c.t.Errorf("%s: the point was not reached\n%s", fault, first.said())
		return nil
	}
	c.remove(first)
	if !c.shared && c.action == "freeze" {
		time.Sleep(700 * time.Millisecond) // what waits for it is on its way elsewhere, or gone
		c.add(first)
		first.wake()
		return first
	}
	second, err := start(c.path, c.store, "")
	if err == nil {
		err = second.awaitReady()
	}
	if err != nil {
		c.t.Errorf("%s: the next server: %v", fault, err)
		return nil
	}
	c.add(second)
	if c.action == "freeze" && c.n%2 == 0 {
		time.Sleep(1200 * time.Millisecond) // its lease is over, and the other is at it
		c.add(first)
		first.wake()
	}
	return second
}

// finish wakes what is frozen, lets it do what it was about to do, and stops both.
func (c *cycles) finish(first, second *process) {
	if first != second && !first.gone() {
		c.remove(first)
		c.add(first)
		first.wake()
		c.awaitOver(endsWithin)
		c.stopOne(first)
		c.awaitOver(endsWithin) // the same is true without it
	}
	c.stopOne(second)
}

func (c *cycles) stopOne(p *process) {
	c.remove(p)
	c.transport.CloseIdleConnections() // a server waits for those that never had a request, up to 5 s
	if err := p.stop(); err != nil {
		c.t.Error(err)
	}
}

// requireNotAllVain fails if no transaction of the cycle came to be: checks of nothing
// prove nothing.
func (c *cycles) requireNotAllVain(fault string, before int) {
	for _, p := range c.made()[before:] {
		if c.seen(p) != "" {
			return
		}
	}
	c.t.Errorf("%s: no transaction came to be", fault)
}
