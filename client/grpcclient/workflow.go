package grpcclient

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/troth-tx/troth/client"
)

// ResumeMethod is behind the host and port of a server with [RegisterWorkflows] in the
// address at which the server goes on with workflows: "10.0.0.1:9000" + ResumeMethod.
const ResumeMethod = "/workflow.Workflow/Execute"

// RegisterWorkflows lets a gRPC server go on with the workflows of a registry: to is a
// *grpc.Server, or what [SignedBy] makes of it. A function that panics is run again as the
// server asks; the panic goes to slog's default logger.
func RegisterWorkflows(to grpc.ServiceRegistrar, ws *client.Workflows) {
	to.RegisterService(&grpc.ServiceDesc{
		ServiceName: "workflow.Workflow",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Execute", Handler: execute}},
	}, ws)
}

// execute serves the method. Its message, one field of bytes, is that of BytesValue. A panic
// that no interceptor recovers from is logged and answered with codes.Internal: gRPC would
// end the process, and then the next one that the server asks.
func execute(registry any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (_ any, err error) { //nolint:revive // the type is grpc's
	defer func() {
		if p := recover(); p != nil {
			slog.ErrorContext(ctx, "workflow panicked", "panic", p)
			err = status.Error(codes.Internal, "client: the workflow's function panicked")
		}
	}()
	input := new(wrapperspb.BytesValue)
	if err := decode(input); err != nil {
		return nil, err
	}
	run := func(ctx context.Context, request any) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		var name, gid string
		if v := md.Get(keyOp); len(v) > 0 {
			name = v[0]
		}
		if v := md.Get(keyGID); len(v) > 0 {
			gid = v[0]
		}
		err := registry.(*client.Workflows).Resume(ctx, name, gid, request.(*wrapperspb.BytesValue).GetValue())
		return new(emptypb.Empty), toStatus(err)
	}
	if interceptor == nil {
		return run(ctx, input)
	}
	return interceptor(ctx, input, &grpc.UnaryServerInfo{Server: registry, FullMethod: ResumeMethod}, run)
}
