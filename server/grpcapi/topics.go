package grpcapi

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/server/dtmapi"
	"github.com/troth-tx/troth/server/grpcapi/dtmpb"
	"github.com/troth-tx/troth/store"
)

func (s *service) subscribe(ctx context.Context, m *dtmpb.TopicRequest) (*emptypb.Empty, error) {
	subscriber := store.Subscriber{URL: m.GetURL(), Remark: m.GetRemark()}
	if err := dtmapi.CheckTopic(m.GetTopic(), subscriber); err != nil {
		return nil, invalid(err)
	}
	if err := s.check(subscriber.URL); err != nil {
		return nil, invalid(err)
	}
	present, err := s.Store.Topic(ctx, m.GetTopic())
	switch {
	case err != nil:
		return nil, stored(err)
	case len(present) >= dtmapi.SubscribersMax:
		return nil, status.Errorf(codes.ResourceExhausted, "topic: it has %d subscribers, which is the limit", len(present))
	}
	err = s.Store.Subscribe(ctx, m.GetTopic(), subscriber)
	if errors.Is(err, store.ErrExists) {
		return nil, status.Error(codes.AlreadyExists, "this url exists")
	}
	return changed(err)
}

func (s *service) unsubscribe(ctx context.Context, m *dtmpb.TopicRequest) (*emptypb.Empty, error) {
	if err := dtmapi.CheckTopic(m.GetTopic(), store.Subscriber{URL: m.GetURL()}); err != nil {
		return nil, invalid(err)
	}
	return changed(s.Store.Unsubscribe(ctx, m.GetTopic(), m.GetURL()))
}

func (s *service) deleteTopic(ctx context.Context, m *dtmpb.TopicRequest) (*emptypb.Empty, error) {
	return changed(s.Store.DeleteTopic(ctx, m.GetTopic()))
}

func changed(err error) (*emptypb.Empty, error) {
	if err != nil {
		return nil, stored(err)
	}
	return &emptypb.Empty{}, nil
}

// stored gives what the store said a code.
func stored(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return status.Error(codes.NotFound, "no such topic, or nobody with this url")
	}
	return status.Error(codes.Unavailable, fmt.Sprintf("topics: %v", err))
}
