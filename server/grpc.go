package server

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/troth-tx/troth/metrics"
)

func (s *Server) newGRPC() *grpc.Server {
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(int(s.limits.BodyMax)),
		grpc.MaxHeaderListSize(uint32(s.limits.HeaderMax)),
		grpc.MaxConcurrentStreams(s.limits.StreamsMax),
		grpc.ConnectionTimeout(2 * s.limits.HeaderTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: s.limits.IdleTimeout, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.InTapHandle(severable),
		grpc.StreamInterceptor(s.stream),
	}
	if s.certs != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.certs.outer("h2"))))
	}
	g := grpc.NewServer(options...)
	s.health = health.NewServer()
	to := registrar{g, s}
	grpc_health_v1.RegisterHealthServer(to, s.health)
	s.registerDTM(to)
	return g
}

// stream lets in whom the guard admits, counts, bounds the time, and outlives panics. All
// methods are streams, see registrar; those that were streams before end with the server.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	start := s.cfg.Now()
	ctx := ss.Context()
	defer func() {
		if p := recover(); p != nil {
			s.log.ErrorContext(ctx, "request panicked", "method", info.FullMethod, "err", p, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "internal error")
		}
		s.meter.GRPC(info.FullMethod, status.Code(err).String(), s.cfg.Now().Sub(start))
	}()
	defer severAfter(ctx, s.limits.AnswerTimeout)()
	ctx, leave, err := s.admitGRPC(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	defer leave()
	if info.IsClientStream || info.IsServerStream {
		defer context.AfterFunc(s.streams, func() { sever(ctx) })()
	}
	return next(srv, &callerStream{ss, ctx})
}

type callerStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // that is what a stream does
}

// Context implements grpc.ServerStream.
func (c *callerStream) Context() context.Context { return c.ctx }

// healthCheck is open to everybody, as /healthz is, and takes no place: see unary.
const healthCheck = "/grpc.health.v1.Health/Check"

func (s *Server) admitGRPC(ctx context.Context, method string) (context.Context, func(), error) {
	if method == healthCheck {
		return ctx, func() {}, nil
	}
	v := visitor{needs: roleGRPC(method), makes: makesGRPC(method)}
	if p, ok := peer.FromContext(ctx); ok {
		v.from = hostOf(p.Addr.String())
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			v.state = &info.State
		}
	}
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) > 0 {
		v.header = values[0]
	}
	ctx, leave, err := s.guard.admit(ctx, v)
	var why *refusal
	if errors.As(err, &why) {
		return ctx, nil, status.Error(codeOf(why.why), why.message)
	}
	return ctx, leave, err
}

func codeOf(why metrics.Refusal) codes.Code {
	switch why {
	case metrics.BadCredentials:
		return codes.Unauthenticated
	case metrics.LackOfRole:
		return codes.PermissionDenied
	case metrics.TooFast, metrics.TooManyOpen, metrics.TooLarge:
		return codes.ResourceExhausted
	case metrics.TooBusy:
		return codes.Unavailable
	}
	return codes.Internal
}
