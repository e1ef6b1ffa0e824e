package grpcclient

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/troth-tx/troth/client"
)

// The names of what a call carries.
const (
	keyGID     = "dtm-gid"
	keyPattern = "dtm-trans_type"
	keyBranch  = "dtm-branch_id"
	keyOp      = "dtm-op"
	keyServer  = "dtm-dtm"
	keyPhase2  = "dtm-phase2_url"
)

// UnaryServerInterceptor lets methods take part in transactions: client.CallFrom finds in
// their context which one calls. Their errors become the agreed codes: client.ErrFailed
// Aborted, client.ErrOngoing FailedPrecondition; others stay as they are, or become
// Unknown. Calls of no transaction pass unchanged.
func UnaryServerInterceptor() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		first := func(key string) string {
			if v := md.Get(key); len(v) > 0 {
				return v[0]
			}
			return ""
		}
		if first(keyGID) == "" {
			return next(ctx, request)
		}
		ctx = client.WithCall(ctx, &client.Call{
			GID: first(keyGID), Pattern: client.Pattern(first(keyPattern)), Branch: first(keyBranch), Op: client.Op(first(keyOp)),
			Server: first(keyServer), Phase2URL: first(keyPhase2),
		})
		reply, err := next(ctx, request)
		if err == nil {
			err = client.JoinError(ctx)
		}
		return reply, toStatus(err)
	}
}

// toStatus gives an error the agreed code.
func toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, client.ErrFailed):
		return status.Error(codes.Aborted, clip(err.Error()))
	case errors.Is(err, client.ErrOngoing):
		return status.Error(codes.FailedPrecondition, clip(err.Error()))
	}
	if c := status.Code(err); c == codes.Aborted || c == codes.FailedPrecondition {
		return status.Error(codes.Unknown, clip(err.Error())) // of another call, and not our answer
	}
	return err
}

const textMax = 1024 // bytes

// clip shortens the text of an error: it travels as a header, and a peer that finds its
// headers too long does not see the code either.
func clip(s string) string {
	if len(s) <= textMax {
		return s
	}
	return strings.ToValidUTF8(s[:textMax], "") + " ..."
}

// UnaryClientInterceptor lets the calls that are made within client.TCC.Do, or a step of a
// workflow, be those of the branch; the agreed codes become client.ErrFailed and
// client.ErrOngoing, beside the status, and others client.ErrUnknown. Other calls pass
// unchanged.
func UnaryClientInterceptor() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		call, ok := client.OutgoingFrom(ctx)
		if !ok {
			return invoke(ctx, method, request, reply, conn, opts...)
		}
		pairs := []string{keyGID, call.GID, keyPattern, string(call.Pattern), keyBranch, call.Branch, keyOp, string(call.Op)}
		if call.Server != "" {
			pairs = append(pairs, keyServer, call.Server)
		}
		err := invoke(metadata.AppendToOutgoingContext(ctx, pairs...), method, request, reply, conn, opts...)
		if err == nil {
			return nil
		}
		kind := client.ErrUnknown
		if c := status.Code(err); c == codes.Aborted {
			kind = client.ErrFailed
		} else if c == codes.FailedPrecondition {
			kind = client.ErrOngoing
		}
		return &client.Error{Op: string(call.Op), GID: call.GID, URL: method, Kind: kind, Err: err}
	}
}
