package server_test

import (
	"fmt"
	"strings"
	"testing"
)

// No token and nothing of a payload or a header is in the log, whatever the level, nor
// in metrics (S10).
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	w := start(t, withTokens(t))
	body := strings.Replace(fmt.Sprintf(sagaBody, "s"), `"{}"`, `"{\"pin\":\"planted-pin\"}"`, 1)
	body = strings.Replace(body, `"gid"`, `"branch_headers":{"Authorization":"planted-header"},"gid"`, 1)
	for _, token := range []string{"", "planted-wrong-0123456789", expiredToken, aliceToken, bobToken, operatorToken, adminToken} {
		for _, r := range [][3]string{
			{"POST", "/api/dtmsvr/submit", body},
			{"POST", "/api/dtmsvr/submit", `{"gid": planted-broken`},
			{"GET", "/api/v1/transactions?planted-parameter=1", ""},
			{"GET", "/api/planted-path?token=planted-query", ""},
			{"POST", "/api/v1/transactions/s/stop", `{"planted":1}`},
		} {
			w.do(t, r[0], r[1], r[2], bearer(token)...)
		}
	}
	_, metrics := w.do(t, "GET", "/api/metrics", "", bearer(adminToken)...)
	if !strings.Contains(metrics, `troth_requests_refused_total{reason="credentials"}`) {
		t.Errorf("the metrics do not tell of refused credentials: %s", metrics)
	}
	if !strings.Contains(w.log.String(), "credentials refused") {
		t.Error("the log does not tell of refused credentials")
	}
	for name, text := range map[string]string{"log": w.log.String(), "metrics": metrics} {
		if strings.Contains(text, "planted") {
			t.Errorf("a secret is in the %s: %s", name, text)
		}
	}
}

// The number of series has a limit, whatever is asked for.
func TestMetricsAreBounded(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	count := func() int {
		_, text := w.do(t, "GET", "/api/metrics", "")
		return strings.Count(text, "\ntroth_")
	}
	ask := func(from, to int) {
		for i := from; i < to; i++ {
			w.do(t, "GET", fmt.Sprintf("/api/v1/transactions/gid-%d", i), "")
			w.do(t, "GET", fmt.Sprintf("/api/dtmsvr/query?gid=g-%d", i), "")
			w.do(t, "GET", fmt.Sprintf("/nowhere/%d", i), "")
			w.do(t, fmt.Sprintf("METHOD%d", i), "/api/v1/me", "")
		}
	}
	ask(0, 1)
	count() // its own series
	before := count()
	ask(1, 50)
	if after := count(); after != before {
		t.Errorf("%d series have become %d", before, after)
	}
}
