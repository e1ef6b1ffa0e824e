// Package metrics shows what the server does to Prometheus. No label's values come from
// outside: there is none for gids, principals, addresses or queries, so that the number
// of series has a limit.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A Server counts what one server process does. It is safe for concurrent use.
type Server struct {
	registry *prometheus.Registry

	httpRequests  *prometheus.CounterVec
	httpDuration  *prometheus.HistogramVec
	grpcRequests  *prometheus.CounterVec
	grpcDuration  *prometheus.HistogramVec
	refused       *prometheus.CounterVec
	purged        prometheus.Counter
	stuck         prometheus.Gauge
	alertsDropped prometheus.Counter
	engine        engineMeters
}

// durations are in seconds: from a store in memory to a caller that waits for a result.
var durations = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// NewServer returns a Server with a registry of its own.
func NewServer() *Server {
	s := &Server{
		registry: prometheus.NewRegistry(),
		httpRequests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "troth_http_requests_total", Help: "HTTP requests that were answered, by route and status code.",
		}, []string{"route", "code"}),
		httpDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "troth_http_request_duration_seconds", Help: "How long HTTP requests took, by route.", Buckets: durations,
		}, []string{"route"}),
		grpcRequests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "troth_grpc_requests_total", Help: "gRPC requests that were answered, by method and code.",
		}, []string{"method", "code"}),
		grpcDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "troth_grpc_request_duration_seconds", Help: "How long gRPC requests took, by method.", Buckets: durations,
		}, []string{"method"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "troth_requests_refused_total", Help: "Requests that were refused before they were looked at, by reason: credentials, role, rate, busy, size.",
		}, []string{"reason"}),
		purged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "troth_transactions_purged_total", Help: "Finished transactions that were removed because their retention was over.",
		}),
		stuck: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "troth_transactions_stuck", Help: "Transactions that are not over and whose last pass failed; counted up to 1000.",
		}),
		alertsDropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "troth_alerts_dropped_total", Help: "Alerts that were not delivered.",
		}),
	}
	s.registry.MustRegister(
		s.httpRequests, s.httpDuration, s.grpcRequests, s.grpcDuration, s.refused, s.purged, s.stuck, s.alertsDropped,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	s.engine = newEngineMeters(s.registry)
	return s
}

// Handler serves the metrics in Prometheus' text format.
func (s *Server) Handler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// HTTP counts a request. route is the pattern that it matched, never its path.
func (s *Server) HTTP(route string, code int, took time.Duration) {
	s.httpRequests.WithLabelValues(route, strconv.Itoa(code)).Inc()
	s.httpDuration.WithLabelValues(route).Observe(took.Seconds())
}

// GRPC counts a request. method is one that the server has; code is the code's name.
func (s *Server) GRPC(method, code string, took time.Duration) {
	s.grpcRequests.WithLabelValues(method, code).Inc()
	s.grpcDuration.WithLabelValues(method).Observe(took.Seconds())
}

// A Refusal is why a request was refused before it was looked at.
type Refusal string

// The reasons.
const (
	BadCredentials Refusal = "credentials"
	LackOfRole     Refusal = "role"
	TooFast        Refusal = "rate"
	TooBusy        Refusal = "busy"
	TooLarge       Refusal = "size"
	TooManyOpen    Refusal = "open"
)

// Refused counts a request that was refused.
func (s *Server) Refused(why Refusal) { s.refused.WithLabelValues(string(why)).Inc() }

// Purged counts transactions that were removed.
func (s *Server) Purged(n int) { s.purged.Add(float64(n)) }

// Stuck sets how many transactions are stuck.
func (s *Server) Stuck(n int) { s.stuck.Set(float64(n)) }

// AlertDropped counts an alert that was not delivered.
func (s *Server) AlertDropped() { s.alertsDropped.Inc() }
