//go:build dtmtest

package server

import (
	"net/http"

	"github.com/troth-tx/troth/server/auth"
)

// steered adds the hooks of test suites.
func steered(h http.Handler) []mount {
	return []mount{{"/api/dtmtest/", always(auth.Admin), h}}
}
