package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// selftest makes mistakes in the program and lets the tests look for them. It builds
// the program anew for that, so it needs the source.
func selftest(ctx context.Context, args []string) error {
	dir, err := os.MkdirTemp("", "torture-selftest-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "selftest")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/troth-tx/troth/test/selftest").CombinedOutput()
	if err != nil {
		return fmt.Errorf("torture: selftest builds the program with mistakes in it: run it in a checkout of troth, with Go installed: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it has servers to stop
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 2 {
		return errUsage
	} else if err != nil {
		return fmt.Errorf("torture: selftest: %w", err)
	}
	return nil
}
