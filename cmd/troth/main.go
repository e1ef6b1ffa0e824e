package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := run(ctx, streams{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:], os.Environ())
	stop()
	os.Exit(code)
}

type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run is the whole program but for the process around it.
func run(ctx context.Context, std streams, args, environ []string) int {
	a := &app{streams: std, environ: environ}
	for _, text := range append(args[:len(args):len(args)], environ...) {
		a.secrets.learn(text)
	}
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	err := root.ExecuteContext(ctx)
	a.report(err)
	return exitCode(err)
}
