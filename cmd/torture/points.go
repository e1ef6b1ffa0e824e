package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/torture"
)

// pointsChildMode is the hidden mode in which this program is the one under
// torture at its fault points.
const pointsChildMode = "points-child"

func pointsChild(ctx context.Context) error {
	return torture.PointsChild(ctx, os.Stdin, os.Stdout, os.Stderr)
}

func points(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("torture points", flag.ContinueOnError)
	o := torture.PointsOptions{Out: os.Stdout}
	actions := flags.String("actions", "", "some of kill,freeze,cut-before,cut-after; all by default")
	only := flags.String("only", "", "names of points, separated by commas; all by default")
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano())%1e9, "of all choices")
	flags.IntVar(&o.Rounds, "rounds", 1, "how often to do each action at each point, each time on other databases")
	flags.IntVar(&o.First, "first", 0, "the number of the first round")
	flags.IntVar(&o.Lanes, "lanes", 8, "how many programs are tortured at a time")
	flags.BoolVar(&o.Stop, "stop", false, "begin nothing after the first failure")
	flags.StringVar(&o.Dir, "dir", "", "for what the run needs on disk; a temporary directory by default")
	if err := parse(flags, args); err != nil {
		return err
	}
	if !faultpoint.Enabled {
		return errors.New("this program has no fault points: build it with -tags faultpoint, on Linux")
	}
	o.Actions, o.Only = list(*actions), list(*only)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.Command = []string{self, pointsChildMode}
	if o.Dir == "" {
		o.Dir = filepath.Join(os.TempDir(), "troth-points-"+strconv.Itoa(os.Getpid()))
		defer func() { _ = os.RemoveAll(o.Dir) }()
	}
	return torture.Points(ctx, o)
}

// list splits at commas.
func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
