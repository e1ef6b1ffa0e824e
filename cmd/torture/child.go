package main

import (
	"context"
	"os"

	"github.com/troth-tx/troth/internal/torture"
)

// childMode is the hidden mode in which this program is a manager's process.
const childMode = "child"

func child(ctx context.Context) error {
	return torture.Child(ctx, os.Stdin, os.Stdout, os.Stderr)
}

// childCommand starts this program as a manager's process.
func childCommand() ([]string, error) {
	self, err := os.Executable()
	return []string{self, childMode}, err
}
