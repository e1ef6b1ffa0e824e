package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"
)

// A registrar registers unary methods as streams of one message each way, which are the
// same on the wire. gRPC reads the message of a unary method before any interceptor can ask
// who sends it, and waits for it as long as the client likes: strangers could fill the
// memory. A stream's interceptor comes first, and the message is read when we say so.
type registrar struct {
	*grpc.Server
	s *Server
}

// RegisterService implements grpc.ServiceRegistrar.
func (r registrar) RegisterService(service *grpc.ServiceDesc, implementation any) {
	late := *service
	late.Methods = nil
	late.Streams = append([]grpc.StreamDesc(nil), service.Streams...)
	for _, m := range service.Methods {
		late.Streams = append(late.Streams, grpc.StreamDesc{
			StreamName: m.MethodName, Handler: r.s.unary("/"+service.ServiceName+"/"+m.MethodName, m.Handler),
		})
	}
	r.Server.RegisterService(&late, implementation)
}

// unary reads the request, and answers it. What strangers ask, how the server is, is not
// read but answered for the whole server: a message may have BodyMax bytes, and of many
// strangers at once that would be all the memory.
func (s *Server) unary(method string, handler grpc.MethodHandler) grpc.StreamHandler {
	interceptor := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if err := s.auditGRPC(ctx, method, request); err != nil {
			return nil, err
		}
		return next(ctx, request)
	}
	return func(implementation any, ss grpc.ServerStream) error {
		reply, err := handler(implementation, ss.Context(), func(request any) error {
			if method == healthCheck {
				return nil
			}
			defer severAfter(ss.Context(), s.limits.ReadTimeout)()
			return ss.RecvMsg(request)
		}, interceptor)
		if err != nil {
			return err
		}
		return ss.SendMsg(reply)
	}
}

type severKey struct{}

// severable is where gRPC makes the context of a stream, and the only place where it can be
// given an end: who waits for the client's bytes waits for this context.
func severable(ctx context.Context, _ *tap.Info) (context.Context, error) {
	ctx, cancel := context.WithCancel(ctx)
	return context.WithValue(ctx, severKey{}, cancel), nil
}

// sever ends a stream, whatever it waits for.
func sever(ctx context.Context) {
	if cancel, ok := ctx.Value(severKey{}).(context.CancelFunc); ok {
		cancel()
	}
}

// severAfter ends a stream after some time, unless it is stopped before.
func severAfter(ctx context.Context, d time.Duration) (stop func() bool) {
	return time.AfterFunc(d, func() { sever(ctx) }).Stop
}
