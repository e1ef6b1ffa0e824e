package grpcclient

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/internal/callsign"
)

// SignedBy returns a registrar whose services let only calls in that a troth server signed
// with one of the keys (serve --signing-key), each once: two keys while one is changed. Its
// error says which key is shorter than 32 bytes, or that there is none.
//
//	signed, err := grpcclient.SignedBy(server, key)
//	bank.RegisterBankServer(signed, participant)
//	grpcclient.RegisterWorkflows(signed, workflows)
//
// Other calls are answered with Unauthenticated, before the server's interceptors see them
// and before their message is decoded; the server takes that for an answer that is not known
// and calls again. A program's own calls, of TCC and XA, are not signed: register the
// services of tries with the server itself. Branch headers are not signed either.
func SignedBy(to grpc.ServiceRegistrar, keys ...[]byte) (grpc.ServiceRegistrar, error) {
	v, err := callsign.NewVerifier(callsign.Config{Keys: keys})
	if err != nil {
		return nil, fmt.Errorf("grpcclient: SignedBy: %w", err)
	}
	return &signedRegistrar{to, v}, nil
}

// A signedRegistrar stands before each method of its services. An interceptor would come
// too late: it sees a message that is decoded, and nobody can encode it again as it was
// sent, since maps have no order and fields any.
type signedRegistrar struct {
	to       grpc.ServiceRegistrar
	verifier *callsign.Verifier
}

// RegisterService implements grpc.ServiceRegistrar.
func (s *signedRegistrar) RegisterService(service *grpc.ServiceDesc, implementation any) {
	signed := *service
	signed.Methods = make([]grpc.MethodDesc, len(service.Methods))
	for i, m := range service.Methods {
		signed.Methods[i] = grpc.MethodDesc{MethodName: m.MethodName, Handler: s.verified("/"+service.ServiceName+"/"+m.MethodName, m.Handler)}
	}
	signed.Streams = make([]grpc.StreamDesc, len(service.Streams))
	for i, m := range service.Streams {
		m.Handler = func(any, grpc.ServerStream) error {
			return status.Error(codes.Unauthenticated, "this service takes signed calls only, and streams are not signed")
		}
		signed.Streams[i] = m
	}
	s.to.RegisterService(&signed, implementation)
}

// verified is a method that runs after the signature was found good. What is decoded is
// what was verified, byte for byte.
func (s *signedRegistrar) verified(method string, handler grpc.MethodHandler) grpc.MethodHandler {
	return func(implementation any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		raw := new(emptypb.Empty) // knows no field, and so keeps the bytes of all
		if err := decode(raw); err != nil {
			return nil, err
		}
		message := raw.ProtoReflect().GetUnknown()
		md, _ := metadata.FromIncomingContext(ctx)
		if err := s.verifier.Verify(strings.Join(md[callsign.Metadata], "\n"), callsign.OfGRPC(md, method, message)); err != nil {
			return nil, status.Error(codes.Unauthenticated, err.Error())
		}
		return handler(implementation, metadata.NewIncomingContext(ctx, onlySigned(md)), func(into any) error {
			return unmarshal(message, into)
		}, interceptor)
	}
}

// unmarshal decodes as gRPC does.
func unmarshal(message []byte, into any) error {
	var m proto.Message
	switch into := into.(type) {
	case proto.Message:
		m = into
	case protoadapt.MessageV1:
		m = protoadapt.MessageV2Of(into)
	default:
		return status.Errorf(codes.Internal, "grpcclient: SignedBy: %T is no message of protobuf", into)
	}
	if err := proto.Unmarshal(message, m); err != nil {
		return status.Errorf(codes.Internal, "grpcclient: SignedBy: %v", err)
	}
	return nil
}

// onlySigned takes out of metadata what a server never says, so that nobody else can say it
// beside a good signature: where branches are registered, and where an XA branch is ended.
func onlySigned(md metadata.MD) metadata.MD {
	md = md.Copy()
	delete(md, keyServer)
	delete(md, keyPhase2)
	return md
}
