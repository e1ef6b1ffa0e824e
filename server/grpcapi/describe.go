package grpcapi

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/server/grpcapi/dtmpb"
)

// dtmPackage is the protobuf package under which dtm's clients know the service and its
// messages. No file of that package is linked here: see dtmpb.
const (
	dtmPackage  = "dtmgimp"
	serviceName = dtmPackage + ".Dtm"
	dtmFile     = "dtmgimp.proto"
)

// description says which method serves which request.
func (s *service) description() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Metadata:    dtmFile,
		Methods: []grpc.MethodDesc{
			unary("NewGid", s.newGID),
			unary("Submit", s.submit),
			unary("Prepare", s.prepare),
			unary("Abort", s.abort),
			unary("RegisterBranch", s.registerBranch),
			unary("PrepareWorkflow", s.prepareWorkflow),
			unary("Subscribe", s.subscribe),
			unary("Unsubscribe", s.unsubscribe),
			unary("DeleteTopic", s.deleteTopic),
		},
	}
}

// unary is what protoc-gen-go-grpc would generate for each method.
func unary[Request, Reply any](name string, method func(context.Context, *Request) (*Reply, error)) grpc.MethodDesc {
	return grpc.MethodDesc{
		MethodName: name,
		Handler: func(server any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			request := new(Request)
			if err := decode(request); err != nil {
				return nil, err
			}
			if interceptor == nil {
				return method(ctx, request)
			}
			info := &grpc.UnaryServerInfo{Server: server, FullMethod: "/" + serviceName + "/" + name}
			return interceptor(ctx, request, info, func(ctx context.Context, request any) (any, error) {
				return method(ctx, request.(*Request))
			})
		},
	}
}

// dtmNames are the messages by dtm's names.
var dtmNames = map[string]string{
	"TransOptions": "DtmTransOptions", "Request": "DtmRequest", "GidReply": "DtmGidReply", "BranchRequest": "DtmBranchRequest",
	"ProgressesReply": "DtmProgressesReply", "Transaction": "DtmTransaction", "Progress": "DtmProgress", "TopicRequest": "DtmTopicRequest",
}

// registerReflection lets tools such as grpcurl ask for the service as dtm has it. Other
// services of the server are looked up where they are linked.
func registerReflection(to reflection.GRPCServer) {
	options := reflection.ServerOptions{Services: to, DescriptorResolver: resolver{dtmFiles()}}
	reflectionpb.RegisterServerReflectionServer(to, reflection.NewServerV1(options))
	reflectionalphapb.RegisterServerReflectionServer(to, reflection.NewServer(options))
}

// resolver finds dtm's file, then all that are linked.
type resolver struct{ dtm *protoregistry.Files }

// FindFileByPath implements protodesc.Resolver.
func (r resolver) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if d, err := r.dtm.FindFileByPath(path); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName implements protodesc.Resolver.
func (r resolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := r.dtm.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

// dtmFiles makes, of our messages, the file that describes dtm's service.
func dtmFiles() *protoregistry.Files {
	ours := protodesc.ToFileDescriptorProto(dtmpb.File_troth_dtm_proto)
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String(dtmFile), Package: proto.String(dtmPackage), Syntax: ours.Syntax,
		Dependency: []string{emptypb.File_google_protobuf_empty_proto.Path()},
	}
	for _, m := range ours.GetMessageType() {
		if name, ok := dtmNames[m.GetName()]; ok {
			file.MessageType = append(file.MessageType, renamed(m, name))
		}
	}
	empty := "." + string((&emptypb.Empty{}).ProtoReflect().Descriptor().FullName())
	method := func(name, request, reply string) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{Name: &name, InputType: &request, OutputType: &reply}
	}
	const ofDTM = "." + dtmPackage + "."
	file.Service = []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Dtm"), Method: []*descriptorpb.MethodDescriptorProto{
		method("NewGid", empty, ofDTM+"DtmGidReply"),
		method("Submit", ofDTM+"DtmRequest", empty),
		method("Prepare", ofDTM+"DtmRequest", empty),
		method("Abort", ofDTM+"DtmRequest", empty),
		method("RegisterBranch", ofDTM+"DtmBranchRequest", empty),
		method("PrepareWorkflow", ofDTM+"DtmRequest", ofDTM+"DtmProgressesReply"),
		method("Subscribe", ofDTM+"DtmTopicRequest", empty),
		method("Unsubscribe", ofDTM+"DtmTopicRequest", empty),
		method("DeleteTopic", ofDTM+"DtmTopicRequest", empty),
	}}}
	files := new(protoregistry.Files)
	d, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err == nil {
		err = files.RegisterFile(d)
	}
	if err != nil {
		panic(err) // nothing in it depends on input
	}
	return files
}

// renamed gives a message, and the types of its fields, dtm's names.
func renamed(m *descriptorpb.DescriptorProto, name string) *descriptorpb.DescriptorProto {
	prefix := "." + string(dtmpb.File_troth_dtm_proto.Package()) + "."
	m = proto.CloneOf(m)
	m.Name = &name
	for _, f := range m.GetField() {
		path, ok := strings.CutPrefix(f.GetTypeName(), prefix)
		if !ok {
			continue
		}
		outer, inner, nested := strings.Cut(path, ".") // maps have types in their messages
		path = "." + dtmPackage + "." + dtmNames[outer]
		if nested {
			path += "." + inner
		}
		f.TypeName = &path
	}
	return m
}
