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
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	}
	if s.certs != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.certs.outer("h2"))))
	}
	g := grpc.NewServer(options...)
	s.health = health.NewServer()
	grpc_health_v1.RegisterHealthServer(g, s.health)
	s.registerDTM(g)
	return g
}

// healthService is open to everybody, as /healthz is.
const healthService = "/grpc.health.v1.Health/"

// unary lets in whom the guard admits, counts, and outlives panics.
func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (reply any, err error) {
	start := s.cfg.Now()
	defer func() {
		if p := recover(); p != nil {
			s.log.ErrorContext(ctx, "request panicked", "method", info.FullMethod, "err", p, "stack", string(debug.Stack()))
			reply, err = nil, status.Error(codes.Internal, "internal error")
		}
		s.meter.GRPC(info.FullMethod, status.Code(err).String(), s.cfg.Now().Sub(start))
	}()
	ctx, leave, err := s.admitGRPC(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := s.auditGRPC(ctx, info.FullMethod, request); err != nil {
		return nil, err
	}
	return next(ctx, request)
}

// stream does for streams what unary does. dtm's protocol has none.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, leave, err := s.admitGRPC(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer leave()
	return next(srv, &callerStream{ss, ctx})
}

type callerStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // that is what a stream does
}

// Context implements grpc.ServerStream.
func (c *callerStream) Context() context.Context { return c.ctx }

func (s *Server) admitGRPC(ctx context.Context, method string) (context.Context, func(), error) {
	if len(method) > len(healthService) && method[:len(healthService)] == healthService {
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
