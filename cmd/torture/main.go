// Command torture kills, freezes and cuts off transaction managers and their
// databases, and looks from outside whether a promise was broken.
//
//	torture points [-actions kill,freeze,cut-before,cut-after] [-only POINT] [-seed N] [-rounds N]
//	torture random [-duration 20m] [-seed N] [-register home|file|sql|all]
//	torture replay FILE
//	torture selftest [-only NAME,NAME] [-by DETECTOR,DETECTOR] [-all]
//
// Everything runs on servers of its own, which end with it. Build it with the tag
// "faultpoint" to have managers kill themselves at named points too.
//
// Exit status: 0 nothing was found; 1 a promise was broken, or the torture itself
// failed; 2 usage; 3 nothing was found, but the kills or the load were too few to
// mean much.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/troth-tx/troth/internal/torture"
)

// A mode is a subcommand.
type mode struct {
	run  func(ctx context.Context, args []string) error
	help string
}

var modes = map[string]mode{
	"points": {points, "every fault point: kill, freeze, cut off before and after, one at a time"},
	"random": {random, "faults drawn from a seed, until the time is over or a promise is broken"},
	"replay": {replay, "the faults of a failed epoch once more"},

	"selftest": {selftest, "seeded mistakes: does anything find them?"},
}

var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(exit(run(ctx, os.Args[1:])))
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case childMode:
			return child(ctx)
		case pointsChildMode:
			return pointsChild(ctx)
		}
	}
	if len(args) > 0 {
		if m, ok := modes[args[0]]; ok {
			return m.run(ctx, args[1:])
		}
	}
	for _, name := range []string{"points", "random", "replay", "selftest"} {
		fmt.Fprintf(os.Stderr, "torture %-8s %s\n", name, modes[name].help)
	}
	return errUsage
}

func exit(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.Is(err, torture.ErrTooLittle) {
		return 3
	}
	return 1
}
