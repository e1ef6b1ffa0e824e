package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// selftest makes mistakes in the program and lets the tests look for them. It builds
// the program anew for that, so it needs the source.
func selftest(ctx context.Context, args []string) error {
	const pkg = "github.com/troth-tx/troth/test/selftest"
	if err := exec.CommandContext(ctx, "go", "list", pkg).Run(); err != nil {
		return errors.New("torture: selftest builds the program with mistakes in it: run it in a checkout of troth, with Go installed")
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"run", pkg}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it has servers to stop
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("torture: selftest: %w", err)
	}
	return nil
}
