package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store/embedded"
)

// startServer does what `troth serve` does, on any free port and with a directory that
// is removed in the end.
func startServer(ctx context.Context) (base string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "troth-example-")
	if err != nil {
		return "", nil, err
	}
	caller, err := outbound.New(outbound.Config{})
	if err != nil {
		return "", nil, err
	}
	st, err := embedded.Open(ctx, dir, nil)
	if err != nil {
		return "", nil, err
	}
	eng, err := engine.Open(ctx, st, engine.Config{Caller: caller})
	if err != nil {
		return "", nil, err
	}
	s, err := server.New(server.Config{Engine: eng, Store: st, HTTPAddr: "127.0.0.1:0", GRPCAddr: "127.0.0.1:0"})
	if err == nil {
		err = s.Start(ctx)
	}
	if err != nil {
		return "", nil, err
	}
	onHTTP, _ := s.Addrs()
	return fmt.Sprintf("http://%s/api/dtmsvr", onHTTP), func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = s.Shutdown(down) // nothing is under way
		_ = caller.Close()
		_ = os.RemoveAll(dir)
	}, nil
}
