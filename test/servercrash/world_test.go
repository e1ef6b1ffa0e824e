//go:build linux

package servercrash

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/client"
)

// A world is the servers of one store, two banks, and what programs want of them.
type world struct {
	*cluster
	participants

	name    string         // begins the names of its transactions
	client  *client.Client // of a program that keeps asking
	dying   *client.Client // of one that dies before it submits or aborts
	flows   *client.Workflows
	dyers   *client.Workflows
	calm    atomic.Bool // no faults: programs have all the time that a busy machine needs
	watches sync.WaitGroup
	stop    context.CancelFunc // ends the watches

	watching context.Context //nolint:containedctx // the life of the watches

	mu         sync.Mutex // guards what follows
	plans      []*plan
	violations []string
	reported   map[string]bool
	looks      int // answers to questions for a state

	inAll int64 // the money of all banks, as last counted
}

// drawFor returns the choices that a seed makes for something.
func drawFor(seed uint64, key string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // never fails
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// newWorld has its XA participants on the databases of index xa: a test that kills them
// needs those to itself.
func newWorld(t *testing.T, name string, own *mischief, xa int) *world {
	t.Helper()
	clock := new(atomic.Int64)
	w := &world{cluster: newCluster(), name: name, reported: make(map[string]bool)}
	w.watching, w.stop = context.WithCancel(context.Background())
	own.nth = make(map[string]int)
	w.own = own
	w.banks = [2]*bank{newSQLiteBank(t, clock), newPostgresBank(t, clock)}
	w.xa = w.startXA(t, xa)
	w.serveParticipants(t)
	w.client = newClient(t, w.cluster, 40)
	w.dying = newClient(t, lost{w.cluster}, 6)
	w.flows, w.dyers = w.client.Workflows(w.url+"/resume"), w.dying.Workflows(w.url+"/resume")
	for _, flows := range []*client.Workflows{w.flows, w.dyers} {
		if err := flows.Register("transfer", w.transfer); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		w.stop()
		w.watches.Wait()
		w.late.Wait()
		for _, p := range w.all() {
			p.kill()
		}
		w.transport.CloseIdleConnections()
	})
	return w
}

func newClient(t *testing.T, way http.RoundTripper, attempts int) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{
		Server: "http://" + clusterHost, HTTP: &http.Client{Transport: way},
		RequestTimeout: time.Second, Attempts: attempts, RetryPause: 20 * time.Millisecond, FinishTimeout: patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) violate(rule, gid, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, strings.TrimSpace(fmt.Sprintf("%s: %s: %s", rule, gid, fmt.Sprintf(format, args...))))
}

// follow are the states that may be seen after a state, at whatever distance.
var follow = map[client.State][]client.State{
	client.Prepared:  {client.Prepared, client.Submitted, client.Aborting, client.Succeeded, client.Failed},
	client.Submitted: {client.Submitted, client.Succeeded},
	client.Aborting:  {client.Aborting, client.Failed},
	client.Succeeded: {client.Succeeded},
	client.Failed:    {client.Failed},
}

func mayFollow(p client.Pattern, before, after client.State) bool {
	for _, s := range follow[before] {
		if s == after {
			return true
		}
	}
	// A saga alone may go back after it was submitted.
	return p == client.PatternSaga && before == client.Submitted && (after == client.Aborting || after == client.Failed)
}

// watch polls a transaction's state until it is over: I13. One question follows the
// answer to the other, so that what is asked later must not be behind.
func (w *world) watch(p *plan) {
	for w.watching.Err() == nil && !p.settled.Load() {
		if member, err := w.pick(); err == nil {
			if state, _ := w.look(p, member); state.Over() {
				return
			}
		}
		await(w.watching, 50*time.Millisecond)
	}
}

// look asks a server for a transaction's state: empty if there is none.
func (w *world) look(p *plan, member *process) (client.State, error) {
	ctx, cancel := context.WithTimeout(w.watching, time.Second)
	defer cancel()
	before := w.seen(p)
	s, err := w.statusOf(ctx, member, p.gid)
	switch {
	case errors.Is(err, client.ErrNotFound):
		if before != "" {
			w.violate("I13", p.gid, "it was %s, and is unknown now", before)
		}
		return "", nil
	case err != nil:
		return "", err
	case before != "" && !mayFollow(s.Pattern, before, s.State):
		w.violate("I13", p.gid, "it was %s, and is %s now", before, s.State)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.state == "" || mayFollow(s.Pattern, p.state, s.State) { // else another, asked later, was answered sooner
		p.state = s.State
	}
	w.looks++
	return s.State, nil
}

func (w *world) seen(p *plan) client.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return p.state
}

// awaitOver waits until the programs have returned and every server says of each
// transaction that it is over, or that it never was: I7. It returns how long that took.
func (w *world) awaitOver(bound time.Duration) time.Duration {
	began := time.Now()
	for _, p := range w.all() {
		for _, plan := range w.made() {
			<-plan.returned // a program's context ends
			for !w.isOver(plan, p) {
				if time.Since(began) > bound {
					w.violate("I7", plan.gid, "a %s is %q, and not over %v after the faults", plan.kind.name, w.seen(plan), bound)
					return time.Since(began)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	return time.Since(began)
}

func (w *world) isOver(p *plan, member *process) bool {
	state, err := w.look(p, member)
	return err == nil && (state == "" || state.Over())
}

func (w *world) made() []*plan {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.plans)
}
