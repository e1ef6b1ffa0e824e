//go:build linux

package servercrash

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

// participants are the services that branches are: two banks, two more for XA, the sender
// of messages who is asked, and the workflows that are resumed.
type participants struct {
	url   string
	banks [2]*bank
	xa    *xaService // has two more
	own   *mischief
	late  sync.WaitGroup // calls that are carried out when nobody waits for them
}

func (w *world) serveParticipants(t *testing.T) {
	t.Helper()
	p := &w.participants
	mux := http.NewServeMux()
	for i, b := range p.banks {
		mux.Handle(fmt.Sprintf("/%d/branch", i), p.unreliable(client.Handler(b.branch)))
	}
	for i := range p.xa.banks {
		mux.Handle(fmt.Sprintf("/xa/%d", i), p.unreliable(p.xa.at(i)))
	}
	mux.Handle("/query", p.unreliable(client.QueryPrepared(w.outbox())))
	mux.Handle("/resume", p.unreliable(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.flows.Handler().ServeHTTP(rw, r)
	})))
	s := httptest.NewServer(mux)
	p.url = s.URL
	t.Cleanup(s.Close)
}

func (w *world) outbox() client.Outbox {
	return client.Outbox{DB: w.banks[0].db, Barrier: w.banks[0].table}
}

func (w *world) to(bank int) string { return fmt.Sprintf("%s/%d/branch", w.url, bank) }

func (w *world) toXA(bank int) string { return fmt.Sprintf("%s/xa/%d", w.url, bank) }

// branch is a bank's part in a transaction.
func (b *bank) branch(ctx context.Context, call *client.Call) (any, error) {
	var m move
	if err := call.Decode(&m); err != nil {
		return nil, err
	}
	if m.Refuse && (call.Op == client.OpAction || call.Op == client.OpTry) {
		return nil, fmt.Errorf("account %d is closed: %w", m.Account, client.ErrFailed)
	}
	step, err := barrier.NewStep(string(call.Pattern), call.GID, call.Branch, barrier.Op(call.Op))
	if err != nil {
		return nil, err
	}
	err = b.do(ctx, step, m)
	if call.Op == client.OpAction {
		await(ctx, m.Slow)
	}
	return nil, err
}

// A fault is what goes wrong with one call.
type fault int

const (
	fine      fault = iota
	busy            // 503, and nothing is done
	ongoing         // 425, and nothing is done
	broken          // done, and 500
	cutBefore       // the connection ends, and nothing is done
	cutAfter        // done, and the connection ends
	slow            // done, and the answer comes when nobody waits any more
	delayed         // done when nobody waits any more
	twice           // done, and once more a moment later
	faultsEnd
)

// lateness is longer than the server's request timeout.
const lateness = 1300 * time.Millisecond

// mischief draws the faults of calls: what goes wrong with the n-th call of an operation
// depends on nothing but the seed.
type mischief struct {
	seed  uint64
	oneIn int // calls of which about one has a fault; 0: none
	off   atomic.Bool

	mu    sync.Mutex
	nth   map[string]int
	count [faultsEnd]int
}

func (m *mischief) draw(r *http.Request) (fault, *rand.Rand) {
	q := r.URL.Query()
	key := fmt.Sprint(q.Get("gid"), " ", q.Get("branch_id"), " ", q.Get("op"))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nth[key]++
	rng := drawFor(m.seed, fmt.Sprint("call ", key, " #", m.nth[key]))
	f, oneIn := fine, m.oneIn
	if q.Get("op") == string(client.OpQuery) {
		oneIn = min(oneIn, 2) // there are few, and much hangs on them
	}
	if oneIn > 0 && rng.IntN(oneIn) == 0 && !m.off.Load() {
		f = busy + fault(rng.IntN(int(faultsEnd-busy)))
	}
	m.count[f]++
	return f, rng
}

// unreliable lets calls of a handler go wrong.
func (p *participants) unreliable(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // the server died in the middle of it
		}
		f, rng := p.own.draw(r)
		// What has arrived is carried out, whether the caller waits or not.
		do := func() *httptest.ResponseRecorder {
			again := r.Clone(context.WithoutCancel(r.Context()))
			again.Body = io.NopCloser(bytes.NewReader(body))
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, again)
			return answer
		}
		var answer *httptest.ResponseRecorder
		switch f {
		case busy:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case ongoing:
			w.WriteHeader(http.StatusTooEarly)
			return
		case broken:
			do()
			w.WriteHeader(http.StatusInternalServerError)
			return
		case cutBefore:
			panic(http.ErrAbortHandler)
		case cutAfter:
			do()
			panic(http.ErrAbortHandler)
		case slow:
			answer = do()
			await(r.Context(), lateness)
		case delayed:
			p.late.Go(func() { time.Sleep(lateness); do() })
			await(r.Context(), lateness)
			panic(http.ErrAbortHandler)
		case twice:
			answer = do()
			pause := time.Duration(rng.Int64N(int64(time.Second)))
			p.late.Go(func() { time.Sleep(pause); do() })
		case fine, faultsEnd:
			answer = do()
		}
		w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // the caller has gone
	})
}

func await(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
