package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// runChild has a process do a job to its end.
func (s *story) runChild(ctx context.Context, req request) (reply, int, error) {
	stdout, pid, err := s.startChild(ctx, req)
	if err != nil {
		return reply{}, pid, err
	}
	var rep reply
	if err := json.Unmarshal(stdout, &rep); err != nil {
		return reply{}, pid, fmt.Errorf("read the reply of process %d: %w", pid, err)
	}
	return rep, pid, nil
}

// killChild has a process do a job that it cannot finish, and makes sure that it
// was killed.
func (s *story) killChild(ctx context.Context, req request) (pid int, err error) {
	_, pid, err = s.startChild(ctx, req)
	var end *childError
	switch {
	case err == nil:
		return pid, fmt.Errorf("process %d was to be killed %s, and ended in peace", pid, req.Death)
	case errors.As(err, &end) && end.state == "signal: killed" && ctx.Err() == nil:
		return pid, nil
	}
	return pid, err
}

// childError is how a process ended that did not end well.
type childError struct {
	pid           int
	state, stderr string
}

func (e *childError) Error() string {
	return fmt.Sprintf("process %d ended with %s: %s", e.pid, e.state, e.stderr)
}

func (s *story) startChild(ctx context.Context, req request) (stdout []byte, pid int, err error) {
	in, err := json.Marshal(req)
	if err != nil {
		return nil, 0, err
	}
	var out, problems bytes.Buffer
	cmd := s.child(ctx)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &problems
	if err := cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("start a process: %w", err)
	}
	pid = cmd.Process.Pid
	if err := cmd.Wait(); err != nil {
		return nil, pid, &childError{pid, cmd.ProcessState.String(), string(bytes.TrimSpace(problems.Bytes()))}
	}
	return out.Bytes(), pid, nil
}
