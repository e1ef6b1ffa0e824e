package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/metrics"
	"github.com/troth-tx/troth/store"
)

// AlertConfig says who is told of transactions that fail again and again.
type AlertConfig struct {
	URL    string        // gets a POST for each pass that failed, from After on
	After  int           // defaults to 3
	Caller engine.Caller // makes the call: its rules for addresses hold for URL too (S5)
	Logger *slog.Logger
	Meter  *metrics.Server
}

// Alerts tell one address of transactions that fail again and again. They never hold the
// engine up: what cannot be told in time is counted and dropped, and the next failure of
// the same transaction is another chance.
type Alerts struct {
	cfg   AlertConfig
	queue chan engine.Miss
	done  chan struct{}
}

const (
	alertQueue   = 256 // alerts that wait
	alertTimeout = 5 * time.Second
)

// NewAlerts starts what tells. Close ends it.
func NewAlerts(cfg AlertConfig) *Alerts {
	setDefault(&cfg.After, 3)
	a := &Alerts{cfg: cfg, queue: make(chan engine.Miss, alertQueue), done: make(chan struct{})}
	go a.tell()
	return a
}

// Missed takes a pass that failed. It does not wait.
func (a *Alerts) Missed(m engine.Miss) {
	if m.Attempts < a.cfg.After {
		return
	}
	select {
	case a.queue <- m:
	default:
		a.cfg.Meter.AlertDropped()
	}
}

// Close tells what is left, for as long as one alert may take, and ends. Nothing may be
// missed any more: the engine is closed before.
func (a *Alerts) Close() {
	close(a.queue)
	select {
	case <-a.done:
	case <-time.After(alertTimeout):
	}
}

// alert is what the address gets: dtm's words.
type alert struct {
	GID        string `json:"gid"`
	Status     string `json:"status"`
	Branch     string `json:"branch"`
	Error      string `json:"error"`
	RetryCount int    `json:"retry_count"`
}

func (a *Alerts) tell() {
	defer close(a.done)
	for m := range a.queue {
		body, err := json.Marshal(alert{m.GID, m.State.String(), m.Branch, m.Error, m.Attempts})
		if err != nil {
			continue // texts and a number: it cannot fail
		}
		ctx, cancel := context.WithTimeout(context.Background(), alertTimeout)
		answer, text := a.cfg.Caller.Call(ctx, engine.Call{
			GID: m.GID, Pattern: m.Pattern, Protocol: "http", Branch: m.Branch, Op: store.Action, URL: a.cfg.URL, Payload: body, Timeout: alertTimeout,
		})
		cancel()
		if answer != engine.Success {
			a.cfg.Meter.AlertDropped()
			a.cfg.Logger.Warn("alert not delivered", "gid", m.GID, "err", text)
		}
	}
}
