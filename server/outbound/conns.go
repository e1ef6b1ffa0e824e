package outbound

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// connections keeps one connection for each gRPC participant. They close by themselves
// when they are idle; of what stays then there are no more than the bound.
type connections struct {
	options   []grpc.DialOption
	plain     grpc.DialOption
	encrypted grpc.DialOption
	max       int

	mu     sync.Mutex
	conns  map[connKey]*conn
	closed bool
}

type connKey struct {
	hostPort string
	tls      bool
}

type conn struct {
	cc      *grpc.ClientConn
	key     connKey
	users   int // guarded by connections.mu, and what follows too
	dropped bool
	used    time.Time
}

const (
	grpcIdleTimeout = 10 * time.Minute

	// grpcHeadersMax is in bytes. The text of a refusal is a header: if that is too long
	// the code is not seen either, and what was refused is called for ever.
	grpcHeadersMax = 1 << 20

	// reconnectMax is how long a participant that has come back stays unknown at most.
	// The calls fail meanwhile, and are repeated by the engine.
	reconnectMax = 2 * time.Second
)

func newConnections(dialer *net.Dialer, cfg *Config) *connections {
	return &connections{
		max:       cfg.ConnsMax,
		conns:     make(map[connKey]*conn),
		plain:     grpc.WithTransportCredentials(insecure.NewCredentials()),
		encrypted: grpc.WithTransportCredentials(credentials.NewTLS(cfg.TLS.Clone())),
		options: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, hostPort string) (net.Conn, error) {
				return dialer.DialContext(ctx, "tcp", hostPort)
			}),
			grpc.WithNoProxy(),
			grpc.WithDisableServiceConfig(),
			grpc.WithDisableRetry(),
			grpc.WithUserAgent("troth"),
			grpc.WithIdleTimeout(grpcIdleTimeout),
			grpc.WithMaxHeaderListSize(grpcHeadersMax),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(cfg.AnswerMax)),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
				MinConnectTimeout: 3 * time.Second,
			}),
			// Only while calls are under way, and not more often than servers bear: their
			// limit is 5 minutes unless they say otherwise.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 5 * time.Minute, Timeout: 10 * time.Second}),
		},
	}
}

// get returns a connection, to be given back to release.
func (cs *connections) get(t *target) (*conn, error) {
	key := connKey{t.hostPort, t.tls}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		return nil, errors.New("outbound: closed")
	}
	c := cs.conns[key]
	if c == nil {
		credentials := cs.plain
		if t.tls {
			credentials = cs.encrypted
		}
		// passthrough: the name goes to our dialer, and to no resolver of gRPC's.
		cc, err := grpc.NewClient("passthrough:///"+t.hostPort, append([]grpc.DialOption{credentials}, cs.options...)...)
		if err != nil {
			return nil, err
		}
		cs.makeRoomLocked()
		c = &conn{cc: cc, key: key}
		cs.conns[key] = c
	}
	c.users++
	c.used = time.Now()
	return c, nil
}

// makeRoomLocked drops the connection that was used least recently, if there are too
// many. It is closed when its calls have ended.
func (cs *connections) makeRoomLocked() {
	if len(cs.conns) < cs.max {
		return
	}
	var oldest *conn
	for _, c := range cs.conns {
		if oldest == nil || c.used.Before(oldest.used) {
			oldest = c
		}
	}
	delete(cs.conns, oldest.key)
	oldest.dropped = true
	if oldest.users == 0 {
		_ = oldest.cc.Close() // nothing to lose
	}
}

func (cs *connections) release(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c.users--; c.users == 0 && c.dropped {
		_ = c.cc.Close() // nothing to lose
	}
}

func (cs *connections) close() error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	var errs []error
	for _, c := range cs.conns {
		errs = append(errs, c.cc.Close())
	}
	clear(cs.conns)
	return errors.Join(errs...)
}
