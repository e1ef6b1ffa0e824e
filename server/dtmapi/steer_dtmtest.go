//go:build dtmtest

package dtmapi

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// hooks let a foreign test suite turn the engine's clocks and take each step by hand. A
// release has none of them.
type hooks struct {
	*handler

	mu        sync.Mutex
	now, cron time.Duration // how far the clocks are ahead, as forward said last
}

// cronStart is how far ahead the clock is at first by which due work is sought: a
// suite sees what would be repeated within that time as due.
const cronStart = 180 * time.Second

// steer adds the hooks. Their times are milliseconds.
func steer(mux *http.ServeMux, h *handler) {
	k := &hooks{handler: h, cron: cronStart}
	const prefix = "/api/dtmtest/"
	mux.HandleFunc("POST "+prefix+"reset", showing(k.reset))
	mux.HandleFunc("POST "+prefix+"forward", showing(k.forward))
	mux.HandleFunc("POST "+prefix+"cronOnce", showing(k.cronOnce))
	mux.HandleFunc("GET "+prefix+"processed", showing(k.processed))
	mux.HandleFunc("POST "+prefix+"topics", showing(k.topics))
}

func done() map[string]string { return map[string]string{"dtm_result": "SUCCESS"} }

// reset deletes all transactions with their branches, and all topics.
func (k *hooks) reset(r *http.Request) (any, error) {
	return done(), k.Engine.Reset(r.Context())
}

// forward sets the clocks. One that is not named stays as it is.
func (k *hooks) forward(r *http.Request) (any, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, cron, err := k.clocksLocked(r.URL.Query())
	if err != nil {
		return nil, err
	}
	k.now, k.cron = now, cron
	k.Engine.Forward(now, cron)
	return done(), nil
}

// cronOnce makes one pass of one transaction that is due, by clocks that hold for this
// call only, and names it.
func (k *hooks) cronOnce(r *http.Request) (any, error) {
	k.mu.Lock()
	now, cron, err := k.clocksLocked(r.URL.Query())
	k.mu.Unlock()
	if err != nil {
		return nil, err
	}
	gid, err := k.Engine.CronOnce(r.Context(), now, cron)
	return map[string]string{"gid": gid}, err
}

// processed names the next transaction in the order in which passes ended; none if no
// pass ends within the timeout.
func (k *hooks) processed(r *http.Request) (any, error) {
	wait, err := ahead(r.URL.Query(), "timeout", 0)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), max(wait, time.Millisecond))
	defer cancel()
	return map[string]string{"gid": k.Engine.Processed(ctx)}, nil
}

// topics has nothing to do: topics are read when a message is submitted.
func (*hooks) topics(*http.Request) (any, error) { return done(), nil }

func (k *hooks) clocksLocked(q url.Values) (now, cron time.Duration, err error) {
	if now, err = ahead(q, "now", k.now); err != nil {
		return 0, 0, err
	}
	cron, err = ahead(q, "cron", k.cron)
	return now, cron, err
}

func ahead(q url.Values, name string, absent time.Duration) (time.Duration, error) {
	ms, err := number(q, name, absent.Milliseconds())
	return time.Duration(min(ms, 1000*secondsMax)) * time.Millisecond, err
}
