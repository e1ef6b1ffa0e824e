// Package outbound calls participants: over HTTP, JSON-RPC and gRPC, in the form that
// dtm's participants know. docs/participants.md describes it from their side.
//
// Addresses come from whoever submits transactions, and answers from whoever listens
// there. Neither is trusted: a [Config] can restrict where calls go, no redirect is
// followed and no proxy of the environment used, and what an answer costs is bounded in
// bytes and time.
package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/callsign"
	"github.com/troth-tx/troth/store"
)

// Config is how calls are made. The zero value calls any address.
type Config struct {
	// Allow lists where calls may go; everything else is refused. A pattern is
	//
	//	pay.example.com        a name, on any port
	//	pay.example.com:8080   on one port
	//	*.svc.cluster.local    all names below a domain
	//	10.1.2.3  [fd00::1]    an address
	//	10.0.0.0/8:8080        a range of addresses
	//	*                      every name and address
	//
	// with http://, https://, grpc:// or grpcs:// before it for one protocol; then http and
	// https mean their usual port if none is given. A URL with a name needs a pattern with
	// a name.
	//
	// After the name is resolved, addresses of the machine itself, of its link, of metadata
	// services and others that no participant has (see docs/participants.md) are refused,
	// unless a pattern gives the address itself, or no more than the range that is
	// refused: 127.0.0.1:8080 or 127.0.0.0/8, not 0.0.0.0/0. "localhost" stands for the
	// addresses of the machine itself.
	Allow []string

	// Restricted refuses everything that is not in Allow also if Allow is empty.
	Restricted bool

	// IgnoreWords takes a participant's status for its answer, whatever the body says.
	// By default, as in dtm, the words ONGOING and FAILURE in a body count like 425
	// and 409: old clients answer 200 with them.
	IgnoreWords bool

	// SigningKey signs every call, see package callsign, if it is not empty. It must
	// have 32 bytes or more.
	SigningKey []byte

	// TLS is for https:// and grpcs:// participants: RootCAs, GetClientCertificate and so
	// on. Nil takes the system's authorities. TLS 1.2 is the least, and participants are
	// always verified, by the name in their URL: ServerName and NextProtos are ignored.
	TLS *tls.Config

	// Resolver looks names up. Nil stands for net.DefaultResolver.
	Resolver *net.Resolver

	// AnswerMax is how many bytes of an answer are read. Defaults to 1 MiB.
	AnswerMax int

	// IdleConnsPerHost is how many connections are kept for each participant while
	// they are not used, at most 90 seconds. Defaults to 256.
	IdleConnsPerHost int

	// ConnsMax is how many gRPC participants have a connection at a time, and how many
	// idle HTTP connections are kept in all. Defaults to 4096.
	ConnsMax int
}

// A Caller calls participants. It is safe for concurrent use; Close it in the end.
type Caller struct {
	cfg     Config
	policy  *policy
	targets targets
	http    *http.Transport
	grpc    *connections
}

var _ engine.Caller = (*Caller)(nil)

// New returns a caller, or an error that names the field that is wrong.
func New(cfg Config) (*Caller, error) {
	if cfg.AnswerMax <= 0 {
		cfg.AnswerMax = 1 << 20
	}
	if cfg.IdleConnsPerHost <= 0 {
		cfg.IdleConnsPerHost = 256
	}
	if cfg.ConnsMax <= 0 {
		cfg.ConnsMax = 4096
	}
	if n := len(cfg.SigningKey); n > 0 && n < callsign.KeySizeMin {
		return nil, fmt.Errorf("outbound: SigningKey has %d bytes: give %d or more", n, callsign.KeySizeMin)
	}
	var err error
	if cfg.TLS, err = checkedTLS(cfg.TLS); err != nil {
		return nil, err
	}
	p, err := newPolicy(cfg.Allow, cfg.Restricted)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second, Resolver: cfg.Resolver, Control: p.control}
	return &Caller{
		cfg: cfg, policy: p,
		targets: targets{policy: p},
		http:    newTransport(dialer, &cfg),
		grpc:    newConnections(dialer, &cfg),
	}, nil
}

func checkedTLS(cfg *tls.Config) (*tls.Config, error) {
	if cfg == nil {
		return &tls.Config{MinVersion: tls.VersionTLS12}, nil
	}
	if cfg.InsecureSkipVerify {
		return nil, errors.New("outbound: TLS.InsecureSkipVerify is set: give the authority of the participants in TLS.RootCAs")
	}
	cfg = cfg.Clone()
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	cfg.ServerName, cfg.NextProtos = "", nil // each call says whom it wants
	return cfg, nil
}

// Close closes the connections that are idle, and those to gRPC participants. Calls
// that are under way over gRPC fail. Nothing may be called afterwards.
func (c *Caller) Close() error {
	c.http.CloseIdleConnections()
	return c.grpc.close()
}

// Check reports why a call to url would be refused, in words for whoever wrote the
// URL; nil if it would not. It resolves no name: where a name leads is checked when it is
// called. An empty URL and one of a topic are called by nobody, and fine.
func (c *Caller) Check(url string) error {
	if url == "" || isTopic(url) {
		return nil
	}
	_, err := c.targets.get(url)
	return err
}

// Call makes one call, and takes no longer than call.Timeout if that is not 0. What
// call.Payload holds must never change: after an early answer it may still be read.
//
// A branch without a URL succeeds: there is nothing to do. A question without one stays
// open, as nobody answered it.
func (c *Caller) Call(ctx context.Context, call engine.Call) (engine.Answer, string) {
	if call.URL == "" {
		if call.Op == store.Query || call.Op == store.Resume {
			return engine.Unknown, "query_prepared is empty: there is nobody to ask"
		}
		return engine.Success, ""
	}
	t, err := c.targets.get(call.URL)
	if err != nil {
		return engine.Unknown, readable(err.Error())
	}
	if call.Timeout > 0 {
		if end, ok := ctx.Deadline(); !ok || time.Until(end) > call.Timeout {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, call.Timeout)
			defer cancel()
		}
	}
	switch {
	case t.grpc:
		return c.callGRPC(ctx, t, &call)
	case call.Protocol == protocolJSONRPC && t.jsonRPC:
		return c.callJSONRPC(ctx, t, &call)
	default:
		return c.callHTTP(ctx, t, &call)
	}
}

const protocolJSONRPC = "json-rpc"

// opOf is the operation's name as participants know it.
func opOf(call *engine.Call) string {
	if call.Op == store.Resume && call.Name != "" {
		return call.Name
	}
	return call.Op.String()
}
