package outbound

import (
	"net"
	"net/http"
	"time"
)

const (
	// connectTimeout bounds each step of a new connection. net/http goes on with a
	// connection when the call that it was for has ended, so that another may use it.
	connectTimeout = 5 * time.Second

	idleTimeout = 90 * time.Second

	// answerHeadersMax is in bytes, and for the answers before the last one (1xx), too.
	answerHeadersMax = 64 << 10

	// bufferSize is in bytes, for each direction of a connection: most requests and answers
	// fit, and thousands of connections may be idle. Trailers must fit.
	bufferSize = 2 << 10
)

// newTransport returns what calls of HTTP go over. It speaks HTTP/1.1 only, also over
// TLS: what a participant can make of one connection stays simple to bound. There is no
// http.Client above it, and so are no redirects, no cookies and no headers made of a URL.
// No limit is set to the connections that are in use: the engine limits the calls.
func newTransport(dialer *net.Dialer, cfg *Config) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  nil, // also if the environment has one
		DialContext:            dialer.DialContext,
		TLSClientConfig:        cfg.TLS.Clone(),
		TLSHandshakeTimeout:    connectTimeout,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxResponseHeaderBytes: answerHeadersMax,
		WriteBufferSize:        bufferSize,
		ReadBufferSize:         bufferSize,
		MaxIdleConns:           cfg.ConnsMax,
		MaxIdleConnsPerHost:    cfg.IdleConnsPerHost,
		IdleConnTimeout:        idleTimeout,
	}
}
