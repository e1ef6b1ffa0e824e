package outbound

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/callsign"
	"github.com/troth-tx/troth/store"
)

// callGRPC calls a unary method with the payload as it is; what comes back is read and
// not looked at.
func (c *Caller) callGRPC(ctx context.Context, t *target, call *engine.Call) (engine.Answer, string) {
	conn, err := c.grpc.get(t)
	if err != nil {
		return engine.Unknown, readable(err.Error())
	}
	defer c.grpc.release(conn)
	request := call.Payload
	if call.Op == store.Resume {
		request = workflowData(call.Payload)
	}
	md, err := c.metadataOf(t, request, call)
	if err != nil {
		return engine.Unknown, readable(err.Error())
	}
	err = conn.cc.Invoke(metadata.NewOutgoingContext(ctx, md), t.method, request, nil, invokeOptions...)
	return c.grpcAnswer(err)
}

var invokeOptions = []grpc.CallOption{grpc.ForceCodecV2(rawCodec{})}

// workflowData is the message workflow.WorkflowData with its only field.
func workflowData(data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), data)
}

func (c *Caller) metadataOf(t *target, request []byte, call *engine.Call) (metadata.MD, error) {
	md := make(metadata.MD, 6+len(call.Headers))
	if len(call.Headers) > 0 {
		if err := CheckHeaders(call.Headers); err != nil {
			return nil, err
		}
		for name, value := range call.Headers {
			if name = strings.ToLower(name); !strings.HasPrefix(name, "grpc-") && name != "content-type" && name != "te" {
				md[name] = []string{value}
			}
		}
	}
	md["dtm-gid"] = []string{call.GID}
	md["dtm-trans_type"] = []string{call.Pattern.String()}
	md["dtm-branch_id"] = []string{call.Branch}
	md["dtm-op"] = []string{opOf(call)}
	md["dtm-dtm"] = []string{""}
	if len(c.cfg.SigningKey) > 0 {
		md[callsign.Metadata] = []string{callsign.Sign(c.cfg.SigningKey, callsign.OfGRPC(md, t.method, request), time.Now())}
	}
	return md, nil
}

// grpcAnswer says what a status means. Nothing between here and the participant makes
// the two codes that decide.
func (c *Caller) grpcAnswer(err error) (engine.Answer, string) {
	if err == nil {
		return engine.Success, ""
	}
	s, ok := status.FromError(err)
	if !ok {
		return engine.Unknown, readable(err.Error())
	}
	text := readable("gRPC " + s.Code().String() + ": " + s.Message())
	switch s.Code() { //nolint:exhaustive // every other code decides nothing
	case codes.Aborted:
		if s.Message() == string(wordOngoing) && !c.cfg.IgnoreWords { // as old clients say it
			return engine.Ongoing, text
		}
		return engine.Failure, text
	case codes.FailedPrecondition:
		return engine.Ongoing, text
	}
	return engine.Unknown, text
}

// rawCodec sends bytes as they are. It has no name, so that the content type is plain
// application/grpc, which every server knows.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

func (rawCodec) Name() string { return "" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	request, ok := v.([]byte)
	if !ok {
		return nil, errors.New("outbound: rawCodec: want bytes")
	}
	if len(request) == 0 {
		return nil, nil
	}
	return mem.BufferSlice{mem.SliceBuffer(request)}, nil
}

func (rawCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
