package metrics

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

// engineMeters count what an engine does.
type engineMeters struct {
	created *prometheus.CounterVec
	ended   *prometheus.CounterVec
	took    *prometheus.HistogramVec
	calls   *prometheus.CounterVec
	calling *prometheus.HistogramVec
	missed  *prometheus.CounterVec
}

// lives are in seconds: a transaction may wait for people.
var lives = []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10, 60, 600, 3600, 86400}

func newEngineMeters(r *prometheus.Registry) engineMeters {
	m := engineMeters{
		created: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "troth_transactions_created_total", Help: "Transactions that were stored for the first time.",
		}, []string{"pattern"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "troth_transactions_ended_total", Help: "Transactions that are over, by how they ended: succeed or failed.",
		}, []string{"pattern", "state"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "troth_transaction_duration_seconds", Help: "From the creation of a transaction to its end.", Buckets: lives,
		}, []string{"pattern"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "troth_branch_calls_total", Help: "Calls of participants, by what they answered: success, failure, ongoing, or unknown for anything that was not agreed.",
		}, []string{"pattern", "op", "answer"}),
		calling: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "troth_branch_call_duration_seconds", Help: "How long calls of participants took.", Buckets: durations,
		}, []string{"pattern", "op"}),
		missed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "troth_passes_failed_total", Help: "Passes that ended without success and are repeated.",
		}, []string{"pattern"}),
	}
	r.MustRegister(m.created, m.ended, m.took, m.calls, m.calling, m.missed)
	return m
}

// Observer tells the server's metrics what an engine does.
func (s *Server) Observer() engine.Observer {
	m := s.engine
	return engine.Observer{
		Created: func(p store.Pattern) { m.created.WithLabelValues(p.String()).Inc() },
		Ended: func(p store.Pattern, st store.State, took time.Duration) {
			m.ended.WithLabelValues(p.String(), st.String()).Inc()
			m.took.WithLabelValues(p.String()).Observe(took.Seconds())
		},
		Called: func(p store.Pattern, op store.Op, a engine.Answer, took time.Duration) {
			m.calls.WithLabelValues(p.String(), op.String(), answerName(a)).Inc()
			m.calling.WithLabelValues(p.String(), op.String()).Observe(took.Seconds())
		},
		Missed: func(miss engine.Miss) { m.missed.WithLabelValues(miss.Pattern.String()).Inc() },
	}
}

func answerName(a engine.Answer) string {
	switch a {
	case engine.Success:
		return "success"
	case engine.Failure:
		return "failure"
	case engine.Ongoing:
		return "ongoing"
	case engine.Unknown:
		return "unknown"
	}
	return fmt.Sprintf("unknown (%d)", uint8(a))
}
