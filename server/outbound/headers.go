package outbound

import (
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/callsign"
)

// What calls say unless their branch_headers say otherwise.
var (
	userAgent   = []string{"troth"}
	contentJSON = []string{"application/json"}
)

// headerOf returns the headers of a call, but for its signature.
func headerOf(t *target, call *engine.Call) (http.Header, error) {
	if err := CheckHeaders(call.Headers); err != nil {
		return nil, err
	}
	h := make(http.Header, 6+len(call.Headers))
	for name, value := range call.Headers {
		if name = http.CanonicalHeaderKey(name); !ours[name] {
			h[name] = append(h[name], value)
		}
	}
	h["User-Agent"], h["Accept"] = userAgent, contentJSON
	if h["Content-Type"] == nil {
		h["Content-Type"] = contentJSON
	}
	if h["Authorization"] == nil && t.authorization != "" {
		h["Authorization"] = []string{t.authorization}
	}
	if h["Idempotency-Key"] == nil {
		// It has no value and is not sent. It tells net/http that a request that met a
		// connection that the participant had just closed, as it does after some time
		// without calls, may be sent again: participants bear repetitions.
		h["Idempotency-Key"] = nil
	}
	return h, nil
}

// ours are headers that no caller sets: they say where a request goes, where it ends, or
// who sent it.
var ours = map[string]bool{
	"Host": true, "Connection": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Te": true,
	"Upgrade": true, "Expect": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authorization": true,
	"Accept-Encoding": true, "User-Agent": true, "Accept": true, callsign.Header: true,
}

// Limits of branch_headers.
const (
	headersMax      = 64
	headersBytesMax = 16 << 10
)

// CheckHeaders reports why headers for branches would be refused; nil if they would not.
func CheckHeaders(headers map[string]string) error {
	if len(headers) > headersMax {
		return fmt.Errorf("branch_headers: %d headers, the limit is %d", len(headers), headersMax)
	}
	size := 0
	for name, value := range headers {
		size += len(name) + len(value)
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("branch_headers: %q is no name of a header", cut(name, 100))
		}
		if !httpguts.ValidHeaderFieldValue(value) || strings.ContainsAny(value, "\r\n") {
			return fmt.Errorf("branch_headers: the value of %q has characters that no header may have", cut(name, 100))
		}
	}
	if size > headersBytesMax {
		return fmt.Errorf("branch_headers: %d bytes, the limit is %d", size, headersBytesMax)
	}
	return nil
}
