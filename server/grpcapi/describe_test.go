package grpcapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dtm-labs/client/dtmgrpc/dtmgpb"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/troth-tx/troth/server/outbound"
)

// What reflection tells is dtm's service, field by field.
func TestReflection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, outbound.Config{})
	stream, err := reflectionpb.NewServerReflectionClient(dial(t, w.address)).ServerReflectionInfo(t.Context())
	w.must(err)
	w.must(stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "dtmgimp.Dtm"},
	}))
	reply, err := stream.Recv()
	w.must(err)
	got := new(descriptorpb.FileDescriptorProto)
	for _, b := range reply.GetFileDescriptorResponse().GetFileDescriptorProto() {
		f := new(descriptorpb.FileDescriptorProto)
		w.must(proto.Unmarshal(b, f))
		if f.GetPackage() == "dtmgimp" {
			got = f
		}
	}
	want := protodesc.ToFileDescriptorProto(dtmgpb.File_dtmgimp_proto)
	if g, w := shape(got), shape(want); g != w {
		t.Errorf("told\n%s\nwant\n%s", g, w)
	}
}

// shape is what of a file counts on the wire and in JSON, in any order.
func shape(f *descriptorpb.FileDescriptorProto) string {
	var lines []string
	for _, s := range f.GetService() {
		for _, m := range s.GetMethod() {
			lines = append(lines, fmt.Sprintln(s.GetName(), m.GetName(), m.GetInputType(), m.GetOutputType(), m.GetClientStreaming(), m.GetServerStreaming()))
		}
	}
	for _, m := range f.GetMessageType() {
		for _, d := range m.GetField() {
			lines = append(lines, fmt.Sprintln(m.GetName(), d.GetName(), d.GetNumber(), d.GetType(), d.GetLabel(), d.GetTypeName(), protoreflect.Name(d.GetJsonName())))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
